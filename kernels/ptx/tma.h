// Tensor Memory Accelerator loads with an L2 policy (cuda::ptx's take none) and what belongs to them.
#ifndef DAK_KERNELS_PTX_TMA_H_
#define DAK_KERNELS_PTX_TMA_H_

#include <cuda.h>

#include <cstdint>

namespace dak::kernels::ptx {

__device__ inline uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Lines that are read once.
__device__ inline uint64_t EvictFirstPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Lines that every CTA reads again.
__device__ inline uint64_t EvictLastPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// What a load without a policy has.
__device__ inline uint64_t EvictNormalPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ inline void PrefetchTensorMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Reads the box at (column, row) into `target`; its bytes count on `barrier`.
__device__ inline void TmaLoad(void* target, const CUtensorMap* map, int32_t column, int32_t row, uint64_t* barrier,
                               uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(SharedAddress(target)),
      "l"(map), "r"(column), "r"(row), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_TMA_H_

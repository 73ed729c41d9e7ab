// Shared memory of the other CTAs of a cluster; one PTX instruction a function. cuda::ptx has none of these.
#ifndef DAK_KERNELS_PTX_CLUSTER_H_
#define DAK_KERNELS_PTX_CLUSTER_H_

#include <cstdint>

#include "kernels/ptx/tma.h"

namespace dak::kernels::ptx {

__device__ inline uint32_t ClusterRank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// The address of CTA `rank`'s counterpart of this CTA's shared `pointer`.
__device__ inline uint32_t MapToCta(const void* pointer, uint32_t rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(SharedAddress(pointer)), "r"(rank));
  return address;
}

// Arrives at a barrier at MapToCta's address. Says that this thread has read, or that its products have; what it wrote
// needn't be visible there.
// NOTE: nvcc 13.0 makes a fence of the whole GPU of a release to the cluster: hundreds of clocks.
__device__ inline void ArriveAtCta(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// The same, and what this thread wrote before is visible to who waits there.
__device__ inline void ReleaseToCta(uint32_t barrier) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ inline void StoreToCta(uint32_t address, uint32_t value) {
  asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_CLUSTER_H_

// A Tensor Memory Accelerator load of a box of four dimensions.
#ifndef DAK_KERNELS_PTX_TMA_4D_H_
#define DAK_KERNELS_PTX_TMA_4D_H_

#include "kernels/ptx/tma.h"

namespace dak::kernels::ptx {

// Reads the box at (0, row, 0, 0) into `target`; its bytes count on `barrier`.
__device__ inline void TmaLoadRows4d(void* target, const CUtensorMap* map, int32_t row, uint64_t* barrier,
                                     uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%2, %3, %2, %2}], [%4], %5;" ::"r"(SharedAddress(target)),
      "l"(map), "r"(0), "r"(row), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_TMA_4D_H_

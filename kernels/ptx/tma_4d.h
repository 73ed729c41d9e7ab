// A Tensor Memory Accelerator load of a box of four dimensions.
#ifndef DAK_KERNELS_PTX_TMA_4D_H_
#define DAK_KERNELS_PTX_TMA_4D_H_

#include "kernels/ptx/tma.h"

namespace dak::kernels::ptx {

// Reads the box at (0, row, 0, 0), or (0, 0, row, 0) where rows are the third dimension, into `target`; its bytes count
// on `barrier`.
template <bool kRowsThird>
__device__ inline void TmaLoadRows4d(void* target, const CUtensorMap* map, int32_t row, uint64_t* barrier,
                                     uint64_t policy) {
  const int32_t second = kRowsThird ? 0 : row;
  const int32_t third = kRowsThird ? row : 0;
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint"
      " [%0], [%1, {%2, %3, %4, %2}], [%5], %6;" ::"r"(SharedAddress(target)),
      "l"(map), "r"(0), "r"(second), "r"(third), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_TMA_4D_H_

// What warps of a warpgroup do together beside products; one PTX instruction a function. cuda::ptx has none of these.
#ifndef DAK_KERNELS_PTX_WARPGROUP_H_
#define DAK_KERNELS_PTX_WARPGROUP_H_

#include <cstdint>

namespace dak::kernels::ptx {

// Gives registers of this warpgroup back, down to kCount a thread...
template <int kCount>
__device__ inline void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
// ...and waits until there are kCount for each of this one's threads.
template <int kCount>
__device__ inline void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// A barrier among `threads` threads of a CTA; barrier 0 is __syncthreads'.
__device__ inline void SyncThreads(uint32_t barrier, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8, and of each matrix
// two elements: of row i / 4, columns 2 (i % 4) and the next.
__device__ inline void StoreMatrices(uint32_t address, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(m0), "r"(m1),
               "r"(m2), "r"(m3)
               : "memory");
}

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_WARPGROUP_H_

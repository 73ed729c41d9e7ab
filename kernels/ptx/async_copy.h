// Copies of 16 bytes from global into shared memory that threads wait for in groups, for architectures from 8.0 on, and
// a barrier of some of a CTA's warps.
// Source: PTX ISA, "Non-bulk copy" and "bar, barrier".
#ifndef DAK_KERNELS_PTX_ASYNC_COPY_H_
#define DAK_KERNELS_PTX_ASYNC_COPY_H_

#include <cstdint>

namespace dak::kernels::ptx {

// Past `bytes`, 0 to 16, the target becomes zero. Both addresses are multiples of 16.
__device__ inline void CopyAsync(uint32_t target, const void* source, uint32_t bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(bytes) : "memory");
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most kPending of this thread's groups are unfinished.
template <int kPending>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Of `threads` threads, whole warps; barrier 0 is __syncthreads'.
__device__ inline void NamedBarrier(uint32_t barrier, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_ASYNC_COPY_H_

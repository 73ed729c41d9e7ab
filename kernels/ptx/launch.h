// Instructions that order grids, the CTAs of a cluster and the warps of a CTA; one a function.
#ifndef DAK_KERNELS_PTX_LAUNCH_H_
#define DAK_KERNELS_PTX_LAUNCH_H_

#include <cstdint>

namespace dak::kernels::ptx {

// Waits until the grids that this one programmatically depends on have finished and their writes are visible.
__device__ inline void WaitForPreviousGrid() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
// Lets the grid that programmatically depends on this one start.
__device__ inline void ReleaseNextGrid() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

__device__ inline void ClusterArrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
__device__ inline void ClusterWait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// Barrier `id` (1 to 15) among `threads` threads, whole warps.
__device__ inline void NamedBarrier(uint32_t id, uint32_t threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_LAUNCH_H_

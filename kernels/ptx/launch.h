// Instructions that order one grid after another; one a function. cuda::ptx has none of these.
#ifndef DAK_KERNELS_PTX_LAUNCH_H_
#define DAK_KERNELS_PTX_LAUNCH_H_

#include <cstdint>

namespace dak::kernels::ptx {

// Waits until the grids that this one programmatically depends on have finished and their writes are visible.
__device__ inline void WaitForPreviousGrid() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
// Lets the grid that programmatically depends on this one start.
__device__ inline void ReleaseNextGrid() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

}  // namespace dak::kernels::ptx

#endif  // DAK_KERNELS_PTX_LAUNCH_H_

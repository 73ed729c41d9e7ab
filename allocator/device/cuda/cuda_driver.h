// The CUDA driver's functions that dak calls, found at run time: one binary runs with and without a GPU.
//
// The table's members carry the names that cuda.h gives them, so `driver.cuMemcpyHtoD(...)` is the version of the
// function that the header declares. Tests fill a table of their own (tests/unit/device/fake_cuda.h).
//
// Thread safety: a table doesn't change once filled; the driver's functions may be called from any thread.
// Source: CUDA Driver API, "Driver Entry Point Access"; cuda.h.
#ifndef DAK_ALLOCATOR_DEVICE_CUDA_CUDA_DRIVER_H_
#define DAK_ALLOCATOR_DEVICE_CUDA_CUDA_DRIVER_H_

#include <cuda.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// cuda.h maps some of these to their versioned symbols by macros; both the member and the symbol follow.
#define DAK_CUDA_DRIVER_FUNCTIONS(X)        \
  X(cuInit)                                 \
  X(cuDriverGetVersion)                     \
  X(cuGetErrorName)                         \
  X(cuDeviceGetCount)                       \
  X(cuDeviceGet)                            \
  X(cuDeviceGetName)                        \
  X(cuDeviceGetUuid)                        \
  X(cuDeviceGetAttribute)                   \
  X(cuDeviceTotalMem)                       \
  X(cuDevicePrimaryCtxRetain)               \
  X(cuDevicePrimaryCtxRelease)              \
  X(cuCtxPushCurrent)                       \
  X(cuCtxPopCurrent)                        \
  X(cuCtxSynchronize)                       \
  X(cuStreamCreate)                         \
  X(cuStreamDestroy)                        \
  X(cuStreamSynchronize)                    \
  X(cuMemGetInfo)                           \
  X(cuMemGetAllocationGranularity)          \
  X(cuMemCreate)                            \
  X(cuMemRelease)                           \
  X(cuMemAddressReserve)                    \
  X(cuMemAddressFree)                       \
  X(cuMemMap)                               \
  X(cuMemUnmap)                             \
  X(cuMemSetAccess)                         \
  X(cuMemRetainAllocationHandle)            \
  X(cuMemExportToShareableHandle)           \
  X(cuMemImportFromShareableHandle)         \
  X(cuMemGetAllocationPropertiesFromHandle) \
  X(cuMemsetD8)                             \
  X(cuMemcpyHtoD)                           \
  X(cuMemcpyDtoH)                           \
  X(cuMemcpyAsync)                          \
  X(cuMemHostRegister)                      \
  X(cuMemHostUnregister)                    \
  X(cuMemHostGetDevicePointer)              \
  X(cuTensorMapEncodeTiled)                 \
  X(cuTensorMapReplaceAddress)

namespace dak {

struct CudaDriver {
#define DAK_CUDA_MEMBER(name) decltype(&::name) name = nullptr;
  DAK_CUDA_DRIVER_FUNCTIONS(DAK_CUDA_MEMBER)
#undef DAK_CUDA_MEMBER
};

// Opens libcuda.so.1, once a process; it is never closed. NOT_FOUND if there is none; FAILED_PRECONDITION with reason
// DRIVER_TOO_OLD if it lacks a function.
absl::StatusOr<const CudaDriver*> LoadCudaDriver();

// The one place that turns a CUresult into a status: "cuMemCreate failed: CUDA_ERROR_OUT_OF_MEMORY (2)", reason
// DRIVER_ERROR; RESOURCE_EXHAUSTED for out of memory, else INTERNAL.
absl::Status DriverStatus(const CudaDriver& driver, CUresult result, absl::string_view call);

}  // namespace dak

// DAK_CUDA_CALL(driver, cuMemRelease, handle): the call's status.
#define DAK_CUDA_CALL(driver, function, ...) ::dak::DriverStatus((driver), (driver).function(__VA_ARGS__), #function)

#endif  // DAK_ALLOCATOR_DEVICE_CUDA_CUDA_DRIVER_H_

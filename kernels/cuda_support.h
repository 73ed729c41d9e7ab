// What the CUDA runners share: statuses, device memory, the current device. Internal to dak_kernels.
#ifndef DAK_KERNELS_CUDA_SUPPORT_H_
#define DAK_KERNELS_CUDA_SUPPORT_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "kernels/gemm_plan.h"

namespace dak::kernels {

inline absl::Status FromCuda(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // so that the next call doesn't see it
  return WithDetail(absl::InternalError(absl::StrCat(what, ": ", cudaGetErrorName(error), " (", static_cast<int>(error),
                                                     "), ", cudaGetErrorString(error))),
                    {.field = {}, .reason = "DRIVER_ERROR", .limit = {}});
}

struct CudaFree {
  void operator()(void* memory) const { cudaFree(memory); }
};
template <class T>
using DeviceArray = std::unique_ptr<T, CudaFree>;

// `count` elements of device memory, every byte `byte`.
template <class T>
absl::StatusOr<DeviceArray<T>> Allocate(size_t count, int byte) {
  void* memory = nullptr;
  DAK_RETURN_IF_ERROR(FromCuda(cudaMalloc(&memory, count * sizeof(T)), "cudaMalloc"));
  DeviceArray<T> array(static_cast<T*>(memory));
  DAK_RETURN_IF_ERROR(FromCuda(cudaMemset(memory, byte, count * sizeof(T)), "cudaMemset"));
  return array;
}

// Makes a device current for a scope.
class ScopedDevice {
 public:
  explicit ScopedDevice(int ordinal) {
    cudaGetDevice(&previous_);
    if (previous_ != ordinal) error_ = cudaSetDevice(ordinal);
  }
  ~ScopedDevice() { cudaSetDevice(previous_); }
  ScopedDevice(const ScopedDevice&) = delete;
  ScopedDevice& operator=(const ScopedDevice&) = delete;
  cudaError_t error() const { return error_; }

 private:
  int previous_ = 0;
  cudaError_t error_ = cudaSuccess;
};

// What a plan asks of the device. FAILED_PRECONDITION if its architecture isn't one that the kernels are for.
inline absl::Status QueryDevice(int ordinal, DeviceTraits& traits, float& ns_per_clock) {
  int major = 0;
  int minor = 0;
  int multiprocessors = 0;
  int clock_khz = 0;
  const auto query = [&](int* value, cudaDeviceAttr attribute) {
    return FromCuda(cudaDeviceGetAttribute(value, attribute, ordinal), "cudaDeviceGetAttribute");
  };
  DAK_RETURN_IF_ERROR(query(&major, cudaDevAttrComputeCapabilityMajor));
  DAK_RETURN_IF_ERROR(query(&minor, cudaDevAttrComputeCapabilityMinor));
  if (major != 9 || minor != 0) {
    return WithDetail(absl::FailedPreconditionError(absl::StrCat("device ", ordinal, " is of architecture ", major, ".",
                                                                 minor, "; kernels are for 9.0")),
                      {.field = {}, .reason = "ARCHITECTURE_UNSUPPORTED", .limit = "9.0"});
  }
  DAK_RETURN_IF_ERROR(query(&multiprocessors, cudaDevAttrMultiProcessorCount));
  DAK_RETURN_IF_ERROR(query(&clock_khz, cudaDevAttrClockRate));
  traits.multiprocessors = static_cast<uint32_t>(multiprocessors);
  ns_per_clock = 1e6f / static_cast<float>(clock_khz);
  return absl::OkStatus();
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_CUDA_SUPPORT_H_

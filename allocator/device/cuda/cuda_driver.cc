#include "allocator/device/cuda/cuda_driver.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "allocator/device/device_checks.h"

namespace dak {
namespace {

#define DAK_CUDA_STRING_INNER_(name) #name
#define DAK_CUDA_STRING_(name) DAK_CUDA_STRING_INNER_(name)

absl::StatusOr<const CudaDriver*> Load() {
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return WithReason(absl::NotFoundError(absl::StrCat("there is no CUDA driver: ", ::dlerror())), "NO_DRIVER");
  }
  static CudaDriver driver;
#define DAK_CUDA_LOAD(name)                                                                                           \
  driver.name = reinterpret_cast<decltype(driver.name)>(::dlsym(library, DAK_CUDA_STRING_(name)));                    \
  if (driver.name == nullptr) {                                                                                       \
    return WithReason(                                                                                                \
        absl::FailedPreconditionError(absl::StrCat("the CUDA driver is too old: it lacks ", DAK_CUDA_STRING_(name))), \
        "DRIVER_TOO_OLD");                                                                                            \
  }
  DAK_CUDA_DRIVER_FUNCTIONS(DAK_CUDA_LOAD)
#undef DAK_CUDA_LOAD
  return &driver;
}

}  // namespace

absl::StatusOr<const CudaDriver*> LoadCudaDriver() {
  static const auto* result = new absl::StatusOr<const CudaDriver*>(Load());
  return *result;
}

absl::Status DriverStatus(const CudaDriver& driver, CUresult result, absl::string_view call) {
  if (result == CUDA_SUCCESS) return absl::OkStatus();
  const char* name = nullptr;
  if (driver.cuGetErrorName(result, &name) != CUDA_SUCCESS || name == nullptr) name = "an unnamed error";
  const std::string message = absl::StrCat(call, " failed: ", name, " (", static_cast<int>(result), ")");
  return WithReason(
      result == CUDA_ERROR_OUT_OF_MEMORY ? absl::ResourceExhaustedError(message) : absl::InternalError(message),
      "DRIVER_ERROR");
}

}  // namespace dak

#include "client/src/cuda_stream.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/rpc_status.h"

namespace dak::client {
namespace {

// The driver's C interface, as far as it is needed here; its ABI is stable under these names.
using Result = int;
using Context = void*;
struct Driver {
  Result (*device_get)(int* device, int ordinal) = nullptr;
  Result (*primary_context_retain)(Context* context, int device) = nullptr;
  Result (*primary_context_release)(int device) = nullptr;
  Result (*context_push)(Context context) = nullptr;
  Result (*context_pop)(Context* context) = nullptr;
  Result (*stream_synchronize)(void* stream) = nullptr;
  Result (*error_name)(Result result, const char** name) = nullptr;
};

template <typename Function>
bool Resolve(void* library, const char* symbol, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, symbol));
  return *function != nullptr;
}

absl::StatusOr<Driver> LoadDriver() {
  // Never closed: the driver keeps threads and state of its own.
  void* const library = dlopen("libcuda.so.1", RTLD_NOW);
  if (library == nullptr) return absl::NotFoundError(absl::StrCat("no CUDA driver: ", dlerror()));
  Driver driver;
  if (!Resolve(library, "cuDeviceGet", &driver.device_get) ||
      !Resolve(library, "cuDevicePrimaryCtxRetain", &driver.primary_context_retain) ||
      !Resolve(library, "cuDevicePrimaryCtxRelease_v2", &driver.primary_context_release) ||
      !Resolve(library, "cuCtxPushCurrent_v2", &driver.context_push) ||
      !Resolve(library, "cuCtxPopCurrent_v2", &driver.context_pop) ||
      !Resolve(library, "cuStreamSynchronize", &driver.stream_synchronize) ||
      !Resolve(library, "cuGetErrorName", &driver.error_name)) {
    return absl::FailedPreconditionError("the CUDA driver is too old for dak");
  }
  return driver;
}

absl::Status ToStatus(const Driver& driver, const char* call, Result result) {
  if (result == 0) return absl::OkStatus();
  const char* name = nullptr;
  if (driver.error_name(result, &name) != 0 || name == nullptr) name = "unknown";
  return WithDetail(absl::InternalError(absl::StrCat(call, ": ", name, " (", result, ")")), Reason("", "DRIVER_ERROR"));
}

class DriverStreams final : public CudaStreams {
 public:
  DriverStreams(const Driver& driver, int device, Context context)
      : driver_(driver), device_(device), context_(context) {}
  ~DriverStreams() override { driver_.primary_context_release(device_); }

  absl::Status Synchronize(void* stream) override {
    DAK_RETURN_IF_ERROR(ToStatus(driver_, "cuCtxPushCurrent", driver_.context_push(context_)));
    const absl::Status status = ToStatus(driver_, "cuStreamSynchronize", driver_.stream_synchronize(stream));
    Context popped = nullptr;
    const absl::Status restored = ToStatus(driver_, "cuCtxPopCurrent", driver_.context_pop(&popped));
    return status.ok() ? restored : status;
  }

 private:
  const Driver driver_;
  const int device_;
  const Context context_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CudaStreams>> CudaStreams::Open(int device_ordinal) {
  DAK_ASSIGN_OR_RETURN(const Driver driver, LoadDriver());
  int device = 0;
  DAK_RETURN_IF_ERROR(ToStatus(driver, "cuDeviceGet", driver.device_get(&device, device_ordinal)));
  Context context = nullptr;
  DAK_RETURN_IF_ERROR(ToStatus(driver, "cuDevicePrimaryCtxRetain", driver.primary_context_retain(&context, device)));
  return std::make_unique<DriverStreams>(driver, device, context);
}

}  // namespace dak::client

#include "allocator/device/cuda/cuda_context.h"

#include <string>

#include "allocator/base/status_macros.h"
#include "allocator/device/log.h"

namespace dak {

void LogFailure(const absl::Status& status) noexcept {
  if (!status.ok()) LogFromDevice(std::string(status.message()));
}

absl::StatusOr<SharedContext> CudaContext::Retain(const CudaDriver* driver, CUdevice device) {
  CUcontext handle = nullptr;
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(*driver, cuDevicePrimaryCtxRetain, &handle, device));
  return std::make_shared<const CudaContext>(driver, device, handle);
}

CudaContext::~CudaContext() { LogFailure(DAK_CUDA_CALL(*driver_, cuDevicePrimaryCtxRelease, device_)); }

absl::StatusOr<ContextScope> ContextScope::Enter(SharedContext context) {
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(context->driver(), cuCtxPushCurrent, context->handle()));
  return ContextScope(std::move(context));
}

ContextScope::~ContextScope() {
  if (context_ == nullptr) return;
  CUcontext popped = nullptr;
  LogFailure(DAK_CUDA_CALL(context_->driver(), cuCtxPopCurrent, &popped));
}

}  // namespace dak

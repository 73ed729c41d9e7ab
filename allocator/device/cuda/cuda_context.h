// A device's primary context, held as long as anything needs it, and made current only for the length of a call.
//
// The primary context is the one that the CUDA runtime (and PyTorch) uses, so addresses that dak maps are theirs too;
// pushing and popping leaves the caller's current context as it was.
// Thread safety: a CudaContext is immutable; a ContextScope belongs to the thread that entered it.
// Source: CUDA Driver API, "Primary Context Management".
#ifndef DAK_ALLOCATOR_DEVICE_CUDA_CUDA_CONTEXT_H_
#define DAK_ALLOCATOR_DEVICE_CUDA_CUDA_CONTEXT_H_

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocator/device/cuda/cuda_driver.h"

namespace dak {

class CudaContext {
 public:
  // `driver` must outlive the context.
  static absl::StatusOr<std::shared_ptr<const CudaContext>> Retain(const CudaDriver* driver, CUdevice device);
  CudaContext(const CudaDriver* driver, CUdevice device, CUcontext handle)
      : driver_(driver), device_(device), handle_(handle) {}
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;
  ~CudaContext();

  const CudaDriver& driver() const { return *driver_; }
  CUdevice device() const { return device_; }
  CUcontext handle() const { return handle_; }

 private:
  const CudaDriver* driver_;
  CUdevice device_;
  CUcontext handle_;
};

using SharedContext = std::shared_ptr<const CudaContext>;

// Makes the context current on this thread until it dies.
class ContextScope {
 public:
  static absl::StatusOr<ContextScope> Enter(SharedContext context);
  ContextScope(ContextScope&&) = default;
  ContextScope& operator=(ContextScope&&) = delete;
  ~ContextScope();

 private:
  explicit ContextScope(SharedContext context) : context_(std::move(context)) {}
  SharedContext context_;
};

// Something of the driver's that must be given back: a value and the call that takes it. Move-only. A failing release
// is logged: there is nobody to tell.
template <typename T>
class Owned {
 public:
  using Release = absl::Status (*)(const CudaDriver&, const T&);
  Owned(SharedContext context, T value, Release release)
      : context_(std::move(context)), value_(std::move(value)), release_(release) {}
  Owned(Owned&&) noexcept = default;
  Owned& operator=(Owned&&) = delete;
  ~Owned();

  const T& get() const { return value_; }
  const SharedContext& context() const { return context_; }
  const CudaDriver& driver() const { return context_->driver(); }

 private:
  SharedContext context_;  // null: moved from
  T value_;
  Release release_;
};

// Logs a status that nobody can be given.
void LogFailure(const absl::Status& status) noexcept;

template <typename T>
Owned<T>::~Owned() {
  if (context_ == nullptr) return;
  // Releasing is tried even where the context can't be made current: most releases don't need one.
  absl::StatusOr<ContextScope> scope = ContextScope::Enter(context_);
  LogFailure(scope.status());
  LogFailure(release_(context_->driver(), value_));
}

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_CUDA_CUDA_CONTEXT_H_

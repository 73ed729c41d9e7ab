#include "allocator/device/device.h"
#include "allocator/device/device_checks.h"
#include "allocator/device/emulated_device.h"
#if DAK_WITH_CUDA_DEVICE
#include "allocator/device/cuda/cuda_device.h"
#endif

namespace dak {
namespace {

absl::StatusOr<std::unique_ptr<Device>> OpenCuda(const DeviceOptions& options) {
#if DAK_WITH_CUDA_DEVICE
  return OpenCudaDevice(options);
#else
  (void)options;
  return WithReason(absl::NotFoundError("built without CUDA: this program has only the emulated device"),
                    "BUILT_WITHOUT_CUDA");
#endif
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const DeviceOptions& options) {
  if (options.kind != DeviceOptions::Kind::kEmulated) {
    absl::StatusOr<std::unique_ptr<Device>> cuda = OpenCuda(options);
    // A GPU that is there but fails must not turn into an emulated one behind the operator's back.
    if (options.kind == DeviceOptions::Kind::kCuda || !absl::IsNotFound(cuda.status())) return cuda;
  }
  return std::make_unique<EmulatedDevice>(options.emulated);
}

}  // namespace dak

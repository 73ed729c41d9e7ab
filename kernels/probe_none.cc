#include "kernels/probe.h"

namespace dak::kernels {

absl::StatusOr<std::unique_ptr<Probe>> CreateCudaProbe(int /*device_ordinal*/) {
  return absl::NotFoundError("built without CUDA");
}

}  // namespace dak::kernels

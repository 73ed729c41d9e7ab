#include "kernels/probe.h"

namespace dak::kernels {

absl::StatusOr<std::unique_ptr<Probe>> CreateCudaProbe(int /*device_ordinal*/, int /*numa_node*/) {
  return absl::NotFoundError("built without CUDA");
}

}  // namespace dak::kernels

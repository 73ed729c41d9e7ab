#include "kernels/attention.h"

namespace dak::kernels {

absl::StatusOr<std::unique_ptr<AttentionRunner>> CreateCudaAttentionRunner(int /*device_ordinal*/,
                                                                           const AttentionLimits& /*limits*/) {
  return absl::NotFoundError("built without CUDA");
}

}  // namespace dak::kernels

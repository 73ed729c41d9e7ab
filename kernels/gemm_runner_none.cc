#include "kernels/gemm.h"

namespace dak::kernels {

absl::StatusOr<std::unique_ptr<GemmRunner>> CreateCudaGemmRunner(int /*device_ordinal*/,
                                                                 const GemmRunnerOptions& /*options*/) {
  return absl::NotFoundError("built without CUDA");
}

}  // namespace dak::kernels

// The runner for devices that the decode kernel isn't for. Internal to dak_kernels.
#ifndef DAK_KERNELS_GEMM_PLAIN_RUNNER_H_
#define DAK_KERNELS_GEMM_PLAIN_RUNNER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/gemm.h"

namespace dak::kernels {

// FAILED_PRECONDITION below architecture 8.0.
absl::StatusOr<std::unique_ptr<GemmRunner>> CreatePlainGemmRunner(int device_ordinal);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_GEMM_PLAIN_RUNNER_H_

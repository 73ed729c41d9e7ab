// Checks of GEMM operands that the CUDA runner and the CPU reference share. Internal to dak_kernels.
#ifndef DAK_KERNELS_GEMM_OPERANDS_H_
#define DAK_KERNELS_GEMM_OPERANDS_H_

#include "absl/status/status.h"
#include "kernels/gemm.h"

namespace dak::kernels {

// INVALID_ARGUMENT names the operand that is missing or not aligned. Maps are required with `need_maps`.
absl::Status CheckOperands(const GemmShape& shape, const GemmOperands& operands, bool need_maps);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_GEMM_OPERANDS_H_

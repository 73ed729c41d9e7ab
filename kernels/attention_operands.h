// Checks of attention's operands that the CUDA runner and the CPU reference share. Internal to dak_kernels.
#ifndef DAK_KERNELS_ATTENTION_OPERANDS_H_
#define DAK_KERNELS_ATTENTION_OPERANDS_H_

#include "absl/status/status.h"
#include "kernels/attention.h"

namespace dak::kernels {

// INVALID_ARGUMENT names the operand that is missing or not aligned.
absl::Status CheckOperands(const AttentionShape& shape, const AttentionOperands& operands);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_ATTENTION_OPERANDS_H_

// The operations that a session runs, as the C ABI's functions hand them over. Values without behaviour.
#ifndef DAK_CLIENT_SRC_CALLS_H_
#define DAK_CLIENT_SRC_CALLS_H_

#include <cstdint>

#include "client/src/tensor.h"
#include "kernels/attention.h"
#include "kernels/gemm.h"

namespace dak::client {

struct GemmCall {
  const Tensor* weights = nullptr;
  uint64_t x = 0;
  uint64_t y = 0;
  uint32_t batch = 0;
  void* stream = nullptr;
  kernels::GemmEpilogue epilogue{};
};

// What the pages' tensor says (pools, element) is filled in by the session.
struct AttentionCall {
  const Tensor* kv = nullptr;  // a row a page
  kernels::AttentionShape shape;
  kernels::AttentionOperands operands;
  void* stream = nullptr;
};

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_CALLS_H_

// The operations of one decode pass of a model: what the planner splits.
//
// A pass makes one token for each sequence of the batch. Every matrix is one operation; so is each layer's KV cache.
//   * A matrix is read once: bytes = rows * columns * element, flops = 2 * batch * rows * columns.
//   * Attention reads the whole cache of `context_tokens` (or of the sliding window) of each sequence:
//     flops = 4 * batch * heads * head_dim * tokens.
//   * The embedding's matrix is stored whole, but only the batch's rows are read. A tied one is lm_head's and read
//   whole.
//   * Experts are all stored; read are those that some token chose: experts * (1 - (1 - k / experts)^batch) on average
//     with k chosen per token, all equally often and independently. Real routing is less even: fewer are read.
//   * Norms, biases, learned positions and routers are small and stay in HBM: `fixed_bytes`.
// Matrices have their batch, experts the share of it that each has to do with; rates by batch are for those.
// Activations aren't in it; the caller reserves HBM for them.
//
// Thread safety: pure functions. Errors: INVALID_ARGUMENT names the field ("context_tokens").
#ifndef DAK_DAEMON_PLANNER_DECODE_PASS_H_
#define DAK_DAEMON_PLANNER_DECODE_PASS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/planner/model_config.h"
#include "daemon/planner/planner.h"

namespace dak::planner {

struct DecodeShape {
  uint64_t batch = 1;                 // sequences; 1 to 65536
  uint64_t context_tokens = 0;        // of each sequence; 1 to the model's max_positions
  uint64_t weight_element_bytes = 2;  // 1 to 8
  uint64_t kv_element_bytes = 2;      // 1 to 8
};

enum class OperationKind { kEmbedding, kQkv, kKvCache, kOutput, kGateUp, kDown, kFc1, kFc2, kLmHead };
const char* KindName(OperationKind kind);  // "embedding", "qkv", "kv", "o", ...

inline constexpr uint64_t kNoLayer = ~uint64_t{0};

struct ModelOperation {
  OperationKind kind = OperationKind::kQkv;
  uint64_t layer = kNoLayer;
  Operation operation;  // named "layers.3.qkv", "lm_head"
  RowSplit split;       // rows of a matrix are its outputs; of a KV cache, tokens of all sequences
};

struct DecodePass {
  std::vector<ModelOperation> operations;  // in order of execution
  uint64_t weight_bytes = 0;               // all of the model, fixed ones included
  uint64_t kv_bytes = 0;
  uint64_t fixed_bytes = 0;
  uint64_t layer_weight_bytes = 0;  // the matrices of one layer
};

absl::StatusOr<DecodePass> DescribeDecode(const ModelConfig& config, const DecodeShape& shape);

}  // namespace dak::planner

#endif  // DAK_DAEMON_PLANNER_DECODE_PASS_H_

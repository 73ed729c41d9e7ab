#include "daemon/planner/decode_pass.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak::planner {
namespace {

constexpr uint64_t kMaxBatch = 65536;

absl::Status CheckRange(const char* field, uint64_t value, uint64_t high) {
  if (value >= 1 && value <= high) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(value, " is out of range"), absl::StrCat("1 to ", high));
}

absl::Status CheckBytes(const std::string& field, double bytes, uint64_t high) {
  if (bytes <= static_cast<double>(high)) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(bytes, " bytes in all"), absl::StrCat("at most ", high));
}

class PassBuilder {
 public:
  PassBuilder(const ModelConfig& config, const DecodeShape& shape) : config_(config), shape_(shape) {}

  DecodePass Build() {
    if (!config_.tied_embeddings) AddEmbedding();
    for (uint64_t layer = 0; layer < config_.layers; ++layer) AddLayer(layer);
    AddMatrix(OperationKind::kLmHead, kNoLayer, config_.vocab_size, config_.hidden_size);
    pass_.fixed_bytes = (config_.layers * config_.layer_extras + config_.model_extras) * shape_.weight_element_bytes;
    pass_.weight_bytes += pass_.fixed_bytes;
    return std::move(pass_);
  }

 private:
  ModelOperation& Add(OperationKind kind, uint64_t layer, uint64_t rows, uint64_t row_bytes) {
    ModelOperation& added = pass_.operations.emplace_back();
    added.kind = kind;
    added.layer = layer;
    added.operation.name =
        layer == kNoLayer ? std::string(KindName(kind)) : absl::StrCat("layers.", layer, ".", KindName(kind));
    added.operation.bytes = rows * row_bytes;
    added.split.rows = rows;
    added.split.row_bytes = row_bytes;
    return added;
  }

  ModelOperation& AddMatrix(OperationKind kind, uint64_t layer, uint64_t rows, uint64_t columns) {
    ModelOperation& added = Add(kind, layer, rows, columns * shape_.weight_element_bytes);
    added.operation.flops =
        2 * static_cast<double>(shape_.batch) * static_cast<double>(rows) * static_cast<double>(columns);
    added.operation.batch = shape_.batch;
    pass_.weight_bytes += added.operation.bytes;
    if (layer == 0) pass_.layer_weight_bytes += added.operation.bytes;
    return added;
  }

  void AddEmbedding() {
    ModelOperation& added = AddMatrix(OperationKind::kEmbedding, kNoLayer, config_.vocab_size, config_.hidden_size);
    added.operation.stored_bytes = added.operation.bytes;
    added.operation.bytes = std::min(shape_.batch, config_.vocab_size) * added.split.row_bytes;
    added.operation.flops = 0;
    added.operation.batch = 0;
  }

  void AddKvCache(uint64_t layer) {
    uint64_t tokens = shape_.context_tokens;
    if (config_.sliding_window > 0) tokens = std::min(tokens, config_.sliding_window);
    const uint64_t row_bytes = 2 * config_.kv_heads * config_.head_dim * shape_.kv_element_bytes;
    ModelOperation& added = Add(OperationKind::kKvCache, layer, shape_.batch * tokens, row_bytes);
    added.operation.flops =
        4 * static_cast<double>(shape_.batch * tokens) * static_cast<double>(config_.heads * config_.head_dim);
    pass_.kv_bytes += added.operation.bytes;
  }

  // `rows` of each expert; a dense MLP is one expert that every token chooses.
  void AddMlpMatrix(OperationKind kind, uint64_t layer, uint64_t rows, uint64_t columns) {
    const uint64_t experts = std::max<uint64_t>(config_.experts, 1);
    ModelOperation& added = AddMatrix(kind, layer, experts * rows, columns);
    if (config_.experts == 0) return;
    const double stored = static_cast<double>(added.operation.bytes);
    const double chosen = static_cast<double>(config_.experts_per_token) / static_cast<double>(experts);
    added.operation.stored_bytes = added.operation.bytes;
    added.operation.bytes =
        static_cast<uint64_t>(std::llround(stored * (1 - std::pow(1 - chosen, static_cast<double>(shape_.batch)))));
    added.operation.flops *= chosen;
    added.operation.batch = (shape_.batch * config_.experts_per_token + experts - 1) / experts;  // of each expert
  }

  void AddLayer(uint64_t layer) {
    const uint64_t query = config_.heads * config_.head_dim;
    const uint64_t kv = config_.kv_heads * config_.head_dim;
    AddMatrix(OperationKind::kQkv, layer, query + 2 * kv, config_.hidden_size);
    AddKvCache(layer);
    AddMatrix(OperationKind::kOutput, layer, config_.hidden_size, query);
    if (config_.gated_mlp) {
      AddMlpMatrix(OperationKind::kGateUp, layer, 2 * config_.intermediate_size, config_.hidden_size);
      AddMlpMatrix(OperationKind::kDown, layer, config_.hidden_size, config_.intermediate_size);
    } else {
      AddMlpMatrix(OperationKind::kFc1, layer, config_.intermediate_size, config_.hidden_size);
      AddMlpMatrix(OperationKind::kFc2, layer, config_.hidden_size, config_.intermediate_size);
    }
  }

  const ModelConfig& config_;
  const DecodeShape& shape_;
  DecodePass pass_;
};

}  // namespace

const char* KindName(OperationKind kind) {
  switch (kind) {
    case OperationKind::kEmbedding:
      return "embedding";
    case OperationKind::kQkv:
      return "qkv";
    case OperationKind::kKvCache:
      return "kv";
    case OperationKind::kOutput:
      return "o";
    case OperationKind::kGateUp:
      return "gate_up";
    case OperationKind::kDown:
      return "down";
    case OperationKind::kFc1:
      return "fc1";
    case OperationKind::kFc2:
      return "fc2";
    case OperationKind::kLmHead:
      return "lm_head";
  }
  return "unknown";
}

absl::StatusOr<DecodePass> DescribeDecode(const ModelConfig& config, const DecodeShape& shape) {
  DAK_RETURN_IF_ERROR(CheckRange("batch", shape.batch, kMaxBatch));
  DAK_RETURN_IF_ERROR(CheckRange("context_tokens", shape.context_tokens, config.max_positions));
  DAK_RETURN_IF_ERROR(CheckRange("weight_element_bytes", shape.weight_element_bytes, 8));
  DAK_RETURN_IF_ERROR(CheckRange("kv_element_bytes", shape.kv_element_bytes, 8));
  // Before it is multiplied out: the limits of batch, positions and heads together are more than 64 bits hold.
  const double cache_bytes = 2 * static_cast<double>(shape.batch * shape.context_tokens) *
                             static_cast<double>(config.kv_heads * config.head_dim * shape.kv_element_bytes);
  DAK_RETURN_IF_ERROR(CheckBytes("batch and context_tokens", cache_bytes, kMaxOperationBytes));
  DecodePass pass = PassBuilder(config, shape).Build();
  double total_bytes = 0;
  for (const ModelOperation& operation : pass.operations) {
    const double stored = static_cast<double>(operation.split.rows * operation.split.row_bytes);
    DAK_RETURN_IF_ERROR(CheckBytes(operation.operation.name, stored, kMaxOperationBytes));
    total_bytes += stored;
  }
  DAK_RETURN_IF_ERROR(CheckBytes("num_hidden_layers", total_bytes, kMaxTotalBytes));
  return pass;
}

}  // namespace dak::planner

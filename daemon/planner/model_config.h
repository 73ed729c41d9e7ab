// A model's shape from its Hugging Face config.json.
//
// Known model_type: llama (Llama 2 and 3), mistral, qwen2, qwen3, opt, mixtral. Fields that the shape doesn't depend on
// are ignored; those that it does are checked, so that a plan isn't made for a shape that isn't the model's.
//
// Thread safety: pure functions. Errors: INVALID_ARGUMENT names the field and the limit; NOT_FOUND for the file.
#ifndef DAK_DAEMON_PLANNER_MODEL_CONFIG_H_
#define DAK_DAEMON_PLANNER_MODEL_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace dak::planner {

struct ModelConfig {
  std::string model_type;
  std::string dtype;  // as the config names it: "bfloat16"; empty if it doesn't
  uint64_t hidden_size = 0;
  uint64_t layers = 0;
  uint64_t heads = 0;
  uint64_t kv_heads = 0;
  uint64_t head_dim = 0;
  uint64_t intermediate_size = 0;
  uint64_t vocab_size = 0;
  uint64_t max_positions = 0;
  uint64_t sliding_window = 0;  // tokens that attention looks back; 0: all
  uint64_t experts = 0;         // 0: a dense MLP
  uint64_t experts_per_token = 0;
  bool gated_mlp = true;         // gate and up projections; false: fc1, fc2
  bool tied_embeddings = false;  // lm_head is the embedding's matrix
  uint64_t layer_extras = 0;     // elements of a layer that are no matrix: norms, biases, the router
  uint64_t model_extras = 0;     // the same outside of layers, and learned positions
};

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json);
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path);

// All elements of the model's weights.
uint64_t ParameterCount(const ModelConfig& config);

}  // namespace dak::planner

#endif  // DAK_DAEMON_PLANNER_MODEL_CONFIG_H_

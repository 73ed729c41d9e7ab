#include "daemon/planner/model_config.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/planner/json_fields.h"

namespace dak::planner {
namespace {

using internal::JsonFields;

// Far above any model, far below where products of three overflow.
constexpr uint64_t kMaxDimension = 1 << 20;
constexpr uint64_t kMaxVocabulary = 1 << 22;
constexpr uint64_t kMaxPositions = 1 << 24;

absl::Status ReadHeads(const JsonFields& fields, ModelConfig& config) {
  DAK_ASSIGN_OR_RETURN(config.heads, fields.Count("num_attention_heads", 1, kMaxDimension));
  DAK_ASSIGN_OR_RETURN(config.kv_heads, fields.CountOr("num_key_value_heads", 1, config.heads, config.heads));
  if (config.heads % config.kv_heads != 0) {
    return InvalidField("num_key_value_heads", absl::StrCat(config.kv_heads),
                        absl::StrCat("a divisor of num_attention_heads, here ", config.heads));
  }
  if (!fields.Has("head_dim") && config.hidden_size % config.heads != 0) {
    return InvalidField("hidden_size", absl::StrCat(config.hidden_size),
                        absl::StrCat("a multiple of num_attention_heads, here ", config.heads));
  }
  DAK_ASSIGN_OR_RETURN(config.head_dim,
                       fields.CountOr("head_dim", 1, kMaxDimension, config.hidden_size / config.heads));
  return absl::OkStatus();
}

absl::Status ReadCommon(const JsonFields& fields, ModelConfig& config) {
  DAK_ASSIGN_OR_RETURN(config.hidden_size, fields.Count("hidden_size", 1, kMaxDimension));
  DAK_ASSIGN_OR_RETURN(config.layers, fields.Count("num_hidden_layers", 1, 10'000));
  DAK_ASSIGN_OR_RETURN(config.vocab_size, fields.Count("vocab_size", 1, kMaxVocabulary));
  DAK_ASSIGN_OR_RETURN(config.max_positions, fields.Count("max_position_embeddings", 1, kMaxPositions));
  DAK_RETURN_IF_ERROR(ReadHeads(fields, config));
  // Transformers 5 writes "dtype", earlier ones "torch_dtype".
  const char* dtype = fields.Has("dtype") ? "dtype" : "torch_dtype";
  if (fields.Has(dtype)) {
    DAK_ASSIGN_OR_RETURN(config.dtype, fields.Text(dtype));
  }
  if (fields.Has("quantization_config")) {
    return InvalidField("quantization_config", "quantised weights aren't described", "absent");
  }
  return absl::OkStatus();
}

uint64_t QueryWidth(const ModelConfig& config) { return config.heads * config.head_dim; }
uint64_t KvWidth(const ModelConfig& config) { return config.kv_heads * config.head_dim; }

// Llama and those that follow it: RMS norms, a gated MLP, biases only where the config or the family says so.
absl::Status ReadLlamaLike(const JsonFields& fields, ModelConfig& config) {
  DAK_ASSIGN_OR_RETURN(config.intermediate_size, fields.Count("intermediate_size", 1, kMaxDimension));
  DAK_ASSIGN_OR_RETURN(config.tied_embeddings, fields.BoolOr("tie_word_embeddings", false));
  config.layer_extras = 2 * config.hidden_size;
  config.model_extras = config.hidden_size;
  if (config.model_type == "qwen2") {
    config.layer_extras += QueryWidth(config) + 2 * KvWidth(config);
  } else if (config.model_type == "llama" || config.model_type == "qwen3") {
    DAK_ASSIGN_OR_RETURN(const bool bias, fields.BoolOr("attention_bias", false));
    if (bias) config.layer_extras += QueryWidth(config) + 2 * KvWidth(config) + config.hidden_size;
  }
  if (config.model_type == "llama") {
    DAK_ASSIGN_OR_RETURN(const bool bias, fields.BoolOr("mlp_bias", false));
    if (bias) config.layer_extras += 2 * config.intermediate_size + config.hidden_size;
  }
  if (config.model_type == "qwen3") config.layer_extras += 2 * config.head_dim;
  // Qwen's configs name a window and switch it off beside it.
  DAK_ASSIGN_OR_RETURN(const bool windowed, fields.BoolOr("use_sliding_window", config.model_type == "mistral" ||
                                                                                    config.model_type == "mixtral"));
  if (windowed) {
    DAK_ASSIGN_OR_RETURN(config.sliding_window, fields.CountOr("sliding_window", 1, kMaxPositions, 0));
  }
  if (config.model_type == "mixtral") {
    DAK_ASSIGN_OR_RETURN(config.experts, fields.Count("num_local_experts", 1, 4096));
    DAK_ASSIGN_OR_RETURN(config.experts_per_token, fields.Count("num_experts_per_tok", 1, config.experts));
    config.layer_extras += config.experts * config.hidden_size;
  }
  return absl::OkStatus();
}

absl::Status ReadOpt(const JsonFields& fields, ModelConfig& config) {
  DAK_ASSIGN_OR_RETURN(config.intermediate_size, fields.Count("ffn_dim", 1, kMaxDimension));
  DAK_ASSIGN_OR_RETURN(config.tied_embeddings, fields.BoolOr("tie_word_embeddings", true));
  DAK_ASSIGN_OR_RETURN(const uint64_t embedding,
                       fields.CountOr("word_embed_proj_dim", 1, kMaxDimension, config.hidden_size));
  if (embedding != config.hidden_size) {
    return InvalidField("word_embed_proj_dim", absl::StrCat(embedding),
                        absl::StrCat("equal to hidden_size, here ", config.hidden_size));
  }
  DAK_ASSIGN_OR_RETURN(const bool norm_before, fields.BoolOr("do_layer_norm_before", true));
  DAK_ASSIGN_OR_RETURN(const bool no_final_norm, fields.BoolOr("_remove_final_layer_norm", false));
  DAK_ASSIGN_OR_RETURN(const bool bias, fields.BoolOr("enable_bias", true));
  DAK_ASSIGN_OR_RETURN(const bool affine, fields.BoolOr("layer_norm_elementwise_affine", true));
  config.gated_mlp = false;
  const uint64_t norm = affine ? 2 * config.hidden_size : 0;
  config.layer_extras = 2 * norm + (bias ? 5 * config.hidden_size + config.intermediate_size : 0);
  // OPT's table of positions starts at 2.
  config.model_extras = (config.max_positions + 2) * config.hidden_size + (norm_before && !no_final_norm ? norm : 0);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json) {
  DAK_ASSIGN_OR_RETURN(const nlohmann::json object, internal::ParseJsonObject(json));
  const JsonFields fields(object);
  ModelConfig config;
  DAK_ASSIGN_OR_RETURN(config.model_type, fields.Text("model_type"));
  using Reader = absl::Status (*)(const JsonFields&, ModelConfig&);
  static const auto& readers = *new std::map<std::string, Reader>{
      {"llama", ReadLlamaLike}, {"mistral", ReadLlamaLike}, {"mixtral", ReadLlamaLike},
      {"opt", ReadOpt},         {"qwen2", ReadLlamaLike},   {"qwen3", ReadLlamaLike}};
  const auto reader = readers.find(config.model_type);
  if (reader == readers.end()) {
    std::string known;
    for (const auto& [name, unused] : readers) absl::StrAppend(&known, known.empty() ? "" : ", ", name);
    return InvalidField("model_type", absl::StrCat("'", config.model_type, "' isn't known"),
                        absl::StrCat("one of ", known));
  }
  DAK_RETURN_IF_ERROR(ReadCommon(fields, config));
  DAK_RETURN_IF_ERROR(reader->second(fields, config));
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path) {
  DAK_ASSIGN_OR_RETURN(const std::string text, internal::ReadSmallFile(path));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
  if (config.ok()) return config;
  return internal::WithPath(config.status(), path);
}

uint64_t ParameterCount(const ModelConfig& config) {
  const uint64_t attention = config.hidden_size * (2 * QueryWidth(config) + 2 * KvWidth(config));
  const uint64_t matrices = config.gated_mlp ? 3 : 2;
  const uint64_t experts = config.experts == 0 ? 1 : config.experts;
  const uint64_t mlp = experts * matrices * config.hidden_size * config.intermediate_size;
  const uint64_t embeddings = (config.tied_embeddings ? 1 : 2) * config.vocab_size * config.hidden_size;
  return config.layers * (attention + mlp + config.layer_extras) + embeddings + config.model_extras;
}

}  // namespace dak::planner

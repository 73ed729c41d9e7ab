// Shapes from config.json, against the public parameter counts of the models.
#include "daemon/planner/model_config.h"

#include "allocator/base/error_detail.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/planner/test_data.h"

namespace dak::planner {
namespace {

using ::testing::HasSubstr;

struct KnownModel {
  const char* file;
  uint64_t parameters;
};

class KnownModelTest : public ::testing::TestWithParam<KnownModel> {};

TEST_P(KnownModelTest, HasItsPublishedNumberOfParameters) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(DataPath(GetParam().file));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(ParameterCount(*config), GetParam().parameters);
}

INSTANTIATE_TEST_SUITE_P(
    Models, KnownModelTest,
    ::testing::Values(KnownModel{"llama-2-7b.json", 6'738'415'616}, KnownModel{"llama-3-8b.json", 8'030'261'248},
                      KnownModel{"llama-3-70b.json", 70'553'706'496}, KnownModel{"mistral-7b.json", 7'241'732'096},
                      KnownModel{"mixtral-8x7b.json", 46'702'792'704}, KnownModel{"qwen2-7b.json", 7'615'616'512},
                      KnownModel{"qwen2-0.5b.json", 494'032'768}, KnownModel{"qwen3-8b.json", 8'190'735'360},
                      KnownModel{"opt-6.7b.json", 6'658'473'984}));

nlohmann::json Llama() { return nlohmann::json::parse(ReadData("llama-3-8b.json")); }

TEST(ModelConfigTest, ReadsWhatTheShapeDependsOn) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(DataPath("qwen3-8b.json"));
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->model_type, "qwen3");
  EXPECT_EQ(config->dtype, "bfloat16");
  EXPECT_EQ(config->layers, 36u);
  EXPECT_EQ(config->heads, 32u);
  EXPECT_EQ(config->kv_heads, 8u);
  EXPECT_EQ(config->head_dim, 128u);
  EXPECT_EQ(config->intermediate_size, 12288u);
  EXPECT_EQ(config->sliding_window, 0u);
  EXPECT_TRUE(config->gated_mlp);
}

TEST(ModelConfigTest, HeadDimensionNeedNotDivideTheHiddenSize) {
  nlohmann::json json = Llama();
  json["head_dim"] = 256;
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(json.dump());
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(config->head_dim, 256u);
}

TEST(ModelConfigTest, WindowCountsOnlyWhereItIsSwitchedOn) {
  EXPECT_EQ(LoadModelConfig(DataPath("mistral-7b.json"))->sliding_window, 4096u);
  EXPECT_EQ(LoadModelConfig(DataPath("mixtral-8x7b.json"))->sliding_window, 0u);
  EXPECT_EQ(LoadModelConfig(DataPath("qwen2-7b.json"))->sliding_window, 0u);
  nlohmann::json json = nlohmann::json::parse(ReadData("qwen2-7b.json"));
  json["use_sliding_window"] = true;
  EXPECT_EQ(ParseModelConfig(json.dump())->sliding_window, 131072u);
}

TEST(ModelConfigTest, BiasesCountWhereTheConfigHasThem) {
  nlohmann::json json = Llama();
  const uint64_t without = ParameterCount(*ParseModelConfig(json.dump()));
  json["attention_bias"] = true;
  json["mlp_bias"] = true;
  EXPECT_EQ(ParameterCount(*ParseModelConfig(json.dump())), without + 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096));
}

TEST(ModelConfigTest, NewerNameOfTheDtype) {
  nlohmann::json json = Llama();
  json.erase("torch_dtype");
  EXPECT_EQ(ParseModelConfig(json.dump())->dtype, "");
  json["dtype"] = "float32";
  EXPECT_EQ(ParseModelConfig(json.dump())->dtype, "float32");
}

struct BadConfig {
  const char* file;
  const char* field;
  nlohmann::json value;  // discarded: the field is removed
  const char* limit;
};

class BadConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, NamesTheFieldAndTheLimit) {
  const BadConfig& bad = GetParam();
  nlohmann::json json = nlohmann::json::parse(ReadData(bad.file));
  ASSERT_TRUE(ParseModelConfig(json.dump()).ok());
  if (bad.value.is_discarded()) {
    json.erase(bad.field);
  } else {
    json[bad.field] = bad.value;
  }
  const absl::Status status = ParseModelConfig(json.dump()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailOf(status).field, bad.field);
  EXPECT_THAT(DetailOf(status).limit, HasSubstr(bad.limit));
}

const nlohmann::json kRemoved = nlohmann::json(nlohmann::json::value_t::discarded);

INSTANTIATE_TEST_SUITE_P(
    Fields, BadConfigTest,
    ::testing::Values(BadConfig{"llama-3-8b.json", "model_type", kRemoved, "string"},
                      BadConfig{"llama-3-8b.json", "model_type", "gpt_neox", "llama, mistral"},
                      BadConfig{"llama-3-8b.json", "model_type", 5, "string"},
                      BadConfig{"llama-3-8b.json", "hidden_size", kRemoved, "whole number"},
                      BadConfig{"llama-3-8b.json", "hidden_size", 0, "from 1"},
                      BadConfig{"llama-3-8b.json", "hidden_size", -1, "whole number"},
                      BadConfig{"llama-3-8b.json", "hidden_size", 4096.5, "whole number"},
                      BadConfig{"llama-3-8b.json", "hidden_size", "4096", "whole number"},
                      BadConfig{"llama-3-8b.json", "hidden_size", 4097, "multiple of num_attention_heads, here 32"},
                      BadConfig{"llama-3-8b.json", "num_hidden_layers", 100000, "to 10000"},
                      BadConfig{"llama-3-8b.json", "num_attention_heads", kRemoved, "whole number"},
                      BadConfig{"llama-3-8b.json", "num_key_value_heads", 5, "divisor of num_attention_heads, here 32"},
                      BadConfig{"llama-3-8b.json", "num_key_value_heads", 64, "to 32"},
                      BadConfig{"llama-3-8b.json", "intermediate_size", kRemoved, "whole number"},
                      BadConfig{"llama-3-8b.json", "vocab_size", 1ull << 40, "to 4194304"},
                      BadConfig{"llama-3-8b.json", "max_position_embeddings", kRemoved, "whole number"},
                      BadConfig{"llama-3-8b.json", "tie_word_embeddings", "no", "true or false"},
                      BadConfig{"llama-3-8b.json", "torch_dtype", 16, "string"},
                      BadConfig{"llama-3-8b.json", "quantization_config", {{"bits", 4}}, "absent"},
                      BadConfig{"mistral-7b.json", "sliding_window", -5, "whole number"},
                      BadConfig{"mixtral-8x7b.json", "num_local_experts", kRemoved, "whole number"},
                      BadConfig{"mixtral-8x7b.json", "num_experts_per_tok", 9, "to 8"},
                      BadConfig{"opt-6.7b.json", "ffn_dim", kRemoved, "whole number"},
                      BadConfig{"opt-6.7b.json", "word_embed_proj_dim", 512, "equal to hidden_size"}));

TEST(ModelConfigTest, RefusesWhatIsNoJsonObject) {
  for (const char* text : {"", "{", "[]", "3", "{\"hidden_size\": 1e999}"}) {
    EXPECT_EQ(ParseModelConfig(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(ModelConfigTest, FileErrorsNameTheFile) {
  EXPECT_EQ(LoadModelConfig("nowhere/config.json").status().code(), absl::StatusCode::kNotFound);
  const absl::Status status = LoadModelConfig(DataPath("not-a-model.json")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("not-a-model.json: model_type"));
  EXPECT_EQ(DetailOf(status).field, "model_type");
}

TEST(ModelConfigTest, DirectoryIsNoConfig) { EXPECT_FALSE(LoadModelConfig(DataPath(".")).ok()); }

}  // namespace
}  // namespace dak::planner

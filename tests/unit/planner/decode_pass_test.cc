// The operations of a decode pass: sizes, flops, and that they add up to the model.
#include "daemon/planner/decode_pass.h"

#include <cmath>
#include <set>

#include "allocator/base/error_detail.h"
#include "gtest/gtest.h"
#include "tests/unit/planner/test_data.h"

namespace dak::planner {
namespace {

ModelConfig Load(const std::string& file) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(DataPath(file));
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

DecodePass MustDescribe(const std::string& file, const DecodeShape& shape) {
  const absl::StatusOr<DecodePass> pass = DescribeDecode(Load(file), shape);
  EXPECT_TRUE(pass.ok()) << pass.status();
  return pass.ok() ? *pass : DecodePass{};
}

const ModelOperation& Find(const DecodePass& pass, const std::string& name) {
  for (const ModelOperation& operation : pass.operations) {
    if (operation.operation.name == name) return operation;
  }
  ADD_FAILURE() << "no operation " << name;
  return pass.operations.front();
}

uint64_t Stored(const Operation& operation) {
  return operation.stored_bytes == 0 ? operation.bytes : operation.stored_bytes;
}

class DecodePassOfModelTest : public ::testing::TestWithParam<const char*> {};

TEST_P(DecodePassOfModelTest, AddsUpToTheModelsWeights) {
  const ModelConfig config = Load(GetParam());
  const DecodePass pass = MustDescribe(GetParam(), {.batch = 4, .context_tokens = 100});
  uint64_t weights = pass.fixed_bytes;
  uint64_t kv = 0;
  std::set<std::string> names;
  for (const ModelOperation& operation : pass.operations) {
    EXPECT_TRUE(names.insert(operation.operation.name).second) << operation.operation.name;
    EXPECT_EQ(operation.split.rows * operation.split.row_bytes, Stored(operation.operation));
    (operation.kind == OperationKind::kKvCache ? kv : weights) += Stored(operation.operation);
  }
  EXPECT_EQ(weights, 2 * ParameterCount(config));
  EXPECT_EQ(pass.weight_bytes, weights);
  EXPECT_EQ(pass.kv_bytes, kv);
  EXPECT_EQ(kv, 4 * 100 * config.layers * 2 * config.kv_heads * config.head_dim * 2);
  EXPECT_EQ(pass.operations.size(), 5 * config.layers + (config.tied_embeddings ? 1 : 2));
}

INSTANTIATE_TEST_SUITE_P(Models, DecodePassOfModelTest,
                         ::testing::Values("llama-2-7b.json", "llama-3-8b.json", "llama-3-70b.json", "mistral-7b.json",
                                           "mixtral-8x7b.json", "qwen2-7b.json", "qwen2-0.5b.json", "qwen3-8b.json",
                                           "opt-6.7b.json", "opt-30b.json"));

TEST(DecodePassTest, MatrixIsReadOnceAndMultipliedForEachSequence) {
  const DecodePass pass = MustDescribe("llama-3-8b.json", {.batch = 8, .context_tokens = 4096});
  const ModelOperation& qkv = Find(pass, "layers.0.qkv");
  EXPECT_EQ(qkv.split.rows, 4096u + 2 * 1024);
  EXPECT_EQ(qkv.split.row_bytes, 2u * 4096);
  EXPECT_EQ(qkv.operation.bytes, 6144u * 4096 * 2);
  EXPECT_EQ(qkv.operation.flops, 2.0 * 8 * 6144 * 4096);
  EXPECT_EQ(qkv.operation.batch, 8u);
  EXPECT_EQ(Find(pass, "embedding").operation.batch, 0u);
  EXPECT_EQ(Find(pass, "layers.0.kv").operation.batch, 0u);
  EXPECT_EQ(Find(pass, "layers.31.down").split.row_bytes, 2u * 14336);
  EXPECT_EQ(pass.layer_weight_bytes, 2u * 4096 * (6144 + 4096 + 3 * 14336));
}

TEST(DecodePassTest, AttentionReadsTheWholeCache) {
  const ModelOperation kv = Find(MustDescribe("llama-3-8b.json", {.batch = 8, .context_tokens = 4096}), "layers.5.kv");
  EXPECT_EQ(kv.operation.bytes, 8u * 4096 * 2 * 8 * 128 * 2);
  EXPECT_EQ(kv.operation.flops, 4.0 * 8 * 4096 * 32 * 128);
}

TEST(DecodePassTest, SlidingWindowBoundsTheCache) {
  const DecodePass within = MustDescribe("mistral-7b.json", {.batch = 1, .context_tokens = 4096});
  EXPECT_EQ(MustDescribe("mistral-7b.json", {.batch = 1, .context_tokens = 32768}).kv_bytes, within.kv_bytes);
}

TEST(DecodePassTest, ElementSizesCount) {
  const DecodePass pass = MustDescribe(
      "llama-3-8b.json", {.batch = 1, .context_tokens = 10, .weight_element_bytes = 1, .kv_element_bytes = 4});
  EXPECT_EQ(pass.weight_bytes, 8'030'261'248u);
  EXPECT_EQ(pass.kv_bytes, 10u * 32 * 2 * 8 * 128 * 4);
}

TEST(DecodePassTest, EmbeddingIsStoredWholeButReadByTheRow) {
  const ModelOperation embedding =
      Find(MustDescribe("llama-3-8b.json", {.batch = 8, .context_tokens = 1}), "embedding");
  EXPECT_EQ(embedding.operation.stored_bytes, 128256u * 4096 * 2);
  EXPECT_EQ(embedding.operation.bytes, 8u * 4096 * 2);
  EXPECT_EQ(embedding.operation.flops, 0);
}

TEST(DecodePassTest, ExpertsAreReadAsOftenAsTokensChooseThem) {
  const ModelOperation one =
      Find(MustDescribe("mixtral-8x7b.json", {.batch = 1, .context_tokens = 1}), "layers.0.down");
  EXPECT_EQ(one.operation.stored_bytes, 8u * 4096 * 14336 * 2);
  EXPECT_EQ(one.operation.bytes, one.operation.stored_bytes / 4);  // 2 of 8
  EXPECT_EQ(one.operation.flops, 2.0 * 2 * 4096 * 14336);
  const ModelOperation many =
      Find(MustDescribe("mixtral-8x7b.json", {.batch = 256, .context_tokens = 1}), "layers.0.down");
  EXPECT_NEAR(static_cast<double>(many.operation.bytes), static_cast<double>(many.operation.stored_bytes), 1);
  EXPECT_EQ(many.operation.flops, 256 * 2.0 * 2 * 4096 * 14336);
  EXPECT_EQ(one.operation.batch, 1u);
  EXPECT_EQ(many.operation.batch, 64u);
}

TEST(DecodePassTest, RefusesShapesOutOfRange) {
  const ModelConfig config = Load("llama-3-8b.json");
  const auto field = [&config](const DecodeShape& shape) {
    return DetailOf(DescribeDecode(config, shape).status()).field;
  };
  EXPECT_EQ(field({.batch = 0, .context_tokens = 1}), "batch");
  EXPECT_EQ(field({.batch = 65537, .context_tokens = 1}), "batch");
  EXPECT_EQ(field({.batch = 1, .context_tokens = 0}), "context_tokens");
  EXPECT_EQ(field({.batch = 1, .context_tokens = 8193}), "context_tokens");
  EXPECT_EQ(field({.batch = 1, .context_tokens = 1, .weight_element_bytes = 0}), "weight_element_bytes");
  EXPECT_EQ(field({.batch = 1, .context_tokens = 1, .kv_element_bytes = 9}), "kv_element_bytes");
}

TEST(DecodePassTest, RefusesShapesWhoseBytesOverflow) {
  ModelConfig config = Load("llama-3-8b.json");
  config.max_positions = 1 << 24;
  config.kv_heads = config.heads = 1 << 20;
  config.head_dim = 1 << 20;
  EXPECT_EQ(DetailOf(DescribeDecode(config, {.batch = 65536, .context_tokens = 1 << 24}).status()).field,
            "batch and context_tokens");
  config = Load("mixtral-8x7b.json");
  config.experts = 4096;
  config.hidden_size = config.intermediate_size = 1 << 20;
  EXPECT_EQ(DetailOf(DescribeDecode(config, {.batch = 1, .context_tokens = 1}).status()).field, "layers.0.gate_up");
  config = Load("llama-3-8b.json");
  config.layers = 10'000;
  config.hidden_size = config.intermediate_size = 1 << 20;
  EXPECT_EQ(DetailOf(DescribeDecode(config, {.batch = 1, .context_tokens = 1}).status()).field, "num_hidden_layers");
}

}  // namespace
}  // namespace dak::planner

#include "tests/bench/dak_bench/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dak::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::optional<Options> Parse(std::vector<const char*> arguments, std::string* error) {
  arguments.insert(arguments.begin(), "dak-bench");
  return ParseOptions(static_cast<int>(arguments.size()), arguments.data(), error);
}

TEST(BenchOptionsTest, GridsAreTheCommandsUnlessGiven) {
  std::string error;
  auto options = Parse({"predict"}, &error);
  ASSERT_TRUE(options.has_value()) << error;
  EXPECT_THAT(options->batches, ElementsAre(1, 64, 256));
  EXPECT_THAT(options->ratios, ElementsAre(0, 0.1, 0.5));
  EXPECT_EQ(options->budget_s, 20);
  options = Parse({"predict", "--ratios", "0.02", "--batches", "1,16", "--budget", "55", "--json", "x.json"}, &error);
  ASSERT_TRUE(options.has_value()) << error;
  EXPECT_THAT(options->batches, ElementsAre(1, 16));
  EXPECT_THAT(options->ratios, ElementsAre(0.02));
  EXPECT_EQ(options->budget_s, 55);
  EXPECT_EQ(options->json_path, "x.json");
  options = Parse({"greedy"}, &error);
  ASSERT_TRUE(options.has_value()) << error;
  EXPECT_THAT(options->batches, ElementsAre(512));
  options = Parse({"gemm", "--f16", "--no-peers", "--tune", "--window", "1e6"}, &error);
  ASSERT_TRUE(options.has_value()) << error;
  EXPECT_TRUE(options->f16 && options->tune && !options->peers);
  EXPECT_EQ(options->window_bytes, 1e6);
  options = Parse({"pass", "--exact-rows", "--ratios=0.02,0.1", "--json=a=b.json"}, &error);
  ASSERT_TRUE(options.has_value()) << error;
  EXPECT_TRUE(options->exact_rows);
  EXPECT_THAT(options->ratios, ElementsAre(0.02, 0.1));
  EXPECT_EQ(options->json_path, "a=b.json");
  EXPECT_EQ(options->handover, kPlannedHandover);
  options = Parse({"gemm", "--handover", "2"}, &error);
  ASSERT_TRUE(options.has_value()) << error;
  EXPECT_EQ(options->handover, 2u);
  options = Parse({"prefill", "--ratios", "0,-0.8,-1"}, &error);
  ASSERT_TRUE(options.has_value()) << error;
  EXPECT_THAT(options->ratios, ElementsAre(0, -0.8, -1));
}

TEST(BenchOptionsTest, NamesWhatItRefusesAndTheLimit) {
  const struct {
    std::vector<const char*> arguments;
    const char* error;
  } cases[] = {
      {{}, "'' is no sub-command"},
      {{"dance"}, "'dance' is no sub-command"},
      {{"predict", "--loud"}, "--loud is no flag"},
      {{"pass", "--handover", "3"}, "--handover: '3' isn't allowed: 0 to 2"},
      {{"predict", "--budget"}, "--budget needs a value: 1 to 3600"},
      {{"predict", "--budget="}, "--budget: '' isn't allowed: 1 to 3600"},
      {{"predict", "--f16=1"}, "--f16 takes no value"},
      {{"predict", "--budget", "0"}, "--budget: '0' isn't allowed: 1 to 3600"},
      {{"predict", "--budget", "20s"}, "--budget: '20s' isn't allowed"},
      {{"predict", "--batches", ""}, "--batches: '' isn't allowed"},
      {{"predict", "--batches", "1,,2"}, "--batches: '1,,2' isn't allowed: up to 64 of 1 to 65536"},
      {{"predict", "--batches", "0"}, "--batches: '0' isn't allowed"},
      {{"predict", "--ratios", "1.5"}, "--ratios: '1.5' isn't allowed: up to 64 of -1 to 1"},
      {{"predict", "--ratios", "nan"}, "--ratios: 'nan' isn't allowed"},
      {{"greedy", "--ratios", "-1"}, "--ratios: below 0 isn't allowed for greedy: 0 to 1"},
      {{"greedy", "--ratios", "-0.8"}, "--ratios: below 0 isn't allowed for greedy: 0 to 1"},
      {{"prefill", "--ratios", "0,-1.1"}, "--ratios: '0,-1.1' isn't allowed: up to 64 of -1 to 1"},
      {{"prefill", "--ratios", "-0.8"}, "--ratios: below 0 isn't allowed for prefill without a 0 before it"},
      {{"prefill", "--ratios", "0.1,-1,0"}, "--ratios: below 0 isn't allowed for prefill without a 0 before it"},
      {{"link", "--window", "-5"}, "--window: '-5' isn't allowed: 0 to 2^40"},
      {{"attention", "--contexts", "4k"}, "--contexts: '4k' isn't allowed"},
      {{"attention", "--page", "16,64"}, "--page: '16,64' isn't allowed: 1 to 1024"},
      {{"gemm", "--json", ""}, "--json: '' isn't allowed: a file"},
  };
  for (const auto& c : cases) {
    std::string error;
    EXPECT_FALSE(Parse(c.arguments, &error).has_value()) << c.error;
    EXPECT_THAT(error, HasSubstr(c.error));
  }
  std::string list;
  for (int i = 0; i < 65; ++i) list += "1,";
  std::string error;
  EXPECT_FALSE(Parse({"gemm", "--batches", list.c_str()}, &error).has_value());
}

}  // namespace
}  // namespace dak::bench

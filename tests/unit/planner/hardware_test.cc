// The model's arithmetic against what was measured on an H100 with PCIe 5: the linear layers of a Llama-3-8B-shaped
// decode step, 32 layers, 14.0 GB of bf16 (the table is in docs/planner.md).
#include <cmath>

#include "daemon/planner/plan_report.h"
#include "gtest/gtest.h"
#include "tests/unit/planner/test_data.h"

namespace dak::planner {
namespace {

// The published shape without vocabulary and context: linear layers alone.
ModelConfig LinearLayers() {
  ModelConfig config = *LoadModelConfig(DataPath("llama-3-8b.json"));
  config.vocab_size = 1;
  return config;
}

Pass LinearPass(uint64_t batch) {
  Pass pass;
  const absl::StatusOr<DecodePass> described = DescribeDecode(LinearLayers(), {.batch = batch, .context_tokens = 1});
  for (const ModelOperation& operation : described->operations) {
    if (operation.layer == kNoLayer || operation.kind == OperationKind::kKvCache) continue;
    pass.operations.push_back(operation.operation);
    pass.hbm_budget_bytes += operation.operation.bytes;
  }
  return pass;
}

PlanQuestion LinearQuestion() {
  PlanQuestion question;
  question.config = LinearLayers();
  question.shape = {.batch = 1, .context_tokens = 1};
  question.profile = *NamedProfile("h100-pcie");
  return question;
}

struct Limit {
  uint64_t batch;
  double ratio;
  double milliseconds;  // one decimal in the table
};

class MeasuredLimitTest : public ::testing::TestWithParam<Limit> {};

TEST_P(MeasuredLimitTest, IsWhatThePlannerPredicts) {
  Pass pass = LinearPass(GetParam().batch);
  EXPECT_NEAR(static_cast<double>(pass.hbm_budget_bytes), 14.0e9, 0.05e9);
  pass.hbm_budget_bytes -= static_cast<uint64_t>(GetParam().ratio * static_cast<double>(pass.hbm_budget_bytes));
  const absl::StatusOr<PassPlan> plan = Plan(*NamedProfile("h100-pcie"), pass);
  ASSERT_TRUE(plan.ok());
  const double seconds = GetParam().ratio == 0 ? plan->all_hbm_s : plan->predicted_s;
  // The table was made from 14.0 GB, the shape has 13.96.
  EXPECT_NEAR(1e3 * seconds, GetParam().milliseconds, 0.05 + 0.004 * GetParam().milliseconds);
}

INSTANTIATE_TEST_SUITE_P(Table, MeasuredLimitTest,
                         ::testing::Values(Limit{1, 0, 4.7}, Limit{1, 0.02, 5.5}, Limit{1, 0.10, 27.3},
                                           Limit{1, 0.30, 82.0}, Limit{1, 0.50, 136.6}, Limit{64, 0.02, 5.5},
                                           Limit{64, 0.10, 27.3}, Limit{256, 0, 4.7}, Limit{256, 0.02, 5.5},
                                           Limit{256, 0.10, 27.3}, Limit{256, 0.30, 82.0}));

struct Prefetch {
  uint64_t layers;
  double measured_ms;
};

class MeasuredPrefetchTest : public ::testing::TestWithParam<Prefetch> {};

TEST_P(MeasuredPrefetchTest, IsWithinFivePercentOfThePrediction) {
  PlanQuestion question = LinearQuestion();
  const DecodePass pass = *DescribeDecode(question.config, question.shape);
  // So much HBM that, beside two layers of buffers, exactly that many layers have no room.
  question.hbm_bytes =
      pass.weight_bytes + pass.kv_bytes + 2 * pass.layer_weight_bytes - GetParam().layers * pass.layer_weight_bytes;
  const absl::StatusOr<PlanReport> report = MakePlanReport(question);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->prefetch.layers_offloaded, GetParam().layers);
  EXPECT_NEAR(static_cast<double>(report->prefetch.buffer_bytes), 2 * 436e6, 2e6);
  EXPECT_NEAR(1e3 * report->prefetch.pass_s, GetParam().measured_ms, 0.05 * GetParam().measured_ms);
}

INSTANTIATE_TEST_SUITE_P(Table, MeasuredPrefetchTest,
                         ::testing::Values(Prefetch{3, 24.9}, Prefetch{10, 79.7}, Prefetch{16, 126.9}));

TEST(EqualHbmTest, DirectAccessGainsMostJustAboveCapacity) {
  // At 2 % over capacity prefetch must offload 8 %, for its buffers (docs/planner.md).
  PlanQuestion question = LinearQuestion();
  const DecodePass pass = *DescribeDecode(question.config, question.shape);
  question.hbm_bytes = static_cast<uint64_t>(0.98 * static_cast<double>(pass.weight_bytes + pass.kv_bytes));
  const absl::StatusOr<PlanReport> report = MakePlanReport(question);
  ASSERT_TRUE(report.ok());
  EXPECT_NEAR(static_cast<double>(report->prefetch.remote_bytes) / static_cast<double>(pass.weight_bytes), 0.09, 0.015);
  EXPECT_GT(report->prefetch.pass_s / report->pass_s, 3.5);
}

}  // namespace
}  // namespace dak::planner

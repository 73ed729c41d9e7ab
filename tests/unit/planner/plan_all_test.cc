// Several sessions at once: what they share, and what they don't.
#include <numeric>

#include "daemon/planner/planner.h"
#include "gtest/gtest.h"
#include "tests/unit/planner/test_profiles.h"

namespace dak::planner {
namespace {

std::vector<PassPlan> MustPlanAll(const Profile& profile, const std::vector<Pass>& passes,
                                  uint64_t hbm_capacity_bytes = kUnlimitedBytes) {
  const auto plans = PlanAll(profile, passes, hbm_capacity_bytes);
  EXPECT_TRUE(plans.ok()) << plans.status();
  return plans.ok() ? *plans : std::vector<PassPlan>(passes.size());
}

TEST(PlanAllTest, NoSessionsIsAnEmptyPlan) { EXPECT_TRUE(MustPlanAll(RoundProfile(), {}).empty()); }

TEST(PlanAllTest, OneSessionIsItsPlanAlone) {
  const Pass pass = MakePass({MakeOperation(1000), MakeOperation(300, 40)}, 700, 3);
  const std::vector<PassPlan> plans = MustPlanAll(RoundProfile(), {pass});
  const absl::StatusOr<PassPlan> alone = Plan(RoundProfile(), pass);
  ASSERT_TRUE(alone.ok());
  EXPECT_EQ(plans[0].predicted_s, alone->predicted_s);
  EXPECT_EQ(plans[0].operations[0].ratio, alone->operations[0].ratio);
}

TEST(PlanAllTest, WithoutSharedLimitsEachIsPlannedOnItsShareOfTheLink) {
  const std::vector<Pass> passes = {MakePass({MakeOperation(1000), MakeOperation(300, 40)}, 700, 3),
                                    MakePass({MakeOperation(500, 10), MakeOperation(800)}, 400, 1)};
  const std::vector<PassPlan> plans = MustPlanAll(RoundProfile(), passes);
  const double shares[] = {0.75, 0.25};
  for (size_t p = 0; p < 2; ++p) {
    Pass alone = passes[p];
    alone.weight = 1;
    const absl::StatusOr<PassPlan> plan = Plan(ScaledToShare(RoundProfile(), shares[p]), alone);
    ASSERT_TRUE(plan.ok());
    EXPECT_NEAR(plans[p].predicted_s, plan->predicted_s, 1e-12 * plan->predicted_s);
    EXPECT_NEAR(plans[p].uniform_s, plan->uniform_s, 1e-12 * plan->uniform_s);
  }
}

TEST(PlanAllTest, SessionIdsAndOrderAreKept) {
  std::vector<Pass> passes = {MakePass({MakeOperation(10)}, 10), MakePass({MakeOperation(20)}, 20)};
  passes[0].session_id = 9;
  passes[1].session_id = 4;
  const std::vector<PassPlan> plans = MustPlanAll(RoundProfile(), passes);
  EXPECT_EQ(plans[0].session_id, 9u);
  EXPECT_EQ(plans[1].session_id, 4u);
}

TEST(PlanAllTest, SharedHbmIsGivenUpWhereItCostsLeast) {
  // Both fit their own budgets. 600 of 2000 bytes must go; the second session hides 40 s * 12.5 bytes/s = 500 of them,
  // the first reads 12.5 / 112.5 of its own remotely for its own good.
  const std::vector<Pass> passes = {MakePass({MakeOperation(1000)}, 1000), MakePass({MakeOperation(1000, 400)}, 1000)};
  const std::vector<PassPlan> plans = MustPlanAll(RoundProfile(), passes, 1400);
  EXPECT_NEAR(plans[0].operations[0].ratio, 12.5 / 112.5, 1e-12);
  EXPECT_NEAR(plans[1].operations[0].ratio, 0.6 - 12.5 / 112.5, 1e-12);
  EXPECT_NEAR(plans[1].predicted_s, 40, 1e-9);
}

TEST(PlanAllTest, SharedHbmIsSplitWhereAByteCostsAllTheSame) {
  // At their marginal cost a byte costs weight / (link * share) in both: with shares by weight the same. So ties share.
  const std::vector<Pass> passes = {MakePass({MakeOperation(1000)}, 1000, 3), MakePass({MakeOperation(1000)}, 1000, 1)};
  const std::vector<PassPlan> plans = MustPlanAll(RoundProfile(), passes, 1000);
  EXPECT_EQ(plans[0].remote_bytes + plans[1].remote_bytes, 1000u);
  EXPECT_GT(plans[0].operations[0].ratio, 18.75 / 118.75);
  EXPECT_GT(plans[1].operations[0].ratio, 6.25 / 106.25);
}

TEST(PlanAllTest, OwnBudgetHoldsBesideTheSharedOne) {
  const std::vector<Pass> passes = {MakePass({MakeOperation(1000, 1e6)}, 100),
                                    MakePass({MakeOperation(1000, 1e6)}, 1000)};
  const std::vector<PassPlan> plans = MustPlanAll(RoundProfile(), passes, 1050);
  EXPECT_GE(plans[0].operations[0].ratio, 0.9 - 1e-12);
  EXPECT_NEAR(static_cast<double>(plans[0].remote_bytes + plans[1].remote_bytes), 950, 1);
}

TEST(PlanAllTest, FullTierIsFilledExactlyAndNoBetterSumExists) {
  // Only one session's 100 bytes fit the fast tier; the other one's take the slow tier.
  Profile profile = RoundProfile();
  profile.remote_tiers = {{.name = "host", .capacity_bytes = 100}, {.name = "cxl", .bytes_per_s = 1}};
  const std::vector<Pass> passes = {MakePass({MakeOperation(100)}, 0, 1), MakePass({MakeOperation(100)}, 0, 9)};
  const std::vector<PassPlan> plans = MustPlanAll(profile, passes);
  // Each alone on the slow tier would take 100 / 0.1 and 100 / 0.9 seconds: weighted 1000 and 1000. On the fast one
  // 100 / 2.5 and 100 / 22.5: weighted 40 and 40. All the same to the sum, so only that is promised.
  EXPECT_LE(1 * plans[0].predicted_s + 9 * plans[1].predicted_s, 1040 + 1e-6);
  double on_host = 0;
  for (const PassPlan& plan : plans) on_host += 100 * plan.operations[0].tier_ratios[0];
  EXPECT_NEAR(on_host, 100, 1e-9);
}

TEST(PlanAllTest, SumIsNeverAboveUniformUnderSharedLimits) {
  Profile profile = RoundProfile();
  profile.remote_tiers = {{.name = "host", .capacity_bytes = 700}, {.name = "cxl", .bytes_per_s = 4}};
  const std::vector<Pass> passes = {MakePass({MakeOperation(1000), MakeOperation(400, 900)}, 900, 2),
                                    MakePass({MakeOperation(600, 300), MakeOperation(500, 20)}, 800, 1)};
  const std::vector<PassPlan> plans = MustPlanAll(profile, passes, 1500);
  EXPECT_LT(2 * plans[0].predicted_s + plans[1].predicted_s, 2 * plans[0].uniform_s + plans[1].uniform_s);
}

}  // namespace
}  // namespace dak::planner

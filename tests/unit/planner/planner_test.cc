// What one pass's plan looks like, on numbers small enough to check by hand.
#include "daemon/planner/planner.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/planner/test_profiles.h"

namespace dak::planner {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

PassPlan MustPlan(const Profile& profile, const Pass& pass) {
  const absl::StatusOr<PassPlan> plan = Plan(profile, pass);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *plan : PassPlan{};
}

std::vector<double> Ratios(const PassPlan& plan) {
  std::vector<double> ratios;
  for (const OperationPlan& operation : plan.operations) ratios.push_back(operation.ratio);
  return ratios;
}

TEST(PlannerTest, MemoryBoundOperationGoesToTheSweetSpotThoughItFits) {
  const PassPlan plan = MustPlan(RoundProfile(), MakePass({MakeOperation(1000)}, 1000));
  EXPECT_THAT(Ratios(plan), ElementsAre(DoubleNear(0.2, 1e-12)));
  EXPECT_NEAR(plan.predicted_s, 8, 1e-12);
  EXPECT_NEAR(plan.all_hbm_s, 10, 1e-12);
  EXPECT_NEAR(plan.uniform_s, 10, 1e-12);  // the smallest ratio that fits is 0
  EXPECT_EQ(plan.remote_bytes, 200u);
}

TEST(PlannerTest, ComputeBoundOperationStaysInHbmWhileItFits) {
  // 100 s of compute hide everything.
  const PassPlan plan = MustPlan(RoundProfile(), MakePass({MakeOperation(1000, 1000)}, 1000));
  EXPECT_THAT(Ratios(plan), ElementsAre(0));
  EXPECT_NEAR(plan.predicted_s, 100, 1e-12);
}

TEST(PlannerTest, ComputeBoundOperationHidesTransfersBeforeMemoryBoundOnesSlowDown) {
  // The second hides up to 20 s * 25 bytes/s = 500 bytes.
  const std::vector<Operation> operations = {MakeOperation(1000), MakeOperation(1000, 200)};
  const PassPlan half_hidden = MustPlan(RoundProfile(), MakePass(operations, 2000 - 200 - 250));
  EXPECT_THAT(Ratios(half_hidden), ElementsAre(DoubleNear(0.2, 1e-12), DoubleNear(0.25, 1e-12)));
  EXPECT_NEAR(half_hidden.predicted_s, 8 + 20, 1e-12);
  const PassPlan beyond = MustPlan(RoundProfile(), MakePass(operations, 2000 - 200 - 500 - 260));
  EXPECT_NEAR(beyond.predicted_s, 8 + 20 + 260 / 25.0, 1e-12);
}

TEST(PlannerTest, TiesShareInProportionToWhatTheyCanHide) {
  // They hide 500 and 250 bytes; 300 are needed.
  const PassPlan plan = MustPlan(RoundProfile(), MakePass({MakeOperation(1000, 200), MakeOperation(500, 100)}, 1200));
  EXPECT_THAT(Ratios(plan), ElementsAre(DoubleNear(0.2, 1e-12), DoubleNear(0.2, 1e-12)));
}

TEST(PlannerTest, WhatIsSeldomReadLeavesHbmFirst) {
  Operation table = MakeOperation(10);
  table.stored_bytes = 1000;
  const PassPlan plan = MustPlan(RoundProfile(), MakePass({MakeOperation(1000), table}, 2000 - 200 - 700));
  EXPECT_NEAR(plan.operations[0].ratio, 0.2, 1e-12);
  EXPECT_NEAR(plan.operations[1].ratio, 0.7, 1e-12);
  EXPECT_NEAR(plan.operations[1].predicted_s, 10 * 0.7 / 25, 1e-12);
  EXPECT_EQ(plan.remote_bytes, 900u);
}

TEST(PlannerTest, BoundsHold) {
  const PassPlan plan = MustPlan(
      RoundProfile(),
      MakePass({MakeOperation(1000, 0, 0, 0), MakeOperation(1000, 0, 0.5, 0.5), MakeOperation(1000, 0, 0.3, 0.9)},
               1700));
  EXPECT_THAT(Ratios(plan), ElementsAre(0, 0.5, DoubleNear(0.8, 1e-12)));
}

TEST(PlannerTest, BudgetZeroPutsEverythingRemote) {
  const PassPlan plan = MustPlan(RoundProfile(), MakePass({MakeOperation(1000, 5), MakeOperation(7)}, 0));
  EXPECT_THAT(Ratios(plan), ElementsAre(1, 1));
  EXPECT_NEAR(plan.predicted_s, 1007 / 25.0, 1e-12);
  EXPECT_NEAR(plan.uniform_s, plan.predicted_s, 1e-12);
}

TEST(PlannerTest, OperationsWithoutBytesOrFlopsTakeNoTime) {
  const PassPlan plan = MustPlan(RoundProfile(), MakePass({MakeOperation(0), MakeOperation(0, 50, 0.25, 0.5)}, 0));
  EXPECT_THAT(Ratios(plan), ElementsAre(0, 0.25));
  EXPECT_NEAR(plan.predicted_s, 5, 1e-12);
}

TEST(PlannerTest, SeveralTiersDeliverTogetherUpToTheLink) {
  Profile profile = RoundProfile();
  profile.remote_tiers = {{.name = "host", .bytes_per_s = 15}, {.name = "cxl", .bytes_per_s = 20}};
  const PassPlan plan = MustPlan(profile, MakePass({MakeOperation(1000)}, 1000));
  EXPECT_NEAR(plan.predicted_s, 8, 1e-12);
  EXPECT_NEAR(plan.operations[0].tier_ratios[0], 15 * 8 / 1000.0, 1e-12);  // the preferred tier as far as it goes
  EXPECT_NEAR(plan.operations[0].tier_ratios[1], 10 * 8 / 1000.0, 1e-12);
}

TEST(PlannerTest, TiersSlowerThanTheLinkLimitTogether) {
  Profile profile = RoundProfile();
  profile.remote_tiers = {{.name = "host", .bytes_per_s = 10}, {.name = "cxl", .bytes_per_s = 5}};
  const PassPlan plan = MustPlan(profile, MakePass({MakeOperation(1000)}, 0));
  EXPECT_NEAR(plan.predicted_s, 1000 / 15.0, 1e-9);
  EXPECT_NEAR(plan.operations[0].tier_ratios[0], 10 / 15.0, 1e-12);
}

TEST(PlannerTest, FullTierMakesRoomWhereItMattersMost) {
  // docs/planner.md: greedy in order of preference would give the host to the compute-bound operation, which could
  // hide the slow tier as well, and leave the slow tier to the one that can't.
  Profile profile = RoundProfile();
  profile.remote_tiers = {{.name = "host", .capacity_bytes = 500}, {.name = "cxl", .bytes_per_s = 5}};
  const Pass pass = MakePass({MakeOperation(500, 1000), MakeOperation(500)}, 0);
  const PassPlan plan = MustPlan(profile, pass);
  EXPECT_NEAR(plan.predicted_s, 100 + 20, 1e-9);  // the other way round it would be 100 + 100
  const double host_bytes = 500 * (plan.operations[0].tier_ratios[0] + plan.operations[1].tier_ratios[0]);
  EXPECT_LE(host_bytes, 500 + 1e-9);
}

TEST(PlannerTest, FullTierKeepsVoluntaryBytesBack) {
  // 200 bytes would pay off, 50 fit.
  Profile profile = RoundProfile();
  profile.remote_tiers[0].capacity_bytes = 50;
  const PassPlan plan = MustPlan(profile, MakePass({MakeOperation(1000)}, 1000));
  EXPECT_THAT(Ratios(plan), ElementsAre(DoubleNear(0.05, 1e-12)));
  profile.remote_tiers[0].capacity_bytes = 0;
  EXPECT_THAT(Ratios(MustPlan(profile, MakePass({MakeOperation(1000)}, 1000))), ElementsAre(DoubleNear(0, 1e-12)));
}

TEST(PlannerTest, ManyEqualOperationsGetEqualRatios) {
  const std::vector<Operation> operations(1000, MakeOperation(1 << 25, 1e6));
  const PassPlan plan = MustPlan(*NamedProfile("h100-pcie"), MakePass(operations, uint64_t{600} << 25));
  for (const OperationPlan& operation : plan.operations) EXPECT_EQ(operation.ratio, plan.operations[0].ratio);
  EXPECT_NEAR(plan.operations[0].ratio, 0.4, 1e-12);
}

TEST(OperationSecondsTest, IsTheSlowestOfItsParts) {
  Profile profile = RoundProfile();
  profile.remote_tiers = {{.name = "host"}, {.name = "cxl", .bytes_per_s = 5}};
  const Operation operation = MakeOperation(1000, 70);
  EXPECT_DOUBLE_EQ(OperationSeconds(profile, operation, {}), 10);                    // HBM
  EXPECT_DOUBLE_EQ(OperationSeconds(profile, operation, {0.35}), 14);                // link
  EXPECT_DOUBLE_EQ(OperationSeconds(profile, operation, {0.2, 0.1}), 20);            // the slow tier
  EXPECT_DOUBLE_EQ(OperationSeconds(profile, MakeOperation(1000, 300), {0.2}), 30);  // compute
}

TEST(NamedProfileTest, UnknownNameListsTheKnown) {
  const absl::Status status = NamedProfile("a100").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(
      std::string(status.message()),
      ::testing::AllOf(::testing::HasSubstr("a100"), ::testing::HasSubstr("h100-pcie"), ::testing::HasSubstr("gh200")));
}

TEST(NamedProfileTest, KnownOnesCanBePlannedFor) {
  for (const char* name : {"h100-pcie", "gh200"}) {
    const absl::StatusOr<Profile> profile = NamedProfile(name);
    ASSERT_TRUE(profile.ok());
    const PassPlan plan = MustPlan(*profile, MakePass({MakeOperation(1 << 30)}, 1 << 30));
    const double sweet_spot = profile->link_bytes_per_s / (profile->hbm_bytes_per_s + profile->link_bytes_per_s);
    EXPECT_NEAR(plan.operations[0].ratio, sweet_spot, 1e-12) << name;
  }
}

}  // namespace
}  // namespace dak::planner

// Every field that can be wrong, and every way in which a pass can't fit.
#include <cmath>
#include <functional>
#include <limits>

#include "allocator/base/error_detail.h"
#include "daemon/planner/planner.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/planner/lp_oracle.h"
#include "tests/unit/planner/test_profiles.h"

namespace dak::planner {
namespace {

using ::testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinite = std::numeric_limits<double>::infinity();

struct BadField {
  const char* field;
  std::function<void(Profile&, Pass&)> spoil;
};

class PlannerValidationTest : public ::testing::TestWithParam<BadField> {};

TEST_P(PlannerValidationTest, NamesTheField) {
  Profile profile = RoundProfile();
  Pass pass = MakePass({MakeOperation(1000), MakeOperation(1000)}, 1500);
  ASSERT_TRUE(Plan(profile, pass).ok());
  GetParam().spoil(profile, pass);
  const absl::Status status = Plan(profile, pass).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(DetailOf(status).field, GetParam().field);
  EXPECT_FALSE(DetailOf(status).limit.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Fields, PlannerValidationTest,
    ::testing::Values(
        BadField{"profile.hbm_bytes_per_s", [](Profile& p, Pass&) { p.hbm_bytes_per_s = 0; }},
        BadField{"profile.hbm_bytes_per_s", [](Profile& p, Pass&) { p.hbm_bytes_per_s = kInfinite; }},
        BadField{"profile.link_bytes_per_s", [](Profile& p, Pass&) { p.link_bytes_per_s = -1; }},
        BadField{"profile.link_bytes_per_s", [](Profile& p, Pass&) { p.link_bytes_per_s = kNan; }},
        BadField{"profile.flops_per_s", [](Profile& p, Pass&) { p.flops_per_s = 0; }},
        BadField{"profile.remote_tiers", [](Profile& p, Pass&) { p.remote_tiers.clear(); }},
        BadField{"profile.remote_tiers", [](Profile& p, Pass&) { p.remote_tiers.resize(kMaxRemoteTiers + 1); }},
        BadField{"profile.remote_tiers[0].bytes_per_s", [](Profile& p, Pass&) { p.remote_tiers[0].bytes_per_s = -1; }},
        BadField{"profile.remote_tiers[0].bytes_per_s", [](Profile& p, Pass&) { p.remote_tiers[0].own_link = true; }},
        BadField{"profile.remote_tiers",
                 [](Profile& p, Pass&) {
                   p.remote_tiers.resize(2);
                   p.remote_tiers.push_back({.name = "own", .bytes_per_s = 1, .own_link = true});
                 }},
        BadField{"weight", [](Profile&, Pass& p) { p.weight = 0; }},
        BadField{"weight", [](Profile&, Pass& p) { p.weight = 1e7; }},
        BadField{"weight", [](Profile&, Pass& p) { p.weight = kNan; }},
        BadField{"operations", [](Profile&, Pass& p) { p.operations.clear(); }},
        BadField{"operations", [](Profile&, Pass& p) { p.operations.assign(9, MakeOperation(kMaxOperationBytes)); }},
        BadField{"operations[1].bytes", [](Profile&, Pass& p) { p.operations[1].bytes = kMaxOperationBytes + 1; }},
        BadField{"operations[1].stored_bytes",
                 [](Profile&, Pass& p) { p.operations[1].stored_bytes = kMaxOperationBytes + 1; }},
        BadField{"operations[0].flops", [](Profile&, Pass& p) { p.operations[0].flops = -1; }},
        BadField{"operations[0].flops", [](Profile&, Pass& p) { p.operations[0].flops = kNan; }},
        BadField{"operations[1].min_ratio", [](Profile&, Pass& p) { p.operations[1].min_ratio = -0.1; }},
        BadField{"operations[1].min_ratio", [](Profile&, Pass& p) { p.operations[1].min_ratio = kNan; }},
        BadField{"operations[1].max_ratio", [](Profile&, Pass& p) { p.operations[1].max_ratio = 1.1; }},
        BadField{"operations[1].max_ratio", [](Profile&, Pass& p) {
                   p.operations[1].min_ratio = 0.5;
                   p.operations[1].max_ratio = 0.4;
                 }}));

TEST(PlannerValidationOfSeveralTest, NamesThePass) {
  const std::vector<Pass> passes = {MakePass({MakeOperation(10)}, 10), MakePass({MakeOperation(10, -1)}, 10)};
  EXPECT_EQ(DetailOf(PlanAll(RoundProfile(), passes).status()).field, "passes[1].operations[0].flops");
}

TEST(PlannerValidationOfSeveralTest, BoundsTheSumOfAllPasses) {
  const std::vector<Pass> passes(9, MakePass({MakeOperation(kMaxOperationBytes)}, kMaxOperationBytes));
  EXPECT_EQ(DetailOf(PlanAll(RoundProfile(), passes).status()).field, "passes");
}

// What doesn't fit, the shortfall, and that GLPK finds no plan either.
void ExpectDoesNotFit(const Profile& profile, const std::vector<Pass>& passes, uint64_t hbm_capacity_bytes,
                      const std::string& field, uint64_t shortfall_bytes) {
  const absl::Status status = PlanAll(profile, passes, hbm_capacity_bytes).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(DetailOf(status).field, field);
  EXPECT_EQ(DetailOf(status).shortfall_bytes, shortfall_bytes);
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(shortfall_bytes)));
  EXPECT_FALSE(LeastWeightedSeconds(profile, passes, hbm_capacity_bytes).has_value());
}

TEST(PlannerDoesNotFitTest, BudgetBelowTheHighestRatios) {
  const std::vector<Pass> passes = {MakePass({MakeOperation(1024, 0, 0, 0.5)}, 500)};
  ExpectDoesNotFit(RoundProfile(), passes, kUnlimitedBytes, "passes[0].hbm_budget_bytes", 12);
}

TEST(PlannerDoesNotFitTest, BudgetExactlyAtTheHighestRatiosFits) {
  EXPECT_TRUE(Plan(RoundProfile(), MakePass({MakeOperation(1024, 0, 0, 0.5)}, 512)).ok());
  EXPECT_FALSE(Plan(RoundProfile(), MakePass({MakeOperation(1024, 0, 0, 0.5)}, 511)).ok());
}

TEST(PlannerDoesNotFitTest, RemoteTiersTooSmallForWhatMustBeRemote) {
  Profile profile = RoundProfile();
  profile.remote_tiers = {{.name = "host", .capacity_bytes = 300}, {.name = "cxl", .capacity_bytes = 400}};
  ExpectDoesNotFit(profile, {MakePass({MakeOperation(1000)}, 200)}, kUnlimitedBytes, "profile.remote_tiers", 100);
}

TEST(PlannerDoesNotFitTest, RemoteTiersTooSmallForTheLowestRatios) {
  Profile profile = RoundProfile();
  profile.remote_tiers[0].capacity_bytes = 500;
  ExpectDoesNotFit(profile, {MakePass({MakeOperation(1024, 0, 0.5, 1)}, 1024)}, kUnlimitedBytes, "profile.remote_tiers",
                   12);
}

TEST(PlannerDoesNotFitTest, SharedHbmBelowTheHighestRatios) {
  const std::vector<Pass> passes = {MakePass({MakeOperation(1024, 0, 0, 0.5)}, 1024),
                                    MakePass({MakeOperation(1024, 0, 0, 0.25)}, 1024)};
  ExpectDoesNotFit(RoundProfile(), passes, 1200, "hbm_capacity_bytes", 80);
}

}  // namespace
}  // namespace dak::planner

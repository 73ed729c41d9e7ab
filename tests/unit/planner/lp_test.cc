// The planner against GLPK, on random problems.
#include <algorithm>
#include <random>

#include "daemon/planner/planner.h"
#include "gtest/gtest.h"
#include "tests/unit/planner/lp_oracle.h"
#include "tests/unit/planner/random_cases.h"

namespace dak::planner {
namespace {

constexpr double kRelative = 1e-9;
constexpr double kFeasible = 1e-11;  // of all bytes

double StoredBytes(const Operation& operation) {
  return static_cast<double>(operation.stored_bytes == 0 ? operation.bytes : operation.stored_bytes);
}

// Every limit of the header, and that times and sums are those of the shares.
void ExpectPlanKeepsLimits(const RandomCase& problem, const std::vector<PassPlan>& plans) {
  double weights = 0;
  double all_bytes = 0;
  for (const Pass& pass : problem.passes) weights += pass.weight;
  std::vector<double> on_tier(problem.profile.remote_tiers.size());
  double in_hbm = 0;
  for (size_t p = 0; p < problem.passes.size(); ++p) {
    const Pass& pass = problem.passes[p];
    const Profile seen = ScaledToShare(problem.profile, pass.weight / weights);
    double bytes = 0;
    double remote = 0;
    double seconds = 0;
    for (size_t i = 0; i < pass.operations.size(); ++i) {
      const Operation& operation = pass.operations[i];
      const OperationPlan& planned = plans[p].operations[i];
      double sum = 0;
      for (size_t k = 0; k < planned.tier_ratios.size(); ++k) {
        EXPECT_GE(planned.tier_ratios[k], 0);
        sum += planned.tier_ratios[k];
        on_tier[k] += planned.tier_ratios[k] * StoredBytes(operation);
      }
      EXPECT_NEAR(sum, planned.ratio, 1e-12);
      EXPECT_GE(planned.ratio, operation.min_ratio);
      EXPECT_LE(planned.ratio, operation.max_ratio);
      EXPECT_NEAR(planned.predicted_s, OperationSeconds(seen, operation, planned.tier_ratios),
                  1e-12 * planned.predicted_s);
      bytes += StoredBytes(operation);
      remote += planned.ratio * StoredBytes(operation);
      seconds += planned.predicted_s;
    }
    EXPECT_LE(bytes - remote, static_cast<double>(pass.hbm_budget_bytes) + kFeasible * bytes);
    EXPECT_NEAR(plans[p].predicted_s, seconds, 1e-12 * seconds);
    EXPECT_NEAR(static_cast<double>(plans[p].remote_bytes), remote, 0.51 + 1e-12 * remote);
    in_hbm += bytes - remote;
    all_bytes += bytes;
  }
  EXPECT_LE(in_hbm, static_cast<double>(problem.hbm_capacity_bytes) + kFeasible * all_bytes);
  for (size_t k = 0; k < on_tier.size(); ++k) {
    const uint64_t capacity = problem.profile.remote_tiers[k].capacity_bytes;
    EXPECT_LE(on_tier[k], static_cast<double>(capacity) + kFeasible * all_bytes) << "tier " << k;
  }
}

struct Sums {
  double predicted_s = 0;
  double uniform_s = 0;
};
Sums WeightedSums(const RandomCase& problem, const std::vector<PassPlan>& plans) {
  Sums sums;
  for (size_t p = 0; p < plans.size(); ++p) {
    sums.predicted_s += problem.passes[p].weight * plans[p].predicted_s;
    sums.uniform_s += problem.passes[p].weight * plans[p].uniform_s;
  }
  return sums;
}

// What a share of all bytes is worth at the most. A ratio near 1 can't say how few bytes are left to better than its
// last digits, and limits are kept to within 1e-13 of all bytes: in seconds that is much only where a pass reads few
// stored bytes very often beside very many that it doesn't.
double SecondsOfShare(const RandomCase& problem, double share) {
  double slowest = std::min(problem.profile.hbm_bytes_per_s, problem.profile.link_bytes_per_s);
  for (const RemoteTier& tier : problem.profile.remote_tiers) {
    if (tier.bytes_per_s > 0) slowest = std::min(slowest, tier.bytes_per_s);
  }
  double link_share = 1;
  double hbm = problem.profile.hbm_bytes_per_s;
  for (const BatchRate& rate : problem.profile.batch_rates) {
    hbm = std::min(hbm, rate.hbm_bytes_per_s);
    if (rate.link_bytes_per_s > 0) {
      link_share = std::min(link_share, rate.link_bytes_per_s / problem.profile.link_bytes_per_s);
    }
  }
  slowest = std::min(slowest * link_share, hbm);
  double weights = 0;
  double bytes = 0;
  double density = 0;
  for (const Pass& pass : problem.passes) {
    weights += pass.weight;
    for (const Operation& operation : pass.operations) {
      bytes += StoredBytes(operation);
      if (operation.bytes > 0)
        density = std::max(density, static_cast<double>(operation.bytes) / StoredBytes(operation));
    }
  }
  return share * bytes * density * weights / slowest;
}

// Under a sanitizer a tenth of the cases, some ten times as slow, says what there is to say about memory and threads.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kFewer = 10;
#else
constexpr int kFewer = 1;
#endif

void CompareWithLp(uint64_t seed, int cases, const CaseSize& size) {
  cases /= kFewer;
  std::mt19937_64 random(seed);
  for (int i = 0; i < cases; ++i) {
    const RandomCase problem = MakeCase(random, size);
    const auto plans = PlanAll(problem.profile, problem.passes, problem.hbm_capacity_bytes);
    ASSERT_TRUE(plans.ok()) << plans.status() << "\ncase " << i << "\n" << Describe(problem);
    ExpectPlanKeepsLimits(problem, *plans);
    const auto least = LeastWeightedSeconds(problem.profile, problem.passes, problem.hbm_capacity_bytes);
    ASSERT_TRUE(least.has_value()) << "GLPK finds no plan for case " << i << "\n" << Describe(problem);
    const Sums sums = WeightedSums(problem, *plans);
    const double last_digit = size.extreme ? SecondsOfShare(problem, size.limited_tiers ? 2e-13 : 1e-15) : 0;
    EXPECT_NEAR(sums.predicted_s, *least, kRelative * *least + last_digit) << "case " << i << "\n" << Describe(problem);
    EXPECT_LE(sums.predicted_s, sums.uniform_s * (1 + 1e-12) + last_digit) << "case " << i << "\n" << Describe(problem);
    ASSERT_FALSE(testing::Test::HasFailure()) << "case " << i << " of seed " << seed;
  }
}

TEST(PlannerAgainstLpTest, OnePassOneTier) { CompareWithLp(1, 4000, {.max_operations = 8}); }

TEST(PlannerAgainstLpTest, OnePassSeveralTiersThatShareALink) {
  CompareWithLp(2, 2000, {.max_operations = 6, .max_tiers = 4});
}

TEST(PlannerAgainstLpTest, OneTierWithLimitedCapacity) {
  CompareWithLp(3, 2000, {.max_operations = 8, .limited_tiers = true});
}

TEST(PlannerAgainstLpTest, SeveralTiersWithLimitedCapacities) {
  CompareWithLp(4, 3000, {.max_operations = 6, .max_tiers = 4, .limited_tiers = true});
}

TEST(PlannerAgainstLpTest, SeveralSessions) { CompareWithLp(5, 2000, {.max_operations = 4, .max_passes = 4}); }

TEST(PlannerAgainstLpTest, SeveralSessionsShareTiersWithLimitedCapacities) {
  CompareWithLp(6, 2000, {.max_operations = 4, .max_passes = 3, .max_tiers = 3, .limited_tiers = true});
}

// The oracle has a row for every link; the planner has one term for their sum.
TEST(PlannerAgainstLpTest, TiersWithLinksOfTheirOwn) {
  CompareWithLp(9, 2000, {.max_operations = 6, .max_tiers = 4, .own_links = true});
  CompareWithLp(10, 2000,
                {.max_operations = 4, .max_passes = 3, .max_tiers = 3, .limited_tiers = true, .own_links = true});
}

TEST(PlannerAgainstLpTest, ExtremeMagnitudes) {
  CompareWithLp(7, 1000, {.max_operations = 6, .max_passes = 2, .extreme = true});
  CompareWithLp(8, 1000,
                {.max_operations = 6, .max_passes = 2, .max_tiers = 3, .limited_tiers = true, .extreme = true});
}

}  // namespace
}  // namespace dak::planner

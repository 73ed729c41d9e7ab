// All sessions' plans: who moves when one comes, goes, grows or changes its batch, how far, and who stays.
#include "daemon/planner/node_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "allocator/base/error_detail.h"
#include "tests/unit/planner/test_profiles.h"

namespace dak::planner {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr double kForever = std::numeric_limits<double>::infinity();
constexpr uint64_t kMany = 1'000'000;

// `operations` matrices of 100 rows of 10 bytes, read whole, in tiles of 5 rows.
PassDescription Matrices(uint64_t session_id, size_t operations, double flops = 0, double weight = 1) {
  PassDescription description;
  description.pass.session_id = session_id;
  description.pass.weight = weight;
  description.pass.hbm_budget_bytes = kMany;
  for (size_t i = 0; i < operations; ++i) {
    description.pass.operations.push_back(MakeOperation(1000, flops));
    description.pass.operations.back().name = "m" + std::to_string(i);
    description.splits.push_back({.rows = 100, .tile_rows = 5, .row_bytes = 10});
  }
  return description;
}

class NodePlanTest : public testing::Test {
 protected:
  NodePlanTest() { SetHbm(kMany); }
  void SetHbm(uint64_t bytes) { node_.SetCapacities(bytes, {kUnlimitedBytes}); }

  std::vector<uint64_t> Describe(PassDescription description, double now_s) {
    const auto changed = node_.Describe(std::move(description), kUnlimitedBytes, now_s);
    EXPECT_TRUE(changed.ok()) << changed.status();
    return changed.ok() ? *changed : std::vector<uint64_t>();
  }
  std::vector<uint64_t> Replan(double now_s) {
    const auto changed = node_.Replan(now_s);
    EXPECT_TRUE(changed.ok()) << changed.status();
    return changed.ok() ? *changed : std::vector<uint64_t>();
  }
  uint64_t RemoteRows(uint64_t session_id) const {
    uint64_t rows = 0;
    for (const uint64_t one : node_.Find(session_id)->remote_rows) rows += one;
    return rows;
  }
  uint64_t Version(uint64_t session_id) const { return node_.Find(session_id)->version; }
  // Follows all steps that are due, and returns how many there were.
  int Settle(double* now_s) {
    int steps = 0;
    while (node_.next_replan_s() < kForever && steps < 1000) {
      *now_s = std::max(*now_s, node_.next_replan_s());
      Replan(*now_s);
      ++steps;
    }
    return steps;
  }

  ReplanPolicy policy_ = {.min_gain = 0.03, .payback_s = 1e6, .min_interval_s = 1, .max_move_bytes = 200};
  NodePlan node_{RoundProfile(), policy_};
};

TEST_F(NodePlanTest, OneSessionHasThePlannersPlanInWholeTiles) {
  PassDescription description = Matrices(1, 2);
  description.pass.hbm_budget_bytes = 1200;
  const PassPlan plan = *Plan(RoundProfile(), description.pass);
  EXPECT_THAT(Describe(description, 0), ElementsAre(1));
  const NodePassPlan& in_force = *node_.Find(1);
  EXPECT_EQ(in_force.version, 1u);
  EXPECT_EQ(in_force.moved_bytes, 0u);
  EXPECT_THAT(in_force.remote_rows, ElementsAre(40, 40));
  EXPECT_EQ(in_force.plan.remote_bytes, 800u);
  EXPECT_NEAR(in_force.plan.predicted_s, plan.predicted_s, 1e-9);
  EXPECT_EQ(in_force.plan.uniform_s, plan.uniform_s);
  EXPECT_EQ(node_.next_replan_s(), kForever);
}

TEST_F(NodePlanTest, SamePassAgainChangesNothing) {
  Describe(Matrices(1, 3), 0);
  for (int i = 1; i < 10; ++i) EXPECT_THAT(Describe(Matrices(1, 3), i), IsEmpty());
  EXPECT_EQ(Version(1), 1u);
}

// HBM for 20 matrices. The first session has all of it, but computes for so long that half of its transfers hide; then
// a second one comes that is bound by memory.
TEST_F(NodePlanTest, ASessionThatComesGetsItsShareInBoundedSteps) {
  SetHbm(20'000);
  Describe(Matrices(1, 20, 400), 0);
  EXPECT_EQ(RemoteRows(1), 0u);
  double now_s = 10;
  EXPECT_THAT(Describe(Matrices(2, 20), now_s), UnorderedElementsAre(1, 2));
  EXPECT_EQ(node_.Find(1)->moved_bytes, policy_.max_move_bytes);
  EXPECT_EQ(node_.Find(2)->moved_bytes, 0u);
  int steps = 0;
  for (; steps < 1000 && node_.next_replan_s() < kForever; ++steps) {
    uint64_t hbm_bytes = 0;
    for (const uint64_t id : {1, 2}) hbm_bytes += (2000 - RemoteRows(id)) * 10;
    EXPECT_LE(hbm_bytes, 20'000u) << "after " << steps << " steps";
    for (const uint64_t id : {1, 2}) EXPECT_LE(node_.Find(id)->moved_bytes, policy_.max_move_bytes);
    now_s = node_.next_replan_s();
    Replan(now_s);
  }
  EXPECT_GT(steps, 40);
  EXPECT_GT(RemoteRows(1), 900u);
  double now_sum_s = 0;
  double target_sum_s = 0;
  for (const uint64_t id : {1, 2}) {
    now_sum_s += node_.Find(id)->plan.predicted_s;
    target_sum_s += node_.Find(id)->target_s;
  }
  EXPECT_LT(now_sum_s, target_sum_s / (1 - 2 * policy_.min_gain));
}

// A byte on the link costs the same, whosever it is: nobody gives up HBM where nothing is won by it.
TEST_F(NodePlanTest, ASessionThatComesLeavesOthersAloneWhereNothingIsWon) {
  SetHbm(20'000);
  Describe(Matrices(1, 20), 0);
  EXPECT_EQ(RemoteRows(1), 400u);  // the sweet spot of 20 %, although all would fit
  EXPECT_THAT(Describe(Matrices(2, 20), 10), ElementsAre(2));
  EXPECT_EQ(RemoteRows(1) + RemoteRows(2), 2000u);
}

TEST_F(NodePlanTest, WhatASessionLeavesGoesToTheOthers) {
  SetHbm(20'000);
  double now_s = 0;
  Describe(Matrices(1, 20), now_s);
  Describe(Matrices(2, 20), now_s);
  Settle(&now_s);
  const uint64_t version = Version(2);
  EXPECT_TRUE(node_.Remove(1));
  EXPECT_FALSE(node_.Remove(1));
  EXPECT_EQ(node_.Find(1), nullptr);
  now_s += 5;
  EXPECT_THAT(Replan(now_s), ElementsAre(2));
  EXPECT_EQ(Version(2), version + 1);
  EXPECT_EQ(node_.Find(2)->moved_bytes, policy_.max_move_bytes);
  Settle(&now_s);
  EXPECT_NEAR(static_cast<double>(RemoteRows(2)), 400, 60);
}

TEST_F(NodePlanTest, WeightsDivideTheLink) {
  SetHbm(10'000);
  double now_s = 0;
  Describe(Matrices(1, 10, 0, 300), now_s);
  Describe(Matrices(2, 10, 0, 100), now_s);
  Settle(&now_s);
  EXPECT_LT(node_.Find(1)->plan.predicted_s, node_.Find(2)->plan.predicted_s);
}

// Compute-bound operations hide transfers that memory-bound ones can't.
TEST_F(NodePlanTest, AnotherBatchMovesRowsOnlyIfItIsWorthIt) {
  PassDescription description = Matrices(1, 10);
  description.pass.hbm_budget_bytes = 5000;
  double now_s = 0;
  Describe(description, now_s);
  EXPECT_EQ(RemoteRows(1), 500u);
  // The same for all operations: nothing to gain by moving, but the time is another.
  PassDescription all = description;
  for (Operation& operation : all.pass.operations) operation.flops = 300;
  EXPECT_THAT(Describe(all, 1), IsEmpty());
  EXPECT_EQ(Version(1), 1u);
  EXPECT_NEAR(node_.Find(1)->plan.predicted_s, 300, 1e-9);
  // Half of them bound by compute: those take the others' remote rows.
  PassDescription half = description;
  for (size_t i = 0; i < 5; ++i) half.pass.operations[i].flops = 300;
  EXPECT_THAT(Describe(half, 2), ElementsAre(1));
  EXPECT_EQ(node_.Find(1)->moved_bytes, policy_.max_move_bytes);
  now_s = 2;
  EXPECT_GT(Settle(&now_s), 5);
  EXPECT_NEAR(node_.Find(1)->plan.predicted_s, node_.Find(1)->target_s, 0.03 * node_.Find(1)->plan.predicted_s);
}

// Two batches in turn, faster than min_interval_s or hardly different: the plan stays.
TEST_F(NodePlanTest, FlappingMovesNothing) {
  PassDescription one = Matrices(1, 10);
  one.pass.hbm_budget_bytes = 5000;
  PassDescription other = one;
  for (size_t i = 0; i < 5; ++i) other.pass.operations[i].flops = 103;  // 3 % above HBM's time
  Describe(one, 0);
  for (int i = 1; i < 100; ++i) EXPECT_THAT(Describe(i % 2 == 0 ? one : other, i * 10), IsEmpty()) << i;
  for (size_t i = 0; i < 5; ++i) other.pass.operations[i].flops = 300;
  uint64_t moved_bytes = 0;
  for (int i = 0; i < 100; ++i) {
    if (!Describe(i % 2 == 0 ? other : one, 2000 + i * 0.02).empty()) moved_bytes += node_.Find(1)->moved_bytes;
  }
  EXPECT_LE(moved_bytes, 3 * policy_.max_move_bytes) << "in two seconds";
}

TEST_F(NodePlanTest, SessionsThatComeAndGoDontMakeOthersFlap) {
  SetHbm(20'000);
  double now_s = 0;
  Describe(Matrices(1, 20, 400), now_s);  // has something to give up
  const uint64_t versions = Version(1);
  uint64_t moved_bytes = 0;
  for (int i = 0; i < 50; ++i) {  // ten times a second
    for (const uint64_t id : Describe(Matrices(2, 20), now_s += 0.1)) {
      if (id == 1) moved_bytes += node_.Find(1)->moved_bytes;
    }
    node_.Remove(2);
    for (const uint64_t id : Replan(now_s += 0.1)) {
      if (id == 1) moved_bytes += node_.Find(1)->moved_bytes;
    }
  }
  EXPECT_GT(moved_bytes, 0u);
  EXPECT_LE(Version(1) - versions, 11u) << "in ten seconds";
  EXPECT_LE(moved_bytes, 11 * policy_.max_move_bytes);
}

TEST_F(NodePlanTest, ASmallerQuotaIsForced) {
  Describe(Matrices(1, 10), 0);
  node_.SetLimit(1, 3000);
  double now_s = 0.1;  // also within min_interval_s
  EXPECT_THAT(Replan(now_s), ElementsAre(1));
  Settle(&now_s);
  EXPECT_LE((1000 - RemoteRows(1)) * 10, 3000u);
}

// What a cache had in HBM stays there; what is new is remote until steps of bounded size have brought it in.
TEST_F(NodePlanTest, AGrowingCacheMovesABoundedNumberOfBytes) {
  Describe(Matrices(1, 2), 0);
  EXPECT_THAT(node_.Find(1)->remote_rows, ElementsAre(20, 20));
  PassDescription grown = Matrices(1, 2);
  grown.pass.operations[1].bytes = 2000;
  grown.splits[1].rows = 200;
  EXPECT_THAT(Describe(grown, 1), ElementsAre(1));
  EXPECT_EQ(Version(1), 2u);
  EXPECT_EQ(node_.Find(1)->moved_bytes, policy_.max_move_bytes);
  EXPECT_THAT(node_.Find(1)->remote_rows, ElementsAre(20, 100));  // 120, less the 20 that the step has moved
  double now_s = 1;
  Settle(&now_s);
  EXPECT_THAT(node_.Find(1)->remote_rows, ElementsAre(20, 40));
  // Shorter again, to where less is left than HBM had.
  EXPECT_THAT(Describe(Matrices(1, 2), 100), ElementsAre(1));
  EXPECT_LE(node_.Find(1)->moved_bytes, policy_.max_move_bytes);
}

TEST_F(NodePlanTest, AGrowingCacheKeepsItsBoundsAndWholeTiles) {
  PassDescription description = Matrices(1, 1);
  description.pass.operations[0].max_ratio = 0.25;
  Describe(description, 0);
  description.pass.operations[0].bytes = 2020;
  description.splits[0].rows = 202;
  Describe(description, 1);
  const uint64_t rows = node_.Find(1)->remote_rows[0];
  EXPECT_LE(static_cast<double>(rows), 0.25 * 202 + 5);
  EXPECT_EQ(rows % 5, 0u);
}

TEST_F(NodePlanTest, OtherTensorsStartAnewAndTheVersionGoesOn) {
  Describe(Matrices(1, 2), 0);
  EXPECT_THAT(Describe(Matrices(1, 3), 1), ElementsAre(1));
  EXPECT_EQ(Version(1), 2u);
  EXPECT_EQ(node_.Find(1)->moved_bytes, 0u);
  EXPECT_THAT(node_.Find(1)->remote_rows, ElementsAre(20, 20, 20));
}

TEST_F(NodePlanTest, WhatFitsInNoWayChangesNothing) {
  SetHbm(10'000);
  PassDescription stubborn = Matrices(1, 8);
  for (Operation& operation : stubborn.pass.operations) operation.max_ratio = 0;
  Describe(stubborn, 0);
  PassDescription second = stubborn;
  second.pass.session_id = 2;
  const auto refused = node_.Describe(second, kUnlimitedBytes, 1);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(refused.status()).shortfall_bytes, 6000u);
  EXPECT_EQ(node_.Find(2), nullptr);
  EXPECT_EQ(Version(1), 1u);
  SetHbm(5'000);  // the pool shrank: what is in force stays, and it is no hurry to try again
  EXPECT_EQ(node_.Replan(2).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Version(1), 1u);
  EXPECT_EQ(node_.next_replan_s(), kForever);
}

// Half of each operation would be on the host, by the plan, and fill it to the byte: a tensor has one remote tier.
TEST_F(NodePlanTest, ATierIsGivenNoMoreThanItHolds) {
  Profile profile = RoundProfile();
  profile.remote_tiers = {{.name = "host"}, {.name = "cxl", .bytes_per_s = 5}};
  NodePlan node(profile, policy_);
  node.SetCapacities(0, {2'500, kUnlimitedBytes});
  const auto on_host = [&] {
    uint64_t bytes = 0;
    for (uint64_t id = 1; id <= 3; ++id) {
      const NodePassPlan* plan = node.Find(id);
      for (size_t i = 0; plan != nullptr && i < plan->remote_rows.size(); ++i) {
        if (plan->tiers[i] == 0) bytes += plan->remote_rows[i] * 10;
        EXPECT_EQ(plan->plan.operations[i].tier_ratios[plan->tiers[i]], 1) << id;
      }
    }
    return bytes;
  };
  for (uint64_t id = 1; id <= 3; ++id) {
    ASSERT_TRUE(node.Describe(Matrices(id, 4), kUnlimitedBytes, static_cast<double>(id)).ok());
    EXPECT_LE(on_host(), 2'500u) << id;
  }
  EXPECT_GE(on_host(), 2'000u);  // and is used as far as whole operations go
  node.Remove(1);
  ASSERT_TRUE(node.Replan(10).ok());
  ASSERT_TRUE(node.Describe(Matrices(1, 2), kUnlimitedBytes, 11).ok());
  EXPECT_LE(on_host(), 2'500u);
}

TEST_F(NodePlanTest, BadDescriptionsAreNamed) {
  PassDescription short_splits = Matrices(1, 2);
  short_splits.splits.pop_back();
  EXPECT_EQ(DetailOf(node_.Describe(short_splits, kUnlimitedBytes, 0).status()).field, "splits");
  PassDescription odd = Matrices(1, 2);
  odd.splits[1].rows = 99;
  EXPECT_EQ(DetailOf(node_.Describe(odd, kUnlimitedBytes, 0).status()).field, "operations[1].rows");
  PassDescription flops = Matrices(1, 2);
  flops.pass.operations[0].flops = -1;
  EXPECT_EQ(DetailOf(node_.Describe(flops, kUnlimitedBytes, 0).status()).field, "operations[0].flops");
  EXPECT_TRUE(node_.empty());
}

// Random sessions that come, change and go, in random steps of time: HBM in force never passes the capacity, no step
// moves more than it may, every version is the one before or the next, and in the end all is near the optimum.
TEST(NodePlanRandomTest, KeepsItsPromises) {
  std::mt19937_64 random(1);
  const auto below = [&](uint64_t n) { return std::uniform_int_distribution<uint64_t>(0, n - 1)(random); };
  for (int round = 0; round < 40; ++round) {
    const ReplanPolicy policy = {.min_gain = 0.02, .payback_s = 1e6, .min_interval_s = 1, .max_move_bytes = 400};
    NodePlan node(RoundProfile(), policy);
    const uint64_t hbm_bytes = 2000 + below(20'000);
    node.SetCapacities(hbm_bytes, {kUnlimitedBytes});
    std::map<uint64_t, uint64_t> versions;
    double now_s = 0;
    const auto check = [&](uint64_t placed_anew) {
      uint64_t in_hbm = 0;
      for (auto& [id, version] : versions) {
        const NodePassPlan* plan = node.Find(id);
        ASSERT_NE(plan, nullptr);
        for (const uint64_t rows : plan->remote_rows) in_hbm += (100 - rows) * 10;
        EXPECT_TRUE(plan->version == version || plan->version == version + 1);
        if (plan->version != version && id != placed_anew) {
          EXPECT_LE(plan->moved_bytes, policy.max_move_bytes);
        }
        version = plan->version;
      }
      EXPECT_LE(in_hbm, hbm_bytes);
    };
    for (int step = 0; step < 60; ++step) {
      now_s += static_cast<double>(below(30)) / 10;
      const uint64_t id = 1 + below(5);
      if (below(3) == 0 && versions.erase(id) > 0) {
        node.Remove(id);
        ASSERT_TRUE(node.Replan(now_s).ok());
      } else {
        PassDescription description = Matrices(id, 1 + below(8), static_cast<double>(below(400)), 1.0 + below(5));
        ASSERT_TRUE(node.Describe(description, kUnlimitedBytes, now_s).ok());
        versions.emplace(id, node.Find(id)->version - 1);
      }
      check(id);
      ASSERT_FALSE(testing::Test::HasFailure()) << "round " << round << ", step " << step;
    }
    for (int i = 0; node.next_replan_s() < kForever; ++i) {
      ASSERT_LT(i, 2000) << "it doesn't come to rest";
      ASSERT_TRUE(node.Replan(node.next_replan_s()).ok());
      check(0);
    }
  }
}

}  // namespace
}  // namespace dak::planner

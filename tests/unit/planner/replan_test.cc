// When a session moves to a new plan, what moves, and that it stops.
#include "daemon/planner/replan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "allocator/base/error_detail.h"
#include "gtest/gtest.h"
#include "tests/unit/planner/test_profiles.h"

namespace dak::planner {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

PlacedOperation Placed(uint64_t remote_rows, uint64_t target_rows, double flops = 0) {
  PlacedOperation placed;
  placed.operation = MakeOperation(1000, flops);
  placed.split = {.rows = 100, .tile_rows = 10, .row_bytes = 10};
  placed.remote_rows = remote_rows;
  placed.target_rows = target_rows;
  return placed;
}

ReplanPolicy Eager() { return {.min_gain = 0, .payback_s = kNever, .min_interval_s = 0}; }

ReplanDecision MustDecide(const std::vector<PlacedOperation>& operations, uint64_t hbm_budget_bytes,
                          const ReplanPolicy& policy, double since_last_s = kNever) {
  const auto decision = DecideReplan(RoundProfile(), operations, hbm_budget_bytes, since_last_s, policy);
  EXPECT_TRUE(decision.ok()) << decision.status();
  return decision.ok() ? *decision : ReplanDecision{};
}

TEST(ReplanTest, MovesTheRowsBetweenTheTwoBoundaries) {
  const ReplanDecision down = MustDecide({Placed(50, 20)}, 1000, Eager());
  EXPECT_EQ(down.reason, ReplanReason::kWorthIt);
  ASSERT_EQ(down.moves.size(), 1u);
  EXPECT_FALSE(down.moves[0].to_remote);
  EXPECT_EQ(down.moves[0].first_row, 50u);  // remote were rows 50 to 99
  EXPECT_EQ(down.moves[0].rows, 30u);
  EXPECT_EQ(down.moved_bytes, 300u);
  EXPECT_DOUBLE_EQ(down.now_s, 20);
  EXPECT_DOUBLE_EQ(down.after_s, 8);
  const ReplanDecision up = MustDecide({Placed(0, 20)}, 1000, Eager());
  ASSERT_EQ(up.moves.size(), 1u);
  EXPECT_TRUE(up.moves[0].to_remote);
  EXPECT_EQ(up.moves[0].first_row, 80u);
  EXPECT_EQ(up.moves[0].rows, 20u);
}

TEST(ReplanTest, StaysForASmallGain) {
  const std::vector<PlacedOperation> operations = {Placed(30, 20)};  // 12 s to 8 s
  ReplanPolicy policy = Eager();
  policy.min_gain = 0.34;
  const ReplanDecision stays = MustDecide(operations, 1000, policy);
  EXPECT_EQ(stays.reason, ReplanReason::kSmallGain);
  EXPECT_TRUE(stays.moves.empty());
  EXPECT_EQ(stays.after_s, stays.now_s);
  policy.min_gain = 0.33;
  EXPECT_EQ(MustDecide(operations, 1000, policy).reason, ReplanReason::kWorthIt);
}

TEST(ReplanTest, StaysWhenCopiesDontPay) {
  // 100 bytes at 25 bytes/s cost 4 s; a third of the time is gained, so 12 s of passes pay for them.
  ReplanPolicy policy = Eager();
  policy.payback_s = 11.9;
  EXPECT_EQ(MustDecide({Placed(30, 20)}, 1000, policy).reason, ReplanReason::kTooDear);
  policy.payback_s = 12.1;
  EXPECT_EQ(MustDecide({Placed(30, 20)}, 1000, policy).reason, ReplanReason::kWorthIt);
}

TEST(ReplanTest, StaysTooSoonAfterTheLastStep) {
  ReplanPolicy policy = Eager();
  policy.min_interval_s = 5;
  EXPECT_EQ(MustDecide({Placed(30, 20)}, 1000, policy, 4.9).reason, ReplanReason::kTooSoon);
  EXPECT_EQ(MustDecide({Placed(30, 20)}, 1000, policy, 5).reason, ReplanReason::kWorthIt);
}

TEST(ReplanTest, MovesAtOnceWhenOverBudgetWhateverItCosts) {
  ReplanPolicy policy = {.min_gain = 1, .payback_s = 0, .min_interval_s = 100};
  const ReplanDecision decision = MustDecide({Placed(20, 60)}, 400, policy, 0);
  EXPECT_EQ(decision.reason, ReplanReason::kOverBudget);
  EXPECT_EQ(decision.moved_bytes, 400u);
  EXPECT_GT(decision.after_s, decision.now_s);
}

TEST(ReplanTest, MakesRoomBeforeItFillsIt) {
  // The compute-bound operation hides up to 50 rows of its own; the other is better off in HBM.
  const ReplanDecision decision = MustDecide({Placed(60, 20), Placed(0, 40, 200)}, 1400, Eager());
  ASSERT_EQ(decision.moves.size(), 2u);
  EXPECT_TRUE(decision.moves[0].to_remote);
  EXPECT_EQ(decision.moves[0].operation, 1u);
  EXPECT_FALSE(decision.moves[1].to_remote);
  EXPECT_DOUBLE_EQ(decision.after_s, 8 + 20);
}

TEST(ReplanTest, StepStaysWithinItsBytesAndStillGains) {
  ReplanPolicy policy = Eager();
  policy.max_move_bytes = 400;
  const ReplanDecision decision = MustDecide({Placed(60, 20), Placed(0, 40, 200)}, 1400, policy);
  EXPECT_EQ(decision.moved_bytes, 400u);
  EXPECT_LT(decision.after_s, decision.now_s);
  EXPECT_GT(decision.after_s, decision.target_s);
}

TEST(ReplanTest, AtTheTargetNothingMoves) {
  EXPECT_EQ(MustDecide({Placed(20, 20), Placed(40, 40, 200)}, 1400, Eager()).reason, ReplanReason::kSmallGain);
}

TEST(ReplanTest, TierOfTheOperationCounts) {
  Profile profile = RoundProfile();
  profile.remote_tiers = {{.name = "host"}, {.name = "cxl", .bytes_per_s = 5}};
  PlacedOperation placed = Placed(40, 0);
  placed.tier = 1;
  EXPECT_DOUBLE_EQ(DecideReplan(profile, absl::MakeConstSpan(&placed, 1), 1000, kNever, Eager())->now_s, 80);
}

TEST(ReplanTest, NamesFieldsThatAreWrong) {
  const auto field = [](const PlacedOperation& placed, const ReplanPolicy& policy, uint64_t budget = 1000) {
    return DetailOf(DecideReplan(RoundProfile(), absl::MakeConstSpan(&placed, 1), budget, kNever, policy).status())
        .field;
  };
  PlacedOperation placed = Placed(20, 40);
  placed.tier = 1;
  EXPECT_EQ(field(placed, Eager()), "operations[0].tier");
  EXPECT_EQ(field(Placed(101, 40), Eager()), "operations[0].remote_rows");
  EXPECT_EQ(field(Placed(20, 101), Eager()), "operations[0].target_rows");
  placed = Placed(20, 40);
  placed.split.tile_rows = 0;
  EXPECT_EQ(field(placed, Eager()), "operations[0].split.tile_rows");
  placed = Placed(20, 40);
  placed.split.row_bytes = 0;
  EXPECT_EQ(field(placed, Eager()), "operations[0].split.row_bytes");
  placed.split.row_bytes = kMaxOperationBytes;
  EXPECT_EQ(field(placed, Eager()), "operations[0].split.rows");
  EXPECT_EQ(field(Placed(20, 40), Eager(), 599), "hbm_budget_bytes");
  EXPECT_EQ(field(Placed(20, 40), {.min_gain = -1}), "policy.min_gain");
  EXPECT_EQ(field(Placed(20, 40), {.payback_s = std::nan("")}), "policy.payback_s");
  EXPECT_EQ(field(Placed(20, 40), {.min_interval_s = -1}), "policy.min_interval_s");
  EXPECT_EQ(field(Placed(20, 40), {.max_move_bytes = 399}), "policy.max_move_bytes");
}

// A session of random matrices: from any placement to the plan for its budget, in bounded steps.
class Session {
 public:
  explicit Session(uint64_t seed) : random_(seed) {
    const size_t count = 1 + Below(8);
    for (size_t i = 0; i < count; ++i) {
      PlacedOperation placed;
      placed.split = {.rows = 1 + Below(300), .tile_rows = 1 + Below(64), .row_bytes = 1 + Below(50)};
      const uint64_t bytes = placed.split.rows * placed.split.row_bytes;
      placed.operation = MakeOperation(bytes, static_cast<double>(Below(3) * bytes) / 10);
      operations_.push_back(placed);
      total_bytes_ += bytes;
    }
    for (PlacedOperation& placed : operations_)
      placed.remote_rows = InTiles(placed.split, Below(placed.split.rows + 1));
  }

  void SetBudget(uint64_t bytes) {
    budget_bytes_ = bytes;
    Pass pass;
    pass.hbm_budget_bytes = bytes;
    std::vector<RowSplit> splits;
    for (const PlacedOperation& placed : operations_) {
      pass.operations.push_back(placed.operation);
      splits.push_back(placed.split);
    }
    const absl::StatusOr<PassPlan> plan = Plan(RoundProfile(), pass);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const absl::StatusOr<std::vector<uint64_t>> rows = RoundToTiles(*plan, splits, bytes);
    ASSERT_TRUE(rows.ok()) << rows.status();
    for (size_t i = 0; i < rows->size(); ++i) operations_[i].target_rows = (*rows)[i];
  }

  uint64_t HbmBytes() const {
    uint64_t bytes = 0;
    for (const PlacedOperation& placed : operations_) {
      bytes += (placed.split.rows - placed.remote_rows) * placed.split.row_bytes;
    }
    return bytes;
  }

  // Applies the moves one by one and checks each.
  void Apply(const ReplanDecision& decision) {
    const uint64_t most_bytes = std::max(HbmBytes(), budget_bytes_);
    for (const RowMove& move : decision.moves) {
      PlacedOperation& placed = operations_[move.operation];
      const uint64_t boundary = placed.split.rows - placed.remote_rows;
      EXPECT_GT(move.rows, 0u);
      EXPECT_EQ(move.bytes, move.rows * placed.split.row_bytes);
      EXPECT_EQ(move.to_remote ? move.first_row + move.rows : move.first_row, boundary);
      placed.remote_rows = move.to_remote ? placed.remote_rows + move.rows : placed.remote_rows - move.rows;
      ASSERT_LE(placed.remote_rows, placed.split.rows);
      EXPECT_LE(HbmBytes(), most_bytes);
    }
  }

  uint64_t Below(uint64_t n) { return std::uniform_int_distribution<uint64_t>(0, n - 1)(random_); }
  static uint64_t InTiles(const RowSplit& split, uint64_t rows) {
    return rows == split.rows ? rows : rows / split.tile_rows * split.tile_rows;
  }
  uint64_t LargestTileBytes() const {
    uint64_t bytes = 0;
    for (const PlacedOperation& placed : operations_) {
      bytes = std::max(bytes, std::min(placed.split.rows, placed.split.tile_rows) * placed.split.row_bytes);
    }
    return bytes;
  }

  std::mt19937_64 random_;
  std::vector<PlacedOperation> operations_;
  uint64_t total_bytes_ = 0;
  uint64_t budget_bytes_ = 0;
};

void WalkToTheTarget(Session& session, const ReplanPolicy& policy) {
  for (int step = 0; step < 10'000; ++step) {
    const ReplanDecision decision = MustDecide(session.operations_, session.budget_bytes_, policy);
    EXPECT_LE(decision.moved_bytes, policy.max_move_bytes);
    session.Apply(decision);
    if (decision.reason == ReplanReason::kOverBudget) {
      EXPECT_FALSE(decision.moves.empty());
    } else if (decision.reason == ReplanReason::kWorthIt) {
      ASSERT_FALSE(decision.moves.empty());
      EXPECT_LT(decision.after_s, decision.now_s);
    } else {
      EXPECT_EQ(decision.reason, ReplanReason::kSmallGain);
      EXPECT_LE(decision.now_s - decision.target_s, policy.min_gain * decision.now_s);
      EXPECT_LE(session.HbmBytes(), session.budget_bytes_);
      return;
    }
    ASSERT_FALSE(testing::Test::HasFailure()) << "step " << step;
  }
  ADD_FAILURE() << "it never stops moving";
}

TEST(ReplanTest, BoundedStepsEndNearTheOptimumAndNeverBreakTheBudget) {
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    Session session(seed);
    ReplanPolicy policy = Eager();
    policy.min_gain = seed % 2 == 0 ? 0.01 : 0.1;
    policy.max_move_bytes = session.LargestTileBytes() * (4 + session.Below(20));
    for (int change = 0; change < 3; ++change) {
      session.SetBudget(session.Below(session.total_bytes_ + 1));
      WalkToTheTarget(session, policy);
      ASSERT_FALSE(testing::Test::HasFailure()) << "seed " << seed << " change " << change;
    }
  }
}

TEST(ReplanTest, BudgetThatFlutters) {
  // Back and forth by less than a tile's worth of time: after the first step nothing moves any more.
  Session session(7);
  ReplanPolicy policy = Eager();
  policy.min_gain = 0.1;
  const uint64_t low = session.total_bytes_ / 2;
  session.SetBudget(low);
  WalkToTheTarget(session, policy);
  for (int i = 0; i < 10; ++i) {
    session.SetBudget(low + (i % 2 == 0 ? session.total_bytes_ / 50 : 0));
    EXPECT_TRUE(MustDecide(session.operations_, session.budget_bytes_, policy).moves.empty());
  }
}

}  // namespace
}  // namespace dak::planner

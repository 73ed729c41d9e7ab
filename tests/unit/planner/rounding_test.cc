// RoundToTiles, against trying every choice on small cases.
#include <algorithm>
#include <limits>
#include <random>

#include "allocator/base/error_detail.h"
#include "daemon/planner/planner.h"
#include "gtest/gtest.h"

namespace dak::planner {
namespace {

PassPlan PlanOf(const std::vector<double>& ratios) {
  PassPlan plan;
  for (double ratio : ratios) plan.operations.push_back({.ratio = ratio, .tier_ratios = {ratio}, .predicted_s = 0});
  return plan;
}

uint64_t Total(const std::vector<RowSplit>& splits) {
  uint64_t bytes = 0;
  for (const RowSplit& split : splits) bytes += split.rows * split.row_bytes;
  return bytes;
}

std::vector<uint64_t> MustRound(const PassPlan& plan, const std::vector<RowSplit>& splits, uint64_t budget_bytes) {
  const auto rows = RoundToTiles(plan, splits, budget_bytes);
  EXPECT_TRUE(rows.ok()) << rows.status();
  return rows.ok() ? *rows : std::vector<uint64_t>(splits.size());
}

TEST(RoundToTilesTest, WholeTilesStayAsTheyAre) {
  const std::vector<RowSplit> splits(3, {.rows = 640, .tile_rows = 64, .row_bytes = 100});
  EXPECT_EQ(MustRound(PlanOf({0, 0.1, 1}), splits, 64000 * 3 - 6400 - 64000), (std::vector<uint64_t>{0, 64, 640}));
}

TEST(RoundToTilesTest, RoundsUpOnlyAsManyAsTheBudgetNeeds) {
  // Half a tile each, four of them: two tiles are needed.
  const std::vector<RowSplit> splits(4, {.rows = 640, .tile_rows = 64, .row_bytes = 100});
  const std::vector<uint64_t> rows = MustRound(PlanOf({0.05, 0.05, 0.05, 0.05}), splits, 4 * 64000 - 12800);
  EXPECT_EQ(std::count(rows.begin(), rows.end(), 64u), 2);
  EXPECT_EQ(std::count(rows.begin(), rows.end(), 0u), 2);
}

TEST(RoundToTilesTest, LastTileMayBeShort) {
  const std::vector<RowSplit> splits = {{.rows = 100, .tile_rows = 64, .row_bytes = 10}};
  EXPECT_EQ(MustRound(PlanOf({0.5}), splits, 500), (std::vector<uint64_t>{64}));
  EXPECT_EQ(MustRound(PlanOf({0.7}), splits, 300), (std::vector<uint64_t>{100}));
}

TEST(RoundToTilesTest, TakesTheMatrixThatIsClosestToATileAmongEqualSizes) {
  const std::vector<RowSplit> splits(2, {.rows = 640, .tile_rows = 64, .row_bytes = 1});
  EXPECT_EQ(MustRound(PlanOf({0.02, 0.08}), splits, 1280 - 64), (std::vector<uint64_t>{0, 64}));
}

TEST(RoundToTilesTest, RoundingsOfThePlanDontCostATile) {
  const std::vector<RowSplit> splits = {{.rows = 6400, .tile_rows = 64, .row_bytes = 100}};
  EXPECT_EQ(MustRound(PlanOf({0.03 + 1e-15}), splits, 640000 - 19200), (std::vector<uint64_t>{192}));
  EXPECT_EQ(MustRound(PlanOf({0.03 - 1e-15}), splits, 640000 - 19200), (std::vector<uint64_t>{192}));
}

TEST(RoundToTilesTest, MatrixWithoutRowsIsLeftOut) {
  EXPECT_EQ(MustRound(PlanOf({0.5, 1}), {{.rows = 0}, {.rows = 7, .tile_rows = 64, .row_bytes = 1}}, 0),
            (std::vector<uint64_t>{0, 7}));
}

TEST(RoundToTilesTest, RefusesAPlanMadeForALargerBudget) {
  const absl::Status status =
      RoundToTiles(PlanOf({0.05}), {{.rows = 640, .tile_rows = 64, .row_bytes = 100}}, 64000 - 6500).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(status).field, "hbm_budget_bytes");
  EXPECT_EQ(DetailOf(status).shortfall_bytes, 100u);
}

TEST(RoundToTilesTest, NamesFieldsThatAreWrong) {
  const PassPlan plan = PlanOf({0.5});
  const auto field = [&plan](const std::vector<RowSplit>& splits) {
    return DetailOf(RoundToTiles(plan, splits, 0).status()).field;
  };
  EXPECT_EQ(field({}), "splits");
  EXPECT_EQ(field({{.rows = 1, .tile_rows = 0, .row_bytes = 1}}), "splits[0].tile_rows");
  EXPECT_EQ(field({{.rows = 1, .tile_rows = 1, .row_bytes = 0}}), "splits[0].row_bytes");
  EXPECT_EQ(field({{.rows = kMaxOperationBytes, .tile_rows = 1, .row_bytes = 2}}), "splits[0].rows");
}

// Every way to round each matrix down or up; the fewest remote bytes that are at least `needed`.
uint64_t FewestRemoteBytes(const PassPlan& plan, const std::vector<RowSplit>& splits, double needed) {
  uint64_t best = std::numeric_limits<uint64_t>::max();
  for (uint64_t choice = 0; choice < uint64_t{1} << splits.size(); ++choice) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < splits.size(); ++i) {
      const double rows = plan.operations[i].ratio * static_cast<double>(splits[i].rows);
      uint64_t tiles = static_cast<uint64_t>(rows / static_cast<double>(splits[i].tile_rows));
      const bool whole = rows == static_cast<double>(tiles * splits[i].tile_rows);
      const bool all = plan.operations[i].ratio == 1;
      if (all || (!whole && (choice >> i & 1) != 0)) ++tiles;
      bytes += std::min(tiles * splits[i].tile_rows, splits[i].rows) * splits[i].row_bytes;
    }
    if (static_cast<double>(bytes) >= needed) best = std::min(best, bytes);
  }
  return best;
}

struct SmallCase {
  std::vector<RowSplit> splits;
  std::vector<double> ratios;
  double planned_bytes = 0;
};

// Ratios are multiples of 1/1024 of the rows' power of two, so that products are exact.
SmallCase MakeSmallCase(std::mt19937_64& random, bool few_sizes) {
  const auto below = [&random](uint64_t n) { return std::uniform_int_distribution<uint64_t>(0, n - 1)(random); };
  SmallCase small;
  const size_t count = 1 + below(10);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t row_bytes = few_sizes ? 64 * (1 + below(2)) : 1 + below(1000);
    small.splits.push_back({.rows = 1024, .tile_rows = few_sizes ? 64 : 1 + below(200), .row_bytes = row_bytes});
    small.ratios.push_back(static_cast<double>(below(1025)) / 1024);
    small.planned_bytes += small.ratios[i] * 1024 * static_cast<double>(row_bytes);
  }
  return small;
}

void CompareWithBruteForce(uint64_t seed, bool few_sizes) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < 2000; ++i) {
    const SmallCase small = MakeSmallCase(random, few_sizes);
    const uint64_t total = Total(small.splits);
    // Exactly what the plan leaves, or more than that.
    const uint64_t budget = total - static_cast<uint64_t>(small.planned_bytes) + (i % 3 == 0 ? total / 7 : 0);
    const PassPlan plan = PlanOf(small.ratios);
    const std::vector<uint64_t> rows = MustRound(plan, small.splits, budget);
    uint64_t remote = 0;
    for (size_t m = 0; m < rows.size(); ++m) {
      const RowSplit& split = small.splits[m];
      remote += rows[m] * split.row_bytes;
      EXPECT_TRUE(rows[m] == split.rows || rows[m] % split.tile_rows == 0);
      EXPECT_LT(std::abs(static_cast<double>(rows[m]) - small.ratios[m] * 1024), static_cast<double>(split.tile_rows));
    }
    EXPECT_LE(total - remote, budget) << "case " << i;
    EXPECT_EQ(remote, FewestRemoteBytes(plan, small.splits, small.planned_bytes)) << "case " << i;
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

TEST(RoundToTilesTest, IsTheFewestBytesOfAllChoicesWithTheSizesOfAModel) { CompareWithBruteForce(1, true); }

// Up to ten sizes are still few enough to be tried.
TEST(RoundToTilesTest, IsTheFewestBytesOfAllChoicesWithAnySizes) { CompareWithBruteForce(2, false); }

TEST(RoundToTilesTest, WithManySizesLessThanOneTileIsTooMuch) {
  std::mt19937_64 random(3);
  std::vector<RowSplit> splits;
  std::vector<double> ratios;
  double planned = 0;
  uint64_t largest_tile_bytes = 0;
  for (uint64_t i = 0; i < 500; ++i) {
    splits.push_back({.rows = 1024, .tile_rows = 32, .row_bytes = 1000 + i});
    ratios.push_back(static_cast<double>(random() % 1025) / 1024);
    planned += ratios.back() * 1024 * static_cast<double>(splits.back().row_bytes);
    largest_tile_bytes = std::max(largest_tile_bytes, 32 * splits.back().row_bytes);
  }
  const uint64_t budget = Total(splits) - static_cast<uint64_t>(planned);
  const std::vector<uint64_t> rows = MustRound(PlanOf(ratios), splits, budget);
  uint64_t remote = 0;
  for (size_t i = 0; i < rows.size(); ++i) remote += rows[i] * splits[i].row_bytes;
  EXPECT_GE(remote, Total(splits) - budget);
  EXPECT_LT(static_cast<double>(remote), planned + static_cast<double>(largest_tile_bytes));
}

}  // namespace
}  // namespace dak::planner

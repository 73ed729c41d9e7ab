// RoundToTiles and RoundToFastestTiles, against trying every choice on small cases.
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

// ---- By time ------------------------------------------------------------------------------------------------------

constexpr uint64_t kTileBytes = 6'400;  // of kSplit's tiles
constexpr RowSplit kSplit = {.rows = 640, .tile_rows = 64, .row_bytes = 100};
constexpr uint64_t kMatrixBytes = 64'000;

Profile SmallMachine() {
  Profile profile;
  profile.hbm_bytes_per_s = 1'000'000;
  profile.link_bytes_per_s = 100'000;
  profile.flops_per_s = 1'000'000;
  profile.remote_tiers = {{.name = "host"}};
  return profile;
}

Operation Product(double compute_s, uint64_t bytes = kMatrixBytes) {
  Operation operation;
  operation.bytes = bytes;
  operation.flops = compute_s * 1'000'000;
  return operation;
}

double SecondsOf(const Profile& profile, const Pass& pass, const PassPlan& plan, const std::vector<uint64_t>& rows) {
  double seconds = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const double ratio = static_cast<double>(rows[i]) / static_cast<double>(kSplit.rows);
    seconds += OperationSeconds(profile, pass.operations[i], TierRatiosAt(plan.operations[i], ratio));
  }
  return seconds;
}

TEST(RoundToFastestTilesTest, AnEdgeIsNotCrossedWhereAnotherOperationCanTakeTheTile) {
  Profile profile = SmallMachine();
  profile.batch_rates = {
      {.batch = 8, .hbm_bytes_per_s = 1'000'000, .flops_per_s = 1'000'000, .link_bytes_per_s = 100'000},
      {.batch = 512, .hbm_bytes_per_s = 1'000'000, .flops_per_s = 1'000'000, .link_bytes_per_s = 20'000}};
  // Two products hide 0.15 of themselves, one and a half tiles; the third operation is memory's alone and has the rest.
  Pass pass;
  pass.operations = {Product(0.15 * kMatrixBytes / 20'000), Product(0.15 * kMatrixBytes / 20'000), Product(0)};
  pass.operations[0].batch = pass.operations[1].batch = 512;
  pass.operations[2].batch = 8;
  pass.hbm_budget_bytes = 3 * kMatrixBytes - 6 * kTileBytes;
  const absl::StatusOr<PassPlan> plan = Plan(profile, pass);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_NEAR(plan->operations[0].ratio, 0.15, 1e-9);
  ASSERT_NEAR(plan->operations[2].ratio, 0.3, 1e-9);
  const std::vector<RowSplit> splits(3, kSplit);
  const auto rows = RoundToFastestTiles(profile, pass, *plan, splits, pass.hbm_budget_bytes);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(*rows, (std::vector<uint64_t>{64, 64, 4 * 64}));
  const std::vector<uint64_t> nearest = MustRound(*plan, splits, pass.hbm_budget_bytes);
  EXPECT_LT(SecondsOf(profile, pass, *plan, *rows), SecondsOf(profile, pass, *plan, nearest) * 0.99);
}

// The least time of all ways to add `tiles` tiles to `rows`, no operation beyond all of its rows.
double LeastSeconds(const Profile& profile, const Pass& pass, const PassPlan& plan, std::vector<uint64_t>& rows,
                    size_t from, uint64_t tiles) {
  if (tiles == 0) return SecondsOf(profile, pass, plan, rows);
  double best = std::numeric_limits<double>::infinity();
  for (size_t i = from; i < rows.size(); ++i) {
    if (rows[i] == kSplit.rows) continue;
    rows[i] += kSplit.tile_rows;
    best = std::min(best, LeastSeconds(profile, pass, plan, rows, i, tiles - 1));
    rows[i] -= kSplit.tile_rows;
  }
  return best;
}

TEST(RoundToFastestTilesTest, IsTheLeastTimeOfAllWaysToAddTiles) {
  std::mt19937_64 random(4);
  const auto upto = [&random](double most) { return std::uniform_real_distribution<double>(0, most)(random); };
  const Profile profile = SmallMachine();
  for (int i = 0; i < 500; ++i) {
    Pass pass;
    const size_t count = 1 + random() % 5;
    for (size_t op = 0; op < count; ++op) pass.operations.push_back(Product(random() % 3 == 0 ? 0 : upto(0.3)));
    const std::vector<RowSplit> splits(count, kSplit);
    pass.hbm_budget_bytes = static_cast<uint64_t>(upto(static_cast<double>(count * kMatrixBytes)));
    const absl::StatusOr<PassPlan> plan = Plan(profile, pass);
    ASSERT_TRUE(plan.ok()) << plan.status();
    const auto rows = RoundToFastestTiles(profile, pass, *plan, splits, pass.hbm_budget_bytes);
    ASSERT_TRUE(rows.ok()) << rows.status();
    std::vector<uint64_t> down;
    uint64_t added = 0;
    uint64_t remote_bytes = 0;
    for (size_t op = 0; op < count; ++op) {
      down.push_back(static_cast<uint64_t>(plan->operations[op].ratio * 10 + 1e-9) * 64);
      ASSERT_GE((*rows)[op], down[op]) << "case " << i;
      ASSERT_LE((*rows)[op], kSplit.rows);
      ASSERT_EQ((*rows)[op] % 64, 0u);
      added += ((*rows)[op] - down[op]) / 64;
      remote_bytes += (*rows)[op] * kSplit.row_bytes;
    }
    ASSERT_GE(remote_bytes + pass.hbm_budget_bytes, count * kMatrixBytes) << "case " << i;
    const uint64_t needed = std::max(count * kMatrixBytes - pass.hbm_budget_bytes, plan->remote_bytes);
    ASSERT_LT(remote_bytes, needed + kTileBytes) << "case " << i;
    ASSERT_NEAR(SecondsOf(profile, pass, *plan, *rows), LeastSeconds(profile, pass, *plan, down, 0, added), 1e-9)
        << "case " << i;
  }
}

TEST(RoundToFastestTilesTest, TakesBackWhatALargeTileMakesNeedless) {
  // Small tiles are cheaper a byte; after three of them one large tile is needed, and then none of the small ones.
  const Profile profile = SmallMachine();
  Pass pass;
  pass.operations = {Product(0, 300), Product(0, 100'000)};
  const PassPlan plan = PlanOf({0, 0.95});
  const std::vector<RowSplit> splits = {{.rows = 3, .tile_rows = 1, .row_bytes = 100},
                                        {.rows = 100, .tile_rows = 10, .row_bytes = 1'000}};
  const auto rows = RoundToFastestTiles(profile, pass, plan, splits, 100'300 - 95'000);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(*rows, (std::vector<uint64_t>{0, 100}));
}

TEST(RoundToFastestTilesTest, ObeysTheLargestRatiosAndSaysWhatIsMissing) {
  const Profile profile = SmallMachine();
  Pass pass;
  pass.operations = {Product(0), Product(0)};
  for (Operation& operation : pass.operations) operation.max_ratio = 0.2;
  const PassPlan plan = PlanOf({0.1, 0.1});
  const std::vector<RowSplit> splits(2, kSplit);
  const auto rows = RoundToFastestTiles(profile, pass, plan, splits, 2 * kMatrixBytes - 4 * kTileBytes);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(*rows, (std::vector<uint64_t>{128, 128}));
  const absl::Status status =
      RoundToFastestTiles(profile, pass, plan, splits, 2 * kMatrixBytes - 5 * kTileBytes).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(status).field, "hbm_budget_bytes");
  EXPECT_EQ(DetailOf(status).shortfall_bytes, kTileBytes);
}

TEST(RoundToFastestTilesTest, NamesFieldsThatAreWrong) {
  const PassPlan plan = PlanOf({0.5});
  Pass pass;
  const auto field = [&](const std::vector<RowSplit>& splits) {
    return DetailOf(RoundToFastestTiles(SmallMachine(), pass, plan, splits, 0).status()).field;
  };
  EXPECT_EQ(field({kSplit}), "pass.operations");
  pass.operations = {Product(0)};
  EXPECT_EQ(field({}), "splits");
  EXPECT_EQ(field({{.rows = 1, .tile_rows = 0, .row_bytes = 1}}), "splits[0].tile_rows");
}

TEST(TierRatiosAtTest, KeepsThePlansProportion) {
  const OperationPlan split = {.ratio = 0.4, .tier_ratios = {0.3, 0.1}};
  const std::vector<double> half = TierRatiosAt(split, 0.2);
  ASSERT_EQ(half.size(), 2u);
  EXPECT_DOUBLE_EQ(half[0], 0.15);
  EXPECT_DOUBLE_EQ(half[1], 0.05);
  EXPECT_EQ(TierRatiosAt({.ratio = 0, .tier_ratios = {0, 0}}, 0.25), std::vector<double>{0.25});
}

}  // namespace
}  // namespace dak::planner

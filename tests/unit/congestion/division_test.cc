#include "daemon/congestion/division.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace dak::congestion {
namespace {

constexpr Budget kBudget = {.target_bytes = 20'000, .cap_bytes = 60'000, .tile_bytes = 1'000};

std::vector<uint64_t> Windows(const std::vector<Share>& shares) {
  std::vector<uint64_t> windows;
  for (const Share& share : shares) windows.push_back(share.window_bytes);
  return windows;
}

std::vector<uint64_t> DivideAmong(const Budget& budget, std::vector<Share> shares) {
  Divide(budget, /*settle_rounding=*/true, absl::MakeSpan(shares));
  return Windows(shares);
}

using W = std::vector<uint64_t>;

TEST(DivisionTest, NobodyGetsNothing) {
  const Division division = Divide(kBudget, true, {});
  EXPECT_EQ(division.window_bytes, 0);
}

TEST(DivisionTest, SplitsTheTargetByWeight) {
  EXPECT_EQ(DivideAmong(kBudget, {{.weight = 1, .hungry = true}}), (W{20'000}));
  EXPECT_EQ(DivideAmong(kBudget, {{.weight = 3, .hungry = true}, {.weight = 1, .hungry = true}}), (W{15'000, 5'000}));
}

// Five weights that no number of tiles in reach suits.
std::vector<Share> Awkward() {
  std::vector<Share> shares;
  for (uint32_t weight : {7, 11, 13, 17, 19}) shares.push_back({.weight = weight, .hungry = true});
  return shares;
}

TEST(DivisionTest, RoundsToTilesThatAddUp) {
  EXPECT_EQ(DivideAmong(kBudget, Awkward()), (W{2'000, 3'000, 4'000, 5'000, 6'000}));
}

TEST(DivisionTest, TakesSomewhatMoreOrFewerTilesIfSharesAreThenWhole) {
  const Share equal = {.weight = 1, .hungry = true};
  EXPECT_EQ(DivideAmong(kBudget, {equal, equal, equal}), (W{7'000, 7'000, 7'000}));
  EXPECT_EQ(DivideAmong(kBudget, std::vector<Share>(9, equal)), W(9, 2'000));    // 18 tiles
  EXPECT_EQ(DivideAmong(kBudget, std::vector<Share>(14, equal)), W(14, 2'000));  // 28 tiles
  Budget tight = kBudget;
  tight.cap_bytes = 27'000;  // not 28
  const W windows = DivideAmong(tight, std::vector<Share>(14, equal));
  EXPECT_EQ(std::accumulate(windows.begin(), windows.end(), uint64_t{0}), 20'000u);
}

TEST(DivisionTest, PaysBackWhatRoundingTook) {
  std::vector<Share> shares = Awkward();
  std::vector<double> sums(shares.size());
  for (int round = 0; round < 100; ++round) {
    Divide(kBudget, true, absl::MakeSpan(shares));
    for (size_t i = 0; i < shares.size(); ++i) sums[i] += static_cast<double>(shares[i].window_bytes);
  }
  for (size_t i = 0; i < shares.size(); ++i) EXPECT_NEAR(sums[i] / 100, 20'000.0 * shares[i].weight / 67, 15);
}

TEST(DivisionTest, LeavesTheCarriesUnlessToldToSettle) {
  std::vector<Share> shares = Awkward();
  shares[0].carry_tiles = 0.25;
  Divide(kBudget, false, absl::MakeSpan(shares));
  EXPECT_EQ(shares[0].carry_tiles, 0.25);
  EXPECT_EQ(shares[1].carry_tiles, 0);
  Divide(kBudget, true, absl::MakeSpan(shares));
  EXPECT_NEAR(shares[0].carry_tiles, 20 * 7 / 67.0 + 0.25 - static_cast<double>(shares[0].window_bytes) / 1'000, 1e-9);
  EXPECT_NEAR(shares[1].carry_tiles, 20 * 11 / 67.0 - static_cast<double>(shares[1].window_bytes) / 1'000, 1e-9);
}

TEST(DivisionTest, RaisesTheTargetUntilTheLightestHasATile) {
  // A fortieth of the whole is a tile only if there are 40.
  EXPECT_EQ(DivideAmong(kBudget, {{.weight = 1, .hungry = true}, {.weight = 39, .hungry = true}}), (W{1'000, 39'000}));
  // There is room for 60 tiles only: the lightest has one all the same.
  EXPECT_EQ(DivideAmong(kBudget, {{.weight = 1, .hungry = true}, {.weight = 999, .hungry = true}}), (W{1'000, 59'000}));
}

TEST(DivisionTest, GivesEveryHungryOneATileEvenPastTheCap) {
  std::vector<Share> shares(70, Share{.weight = 5, .hungry = true});
  const Division division = Divide(kBudget, true, absl::MakeSpan(shares));
  EXPECT_EQ(division.window_bytes, 70'000);
  for (const Share& share : shares) EXPECT_EQ(share.window_bytes, 1'000u);
}

TEST(DivisionTest, CountsModestOnesWithWhatTheyUseAndLendsThemRoom) {
  // The modest one uses 2 of its fair 10 tiles; it may still have 10 in flight at once, since there is room.
  EXPECT_EQ(DivideAmong(kBudget, {{.weight = 1, .hungry = true}, {.weight = 1, .used_bytes = 2'000}}),
            (W{18'000, 10'000}));
  // More than the fair share isn't counted.
  EXPECT_EQ(DivideAmong(kBudget, {{.weight = 1, .hungry = true}, {.weight = 1, .used_bytes = 50'000}}),
            (W{10'000, 10'000}));
}

TEST(DivisionTest, LendsIdleOnesTheShareThatTheyWouldHave) {
  EXPECT_EQ(DivideAmong(kBudget, {{.weight = 3, .hungry = true}, {.weight = 1}}), (W{20'000, 5'000}));
  EXPECT_EQ(DivideAmong(kBudget, {{.weight = 3}}), (W{20'000}));
}

TEST(DivisionTest, LendsOnlyWhatIsLeftUnderTheCap) {
  const Budget tight = {.target_bytes = 20'000, .cap_bytes = 24'000, .tile_bytes = 1'000};
  EXPECT_EQ(DivideAmong(tight, {{.weight = 1, .hungry = true}, {.weight = 1}}), (W{20'000, 4'000}));
  const Budget full = {.target_bytes = 20'000, .cap_bytes = 20'000, .tile_bytes = 1'000};
  EXPECT_EQ(DivideAmong(full, {{.weight = 1, .hungry = true}, {.weight = 1}}), (W{20'000, 0}));
}

TEST(DivisionTest, HoldsItsRulesForAnything) {
  std::mt19937_64 random(11);
  const auto below = [&random](uint64_t bound) { return random() % bound; };
  for (int round = 0; round < 20'000 && !::testing::Test::HasFailure(); ++round) {
    std::vector<Share> shares(1 + below(70));
    for (Share& share : shares) {
      share.weight = static_cast<uint32_t>(1 + below(below(2) == 0 ? 1'000 : 4));
      share.hungry = below(3) != 0;
      if (!share.hungry && below(2) == 0) share.used_bytes = static_cast<double>(below(40'000));
      share.carry_tiles = static_cast<double>(below(2'001)) / 1'000 - 1;
    }
    const Budget budget = {.target_bytes = static_cast<double>(below(500'000)),
                           .cap_bytes = static_cast<double>(1 + below(500'000)),
                           .tile_bytes = 1 + below(9'000)};
    const Division division = Divide(budget, below(2) == 0, absl::MakeSpan(shares));
    const auto tile = static_cast<double>(budget.tile_bytes);
    double windows = 0, hungry_windows = 0, hungry = 0;
    for (const Share& share : shares) {
      EXPECT_EQ(share.window_bytes % budget.tile_bytes, 0u);
      EXPECT_LE(std::abs(share.carry_tiles), 1);
      windows += static_cast<double>(share.window_bytes);
      if (!share.hungry) continue;
      EXPECT_GE(share.window_bytes, budget.tile_bytes);
      hungry_windows += static_cast<double>(share.window_bytes);
      hungry += 1;
    }
    EXPECT_LE(windows, std::max(budget.cap_bytes, hungry * tile));
    EXPECT_EQ(division.window_bytes, windows);
    EXPECT_EQ(division.hungry_bytes, hungry_windows);
    for (const Share& a : shares) {
      for (const Share& b : shares) {
        // With carries of up to a tile each, equals differ by three tiles at most, and the heavier is not behind.
        if (a.hungry && b.hungry && a.weight >= b.weight) {
          EXPECT_GE(static_cast<double>(a.window_bytes) + 3 * tile, static_cast<double>(b.window_bytes));
        }
      }
    }
  }
}

}  // namespace
}  // namespace dak::congestion

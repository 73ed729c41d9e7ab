// What dak-bench-neighbours judges shares with.
#include "tests/bench/neighbours/series.h"

#include <gtest/gtest.h>

namespace dak::bench {
namespace {

constexpr int64_t kMs = 1'000'000;

// A sample a millisecond: `slow` bytes each until `change_ms`, then `fast`.
Series Ramp(uint64_t slow, uint64_t fast = 0, int change_ms = 1'000, int end_ms = 1'000) {
  Series series;
  uint64_t bytes = 0;
  for (int ms = 0; ms <= end_ms; ++ms) {
    series.Add({.time_ns = ms * kMs, .bytes = bytes, .window_bytes = ms < change_ms ? 8'192u : 16'384u});
    bytes += ms < change_ms ? slow : fast;
  }
  return series;
}

TEST(SeriesTest, BytesGrowEvenlyBetweenSamplesAndNotBeyondThem) {
  const Series series = Ramp(1'000);
  EXPECT_DOUBLE_EQ(series.BytesAt(500 * kMs), 500'000);
  EXPECT_DOUBLE_EQ(series.BytesAt(500 * kMs + kMs / 4), 500'250);
  EXPECT_DOUBLE_EQ(series.BytesAt(-5 * kMs), 0);
  EXPECT_DOUBLE_EQ(series.BytesAt(5'000 * kMs), 1'000'000);
  EXPECT_DOUBLE_EQ(Series().BytesAt(0), 0);
}

TEST(SeriesTest, RateIsOfTheTimeAskedFor) {
  const Series series = Ramp(1'000, 3'000, 500);
  EXPECT_NEAR(series.Rate(0, 500 * kMs), 1e6, 1);
  EXPECT_NEAR(series.Rate(500 * kMs, 1'000 * kMs), 3e6, 1);
  EXPECT_NEAR(series.Rate(250 * kMs, 750 * kMs), 2e6, 1);
  EXPECT_EQ(series.Rate(7, 7), 0);
}

// Batches of 3,000 bytes that take 3 ms: a span that isn't a number of batches is off by a part of one otherwise.
TEST(SeriesTest, RateByStepsIsOfWholeBatches) {
  Series series;
  for (int ms = 0; ms <= 100; ++ms) {
    series.Add({.time_ns = ms * kMs, .bytes = static_cast<uint64_t>(ms / 3 * 3'000), .window_bytes = 0});
  }
  for (int begin = 10; begin < 14; ++begin) {
    EXPECT_DOUBLE_EQ(series.RateBySteps(begin * kMs, (begin + 20) * kMs), 1e6);
  }
  EXPECT_GT(series.Rate(11 * kMs, 31 * kMs), 1.04e6);
  EXPECT_DOUBLE_EQ(series.RateBySteps(12 * kMs, 14 * kMs), series.Rate(12 * kMs, 14 * kMs));  // one step is no span
}

TEST(SeriesTest, MeanWindowIsOfTheSamplesInBetween) {
  const Series series = Ramp(1, 1, 500);
  EXPECT_EQ(series.MeanWindow(0, 100 * kMs), 8'192);
  EXPECT_EQ(series.MeanWindow(600 * kMs, 700 * kMs), 16'384);
  EXPECT_EQ(series.MeanWindow(2'000 * kMs, 3'000 * kMs), 0);
}

TEST(SharesTest, JainIsOneWhereAllAreEqualAndOneInNWhereOneHasAll) {
  EXPECT_DOUBLE_EQ(Jain(std::vector<double>{5, 5, 5, 5}), 1);
  EXPECT_DOUBLE_EQ(Jain(std::vector<double>{5, 0, 0, 0}), 0.25);
  EXPECT_EQ(Jain(std::vector<double>{0, 0}), 0);
}

TEST(SharesTest, AreMeasuredAgainstWeights) {
  const Series one = Ramp(1'000), two = Ramp(2'000), three = Ramp(3'300);
  const std::vector<Sharer> sharers = {{&one, 1}, {&two, 2}, {&three, 3}};
  const Shares shares = SharesOf(sharers, 0, 500 * kMs);
  EXPECT_NEAR(shares.bytes_per_s, 6.3e6, 1);
  EXPECT_NEAR(shares.worst_error, 3.3 / 3.15 - 1, 1e-3);
  EXPECT_GT(shares.jain, 0.99);
  EXPECT_LT(shares.jain, 1);
}

TEST(SharesTest, NobodyReadingIsNoFairShare) {
  const Series none = Ramp(0);
  const std::vector<Sharer> sharers = {{&none, 1}, {&none, 1}};
  EXPECT_EQ(SharesOf(sharers, 0, 500 * kMs).worst_error, 1);
}

TEST(SteadyTest, StartsWhereEveryLaterWindowMeetsTheBar) {
  // Four times the other's rate for 200 ms, then the same.
  const Series a = Ramp(4'000, 1'000, 200), b = Ramp(1'000);
  const std::vector<Sharer> sharers = {{&a, 1}, {&b, 1}};
  const SteadyBar bar = {.window_ns = 20 * kMs, .step_ns = 5 * kMs, .least_jain = 0.98};
  const auto steady = SteadyAfter(sharers, 0, 900 * kMs, bar);
  ASSERT_TRUE(steady.has_value());
  EXPECT_NEAR(static_cast<double>(*steady) / kMs, 200, 10);
  EXPECT_EQ(SteadyAfter(sharers, 300 * kMs, 900 * kMs, bar), 0);
}

TEST(SteadyTest, IsNothingWhereTheLastWindowMissesTheBarOrNoneFits) {
  const Series a = Ramp(1'000, 4'000, 800), b = Ramp(1'000);
  const std::vector<Sharer> sharers = {{&a, 1}, {&b, 1}};
  EXPECT_FALSE(SteadyAfter(sharers, 0, 900 * kMs, {.least_jain = 0.98}).has_value());
  EXPECT_FALSE(SteadyAfter(sharers, 0, 900 * kMs, {.most_error = 0.08}).has_value());
  EXPECT_FALSE(SteadyAfter(sharers, 0, 20 * kMs, {.window_ns = 25 * kMs}).has_value());
}

}  // namespace
}  // namespace dak::bench

#include "daemon/congestion/report.h"

#include <gtest/gtest.h>

namespace dak::congestion {
namespace {

constexpr uint64_t kIntervalNs = 5'000'000;
const SessionReport kBefore = {.session_id = 1,
                               .bytes = 1'000'000,
                               .round_trip_ns = 50'000,
                               .round_trips = 20,
                               .inflight_bytes = 9'000,
                               .inflight_peak_bytes = 70'000};

SessionReport After(uint64_t bytes, uint64_t round_trip_ns, uint64_t trips) {
  SessionReport report = kBefore;
  report.bytes += bytes;
  report.round_trip_ns += round_trip_ns;
  report.round_trips += trips;
  return report;
}

TEST(CompareTest, TellsRateAndMeanRoundTrip) {
  const Measured measured = Compare({}, kBefore, After(100'000'000, 25'000, 10), kIntervalNs);
  EXPECT_DOUBLE_EQ(measured.bytes_per_s, 20e9);
  EXPECT_DOUBLE_EQ(measured.round_trip_ns, 2'500);
  EXPECT_EQ(measured.inflight_bytes, 9'000u);
  EXPECT_FALSE(measured.suspect);
}

TEST(CompareTest, TellsNothingOfAnIntervalWithoutReads) {
  const Measured measured = Compare({}, kBefore, kBefore, kIntervalNs);
  EXPECT_EQ(measured.bytes_per_s, 0);
  EXPECT_EQ(measured.round_trip_ns, 0);
  EXPECT_FALSE(measured.suspect);
  EXPECT_TRUE(measured.still);
  EXPECT_FALSE(Compare({}, kBefore, After(1, 0, 0), kIntervalNs).still);
  EXPECT_FALSE(Compare({}, kBefore, After(0, 2'500, 1), kIntervalNs).still);
}

TEST(CompareTest, TakesThePeakOnlyIfItGrew) {
  SessionReport after = kBefore;
  EXPECT_EQ(Compare({}, kBefore, after, kIntervalNs).inflight_bytes, 9'000u);
  after.inflight_peak_bytes = 80'000;
  EXPECT_EQ(Compare({}, kBefore, after, kIntervalNs).inflight_bytes, 80'000u);
  after.inflight_bytes = 90'000;
  EXPECT_EQ(Compare({}, kBefore, after, kIntervalNs).inflight_bytes, 90'000u);
}

TEST(CompareTest, FlagsEveryCounterThatGoesBack) {
  for (uint64_t SessionReport::*counter : {&SessionReport::bytes, &SessionReport::round_trip_ns,
                                           &SessionReport::round_trips, &SessionReport::inflight_peak_bytes}) {
    SessionReport after = After(1'000, 30'000, 10);
    after.*counter = kBefore.*counter - 1;
    const Measured measured = Compare({}, kBefore, after, kIntervalNs);
    EXPECT_TRUE(measured.suspect);
    EXPECT_EQ(measured.bytes_per_s, 0);
    EXPECT_EQ(measured.round_trip_ns, 0);
  }
}

TEST(CompareTest, ClampsAndFlagsWhatTheLinkCannotCarry) {
  // 1.25 x the rate for the interval, and what fits in flight.
  const uint64_t most = 319'375'000 + 1'000'000;
  EXPECT_FALSE(Compare({}, kBefore, After(most, 0, 0), kIntervalNs).suspect);
  const Measured measured = Compare({}, kBefore, After(most + 1, 0, 0), kIntervalNs);
  EXPECT_TRUE(measured.suspect);
  EXPECT_DOUBLE_EQ(measured.bytes_per_s, 1.25 * 51.1e9);
  EXPECT_TRUE(Compare({}, kBefore, After(uint64_t{1} << 62, 0, 0), kIntervalNs).suspect);
}

TEST(CompareTest, ToleratesAShortIntervalButClampsItsRate) {
  const Measured measured = Compare({}, kBefore, After(500'000, 0, 0), 1);
  EXPECT_FALSE(measured.suspect);
  EXPECT_DOUBLE_EQ(measured.bytes_per_s, 1.25 * 51.1e9);
}

TEST(CompareTest, FlagsRoundTripsThatAreTooShortToBeTrue) {
  EXPECT_FALSE(Compare({}, kBefore, After(1'000, 4'500, 10), kIntervalNs).suspect);
  const Measured measured = Compare({}, kBefore, After(1'000, 4'499, 10), kIntervalNs);
  EXPECT_TRUE(measured.suspect);
  EXPECT_EQ(measured.round_trip_ns, 0);
}

TEST(CompareTest, DropsRoundTripsLongerThanTheInterval) {
  const Measured measured = Compare({}, kBefore, After(1'000, 2 * kIntervalNs, 1), kIntervalNs);
  EXPECT_EQ(measured.round_trip_ns, 0);
  EXPECT_FALSE(measured.suspect);  // the GPU may have been given to another process meanwhile
}

}  // namespace
}  // namespace dak::congestion

#include "allocator/device/link_model.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace dak {
namespace {

using ::testing::AllOf;
using ::testing::DoubleNear;
using ::testing::Ge;
using ::testing::Le;

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1024 * kKiB;
constexpr double kGb = 1e9;

LinkResponse Alone(uint64_t inflight_bytes) { return RespondTo(LinkModel{}, {inflight_bytes, inflight_bytes}); }

// docs/hardware.md, "Remote reads need little in flight", H100.
TEST(LinkModelTest, MatchesTheMeasuredRatesAndRoundTrips) {
  struct Row {
    uint64_t inflight_bytes;
    double gb_per_s;
    double round_trip_us;
  };
  for (const Row& row : {Row{128 * kKiB, 51.1, 2.6}, Row{256 * kKiB, 51.1, 5.1}, Row{kMiB, 50.9, 21},
                         Row{132 * 16 * 8 * kKiB, 49.4, 339}}) {
    const LinkResponse response = Alone(row.inflight_bytes);
    EXPECT_THAT(response.bytes_per_s / kGb, DoubleNear(row.gb_per_s, 0.05 * row.gb_per_s)) << row.inflight_bytes;
    EXPECT_THAT(response.round_trip_ns / 1e3, DoubleNear(row.round_trip_us, 0.05 * row.round_trip_us))
        << row.inflight_bytes;
  }
}

// docs/hardware.md, "Too much in flight destroys local bandwidth": the share of HBM bandwidth left, smallest and
// largest of the layouts measured with these bytes in flight. The model must lie between, or within a fifth of it.
TEST(LinkModelTest, MatchesTheMeasuredCliff) {
  struct Row {
    uint64_t inflight_bytes;
    double least;
    double most;
  };
  const double whole = static_cast<double>(LinkModel{}.local_bandwidth_bytes_per_s);
  for (const Row& row : {Row{256 * kKiB, 1.00, 1.00}, Row{512 * kKiB, 1.00, 1.00}, Row{kMiB, 0.98, 1.00},
                         Row{1536 * kKiB, 0.88, 0.88}, Row{2 * kMiB, 0.21, 0.77}, Row{4 * kMiB, 0.027, 0.049},
                         Row{8 * kMiB, 0.021, 0.021}, Row{12 * kMiB, 0.022, 0.022}}) {
    const double left = Alone(row.inflight_bytes).local_bytes_per_s / whole;
    EXPECT_THAT(left, AllOf(Ge(row.least * 0.8), Le(row.most * 1.2))) << row.inflight_bytes;
  }
}

TEST(LinkModelTest, IsLimitedByTheRoundTripBelowTheBandwidthDelayProduct) {
  const LinkResponse response = Alone(9'000);
  EXPECT_DOUBLE_EQ(response.round_trip_ns, 1'800);
  EXPECT_DOUBLE_EQ(response.bytes_per_s, 5e9);
}

TEST(LinkModelTest, SharesTheLinkInProportionToBytesInFlight) {
  const uint64_t polite = 128 * kKiB;
  const uint64_t greedy = 2 * kMiB;
  const LinkResponse small = RespondTo(LinkModel{}, {polite, polite + greedy});
  const LinkResponse large = RespondTo(LinkModel{}, {greedy, polite + greedy});
  EXPECT_NEAR(large.bytes_per_s / small.bytes_per_s, 16, 1e-9);
  EXPECT_NEAR(large.bytes_per_s + small.bytes_per_s, 51.1e9, 1);
  EXPECT_DOUBLE_EQ(small.round_trip_ns, large.round_trip_ns);
}

TEST(LinkModelTest, NeverGivesMoreThanTheLinkNorMoreLocalBandwidthForMoreLoad) {
  double local_before = INFINITY;
  for (uint64_t bytes = 1; bytes < uint64_t{1} << 40; bytes = bytes * 3 / 2 + 1) {
    const LinkResponse response = Alone(bytes);
    EXPECT_LE(response.bytes_per_s, 51.1e9 * (1 + 1e-12)) << bytes;
    EXPECT_LE(response.local_bytes_per_s, local_before) << bytes;
    EXPECT_GE(response.local_bytes_per_s, 0.022 * 2.99e12) << bytes;
    local_before = response.local_bytes_per_s;
  }
}

TEST(LinkModelTest, AnIdleLinkLeavesAllOfHbm) {
  const LinkResponse response = Alone(0);
  EXPECT_EQ(response.bytes_per_s, 0);
  EXPECT_EQ(response.round_trip_ns, 1'800);
  EXPECT_EQ(response.local_bytes_per_s, 2.99e12);
}

TEST(LinkModelTest, ATotalBelowTheReadersOwnBytesIsTheReaders) {
  const LinkResponse sane = Alone(kMiB);
  const LinkResponse odd = RespondTo(LinkModel{}, {kMiB, 10});
  EXPECT_EQ(odd.bytes_per_s, sane.bytes_per_s);
  EXPECT_EQ(odd.round_trip_ns, sane.round_trip_ns);
}

TEST(LinkModelTest, ADeadLinkServesNothing) {
  LinkModel model;
  model.bandwidth_bytes_per_s = 0;
  const LinkResponse response = RespondTo(model, {kMiB, kMiB});
  EXPECT_EQ(response.bytes_per_s, 0);
  EXPECT_TRUE(std::isinf(response.round_trip_ns));
  EXPECT_EQ(RespondTo(model, {0, 0}).round_trip_ns, 1'800);
}

TEST(LinkModelTest, ZeroLatencyAndNoCliffAreAllowed) {
  LinkModel model;
  model.round_trip_ns = 0;
  model.cliff_bytes = 0;
  const LinkResponse response = RespondTo(model, {1, 100 * kMiB});
  EXPECT_EQ(response.local_bytes_per_s, 2.99e12);
  EXPECT_NEAR(response.bytes_per_s, 51.1e9 / (100.0 * kMiB), 1);
}

}  // namespace
}  // namespace dak

#include "daemon/congestion/controller.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "allocator/base/error_detail.h"

namespace dak::congestion {
namespace {

constexpr uint64_t kTile = 8'192;
constexpr uint64_t kTickNs = 5'000'000;

TEST(ControllerTest, RefusesASessionThatIsThere) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(7, 100, 0).ok());
  EXPECT_EQ(controller.AddSession(7, 200, 0).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(controller.Sessions()[0].weight, 100u);
}

TEST(ControllerTest, RefusesWeightsOutOfRange) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  for (uint32_t weight : {0u, 1'001u, ~0u}) {
    for (const absl::Status& status : {controller.AddSession(2, weight, 0), controller.SetWeight(1, weight, 0)}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(DetailOf(status).field, "weight");
      EXPECT_EQ(DetailOf(status).limit, "1 to 1000");
    }
  }
  EXPECT_EQ(controller.Sessions().size(), 1u);
  EXPECT_TRUE(controller.SetWeight(1, 1, 0).ok());
  EXPECT_TRUE(controller.SetWeight(1, 1'000, 0).ok());
}

TEST(ControllerTest, RefusesWhatIsNotThere) {
  Controller controller{LinkProfile{}};
  for (const absl::Status& status : {controller.RemoveSession(3, 0), controller.SetWeight(3, 100, 0)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(DetailOf(status).reason, "UNKNOWN_SESSION");
  }
  EXPECT_EQ(controller.WindowOf(3), 0u);
}

TEST(ControllerTest, ASessionHasItsWindowBeforeAnythingIsMeasured) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  EXPECT_EQ(controller.WindowOf(1), 22 * kTile);
  ASSERT_TRUE(controller.AddSession(2, 100, 0).ok());
  EXPECT_EQ(controller.WindowOf(1), 11 * kTile);
  EXPECT_EQ(controller.WindowOf(2), 11 * kTile);
  ASSERT_TRUE(controller.SetWeight(2, 1'000, 0).ok());
  EXPECT_EQ(controller.WindowOf(1), 2 * kTile);
  EXPECT_EQ(controller.WindowOf(2), 20 * kTile);
  ASSERT_TRUE(controller.RemoveSession(2, 0).ok());
  EXPECT_EQ(controller.WindowOf(1), 22 * kTile);
  EXPECT_EQ(controller.WindowOf(2), 0u);
}

TEST(ControllerTest, ListsSessionsInOrder) {
  Controller controller{LinkProfile{}};
  for (uint64_t id : {9, 2, 5}) ASSERT_TRUE(controller.AddSession(id, 100, 0).ok());
  const std::vector<SessionState> states = controller.Sessions();
  ASSERT_EQ(states.size(), 3u);
  EXPECT_EQ(states[0].session_id, 2u);
  EXPECT_EQ(states[1].session_id, 5u);
  EXPECT_EQ(states[2].session_id, 9u);
}

TEST(ControllerTest, ReportsRatesAndRoundTripsOfTheInterval) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  SessionReport report = {.session_id = 1,
                          .bytes = 50'000'000,
                          .round_trip_ns = 36'000,
                          .round_trips = 10,
                          .inflight_bytes = 90'000,
                          .inflight_peak_bytes = 100'000};
  controller.Tick(kTickNs, {report});
  SessionState state = controller.Sessions()[0];
  EXPECT_DOUBLE_EQ(state.bytes_per_s, 10e9);
  EXPECT_DOUBLE_EQ(state.round_trip_ns, 3'600);
  EXPECT_EQ(state.inflight_peak_bytes, 100'000u);
  EXPECT_EQ(state.inflight_bytes, 36'000u);  // rate times round trip
  EXPECT_TRUE(state.active);
  EXPECT_FALSE(state.violating);
  controller.Tick(2 * kTickNs, {report});  // nothing more was read
  state = controller.Sessions()[0];
  EXPECT_EQ(state.bytes_per_s, 0);
  EXPECT_EQ(state.round_trip_ns, 0);
}

TEST(ControllerTest, ASessionIsIdleOnceItHasReadNothingForTheTime) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  const SessionReport silent = {.session_id = 1};
  for (uint64_t tick = 1; tick <= 3; ++tick) {
    controller.Tick(tick * kTickNs, {silent});
    EXPECT_TRUE(controller.Sessions()[0].active) << tick;
  }
  controller.Tick(4 * kTickNs, {silent});
  EXPECT_FALSE(controller.Sessions()[0].active);
  EXPECT_EQ(controller.WindowOf(1), 22 * kTile);  // nobody else wants it
  controller.Tick(5 * kTickNs, {{.session_id = 1, .bytes = 10}});
  EXPECT_TRUE(controller.Sessions()[0].active);
}

TEST(ControllerTest, AMissingReportMeansNothingWasRead) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  controller.Tick(kTickNs, {{.session_id = 1, .bytes = 1'000'000}});
  controller.Tick(2 * kTickNs, {});
  EXPECT_EQ(controller.Sessions()[0].bytes_per_s, 0);
  // What it read in the two intervals is spread over both.
  controller.Tick(3 * kTickNs, {{.session_id = 1, .bytes = 2'000'000}});
  EXPECT_DOUBLE_EQ(controller.Sessions()[0].bytes_per_s, 1e8);
}

TEST(ControllerTest, PassesOverReportsOfStrangers) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  controller.Tick(kTickNs, {{.session_id = 2, .bytes = 1'000'000}, {.session_id = 1, .bytes = 500}});
  EXPECT_EQ(controller.Sessions().size(), 1u);
  EXPECT_GT(controller.Sessions()[0].bytes_per_s, 0);
}

TEST(ControllerTest, TheSecondReportOfATickIsPassedOver) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  controller.Tick(kTickNs, {{.session_id = 1, .bytes = 5'000'000}, {.session_id = 1, .bytes = 9}});
  EXPECT_DOUBLE_EQ(controller.Sessions()[0].bytes_per_s, 1e9);
  EXPECT_FALSE(controller.Sessions()[0].violating);
}

TEST(ControllerTest, TicksWithoutSessionsAreNothing) {
  Controller controller{LinkProfile{}};
  controller.Tick(kTickNs, {});
  controller.Tick(kTickNs, {{.session_id = 1, .bytes = 5}});
  EXPECT_TRUE(controller.Sessions().empty());
  EXPECT_EQ(controller.target_bytes(), 183'960u);
}

TEST(ControllerTest, ALateSessionIsMeasuredFromItsStart) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  controller.Tick(kTickNs, {});
  ASSERT_TRUE(controller.AddSession(2, 100, kTickNs + 4'000'000).ok());
  controller.Tick(2 * kTickNs, {{.session_id = 2, .bytes = 10'000'000}});
  EXPECT_DOUBLE_EQ(controller.Sessions()[1].bytes_per_s, 10e9);  // in the millisecond that it was there
  EXPECT_FALSE(controller.Sessions()[1].violating);
}

// Two controllers live the same, and one rests where it can.
TEST(ControllerTest, RestingIsWhatTicksWithoutNewsAre) {
  Controller resting{LinkProfile{}}, ticking{LinkProfile{}};
  for (Controller* controller : {&resting, &ticking}) {
    ASSERT_TRUE(controller->AddSession(1, 100, 0).ok());
    ASSERT_TRUE(controller->AddSession(2, 300, 0).ok());
  }
  std::vector<SessionReport> reports = {{.session_id = 1}, {.session_id = 2}};
  int rests = 0;
  for (uint64_t tick = 1; tick <= 100; ++tick) {
    const bool reads = tick < 20 || (tick >= 50 && tick < 60) || tick == 80;
    for (SessionReport& report : reports) {
      if (!reads) continue;
      report.bytes += 20'000'000 * report.session_id;
      report.round_trips += 10;
      report.round_trip_ns += 35'000;
      report.inflight_bytes = 40'960;
      report.inflight_peak_bytes = 40'960;
    }
    const uint64_t now_ns = tick * kTickNs;
    if (!reads && resting.Rest(now_ns)) {
      ++rests;
    } else {
      resting.Tick(now_ns, reports);
    }
    ticking.Tick(now_ns, reports);
    for (size_t i = 0; i < 2; ++i) {
      const SessionState& rested = resting.SessionAt(i);
      const SessionState& ticked = ticking.SessionAt(i);
      EXPECT_EQ(rested.window_bytes, ticked.window_bytes) << "tick " << tick;
      EXPECT_EQ(rested.bytes_per_s, ticked.bytes_per_s) << "tick " << tick;
      EXPECT_EQ(rested.active, ticked.active) << "tick " << tick;
      EXPECT_EQ(rested.violating, ticked.violating) << "tick " << tick;
    }
    EXPECT_EQ(resting.target_bytes(), ticking.target_bytes());
  }
  EXPECT_GT(rests, 50);
}

TEST(ControllerTest, RestsOnlyWhereNothingWouldChange) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  uint64_t now_ns = kTickNs;
  EXPECT_FALSE(controller.Rest(now_ns));  // a new session is taken to want the link
  const std::vector<SessionReport> reports = {{.session_id = 1}};
  for (int tick = 0; tick < 10; ++tick) controller.Tick(now_ns += kTickNs, reports);
  EXPECT_TRUE(controller.Rest(now_ns += kTickNs));
  EXPECT_FALSE(controller.Rest(now_ns - 1));  // the clock went back
  controller.SetBackgroundDemand(true, now_ns);
  EXPECT_FALSE(controller.Rest(now_ns += kTickNs));
}

TEST(ControllerTest, MovesWithAllItHolds) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  const Controller other = std::move(controller);
  EXPECT_EQ(other.WindowOf(1), 22 * kTile);
}

}  // namespace
}  // namespace dak::congestion

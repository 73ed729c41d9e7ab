// How often the controller wants to be called: every interval while anything changes, more seldom while nothing does,
// and what that costs those who turn up meanwhile.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "tests/unit/congestion/simulator.h"

namespace dak::congestion {
namespace {

constexpr uint64_t kPaceNs = 5'000'000;
constexpr double kCalmMs = 1'000;  // more than it takes

// Reads only while `*on`.
SimulatedSession ReadsWhile(const bool* on) {
  return SimulatedSession().Inflight(
      [on](double window_bytes, uint64_t) { return *on ? std::max(window_bytes, 8192.0) : 0.0; });
}

void JoinAll(Simulator& simulator, int sessions) {
  for (int i = 1; i <= sessions; ++i) simulator.Join(i);
}

class PaceTest : public ::testing::TestWithParam<int> {};

TEST_P(PaceTest, TicksAreHalfAsOftenWhileNothingChanges) {
  Simulator simulator;
  simulator.SetNoise(0.1);
  JoinAll(simulator, GetParam());
  EXPECT_EQ(simulator.Run(200).ticks, 40);
  simulator.Run(kCalmMs);
  const Observed calm = simulator.Run(1'000);
  EXPECT_EQ(calm.ticks, 100);
  EXPECT_GE(calm.link_use, 0.97);
  EXPECT_GE(calm.Fairness(), 0.99);
}

TEST_P(PaceTest, IsSteadyWithin50MsOfAJoinALeaveAndANewWeightInACalm) {
  Simulator simulator;
  JoinAll(simulator, GetParam());
  simulator.Run(kCalmMs);
  simulator.Join(1'000);
  simulator.Run(50);
  Observed observed = simulator.Run(kCalmMs);
  EXPECT_GE(observed.link_use, 0.97);
  EXPECT_GE(observed.Fairness(), 0.99);
  simulator.Leave(1'000);
  simulator.Run(50);
  observed = simulator.Run(kCalmMs);
  EXPECT_GE(observed.link_use, 0.97);
  EXPECT_GE(observed.Fairness(), 0.99);
  if (GetParam() > 16) return;  // with more, a session of half the weight has more than its share: a tile
  simulator.SetWeight(1, 200);
  simulator.Run(50);
  observed = simulator.Run(kCalmMs);
  EXPECT_LE(observed.WorstShareError(simulator.Weights()), 0.05);
}

INSTANTIATE_TEST_SUITE_P(Sessions, PaceTest, ::testing::Values(1, 2, 3, 4, 8, 16, 63));

TEST(PaceTest, TicksAreAQuarterAsOftenOnceNobodyHasReadForASecond) {
  Simulator simulator;
  bool on = false;
  for (int i = 1; i <= 64; ++i) simulator.Join(i, ReadsWhile(&on));
  EXPECT_EQ(simulator.Run(1'000).ticks, 200);
  simulator.Run(100);
  EXPECT_EQ(simulator.Run(1'000).ticks, 50);
  EXPECT_EQ(simulator.controller().NextIntervalNs(), 4 * kPaceNs);
  on = true;
  simulator.Run(25);
  EXPECT_EQ(simulator.controller().NextIntervalNs(), kPaceNs);
  const Observed awake = simulator.Run(25);
  EXPECT_EQ(awake.ticks, 5);
  EXPECT_EQ(awake.least_hbm_share, 1);
  EXPECT_GE(simulator.Run(50).Fairness(), 0.99);
}

TEST(PaceTest, WhatACallerChangesEndsTheCalmAtOnce) {
  Simulator simulator;
  JoinAll(simulator, 2);
  const auto expect_calm = [&] {
    simulator.Run(kCalmMs);
    EXPECT_EQ(simulator.controller().NextIntervalNs(), 2 * kPaceNs);
  };
  const auto expect_news = [&] { EXPECT_EQ(simulator.controller().NextIntervalNs(), kPaceNs); };
  expect_calm();
  simulator.Join(3);
  expect_news();
  expect_calm();
  simulator.SetWeight(3, 300);
  expect_news();
  expect_calm();
  simulator.SetBackground(true);
  expect_news();
  expect_calm();
  simulator.Leave(3);
  expect_news();
}

TEST(PaceTest, AJumpOfTheClockEndsTheCalm) {
  Simulator simulator;
  JoinAll(simulator, 2);
  simulator.Run(kCalmMs);
  simulator.JumpClock(-100'000'000);
  simulator.Run(10);
  EXPECT_EQ(simulator.controller().NextIntervalNs(), kPaceNs);
  simulator.Run(kCalmMs);
  EXPECT_EQ(simulator.controller().NextIntervalNs(), 2 * kPaceNs);
}

TEST(PaceTest, NoIntervalIsOver20MsUnlessItIsSetSo) {
  struct Case {
    uint64_t interval_ns, calm_ns, idle_ns;
  };
  for (const Case& c : {Case{100'000, 200'000, 400'000}, Case{8'000'000, 16'000'000, 20'000'000},
                        Case{15'000'000, 20'000'000, 20'000'000}, Case{50'000'000, 50'000'000, 50'000'000}}) {
    bool on = true;
    Simulator simulator({}, {}, {.interval_ns = c.interval_ns});
    simulator.Join(1, ReadsWhile(&on));
    simulator.Run(2'000);
    EXPECT_EQ(simulator.controller().NextIntervalNs(), c.calm_ns);
    on = false;
    simulator.Run(3'000);
    EXPECT_EQ(simulator.controller().NextIntervalNs(), c.idle_ns);
  }
}

TEST(PaceTest, AViolatorIsFoundInTheNextTickAndWatchedInEach) {
  Simulator simulator;
  bool obeys = true;
  simulator.Join(
      1, SimulatedSession().Inflight([&](double window_bytes, uint64_t) { return obeys ? window_bytes : 400'000.0; }));
  simulator.Join(2);
  simulator.Join(3);
  simulator.Run(kCalmMs);
  ASSERT_EQ(simulator.controller().NextIntervalNs(), 2 * kPaceNs);
  obeys = false;
  EXPECT_GE(simulator.Run(10.1).violations.at(1), 1);
  const Observed observed = simulator.Run(1'000);
  EXPECT_EQ(observed.ticks, 200);
  EXPECT_EQ(observed.violations.at(1), 200);
  EXPECT_EQ(observed.violations.at(2), 0);
  EXPECT_LE(observed.Rate(1) / observed.Sum(), 0.5);
  obeys = true;
  simulator.Run(50);
  EXPECT_EQ(simulator.Run(1'000).violations.at(1), 0);
}

TEST(PaceTest, HiddenBytesAreFoundInACalm) {
  Simulator simulator;
  bool hides = false;
  simulator.Join(1, SimulatedSession()
                        .Inflight([&](double window_bytes, uint64_t) { return hides ? 400'000.0 : window_bytes; })
                        .Lie([](SessionReport& report) {
                          report.inflight_bytes = 0;
                          report.inflight_peak_bytes = 0;
                        }));
  simulator.Join(2);
  simulator.Join(3);
  simulator.Run(kCalmMs);
  ASSERT_EQ(simulator.controller().NextIntervalNs(), 2 * kPaceNs);
  hides = true;
  simulator.Run(20);
  EXPECT_EQ(simulator.Run(200).violations.at(1), 40);
}

TEST(PaceTest, RoundTripsAreAsExpectedWithin50MsOfAFloodOrASlumpInACalm) {
  for (const bool floods : {true, false}) {
    Simulator simulator;
    JoinAll(simulator, 4);
    simulator.Run(kCalmMs);
    ASSERT_EQ(simulator.controller().NextIntervalNs(), 2 * kPaceNs);
    if (floods) {
      simulator.link().foreign_bytes = 80'000;
    } else {
      simulator.link().bandwidth_bytes_per_s = 25.55e9;
    }
    EXPECT_GE(simulator.Run(50).ticks, 8);
    const Observed observed = simulator.Run(100);
    EXPECT_LE(observed.mean_round_trip_ns, 1.15 * 3'600) << floods;
    EXPECT_GE(observed.Fairness(), 0.99) << floods;
  }
}

TEST(PaceTest, ATargetThatMovesIsFollowedEveryInterval) {
  Simulator simulator({}, {.foreign_bytes = 50'000});
  JoinAll(simulator, 4);
  simulator.Run(kCalmMs);
  ASSERT_EQ(simulator.controller().NextIntervalNs(), 2 * kPaceNs);
  const uint64_t target_bytes = simulator.controller().target_bytes();
  simulator.link().foreign_bytes = 0;
  EXPECT_GE(simulator.Run(100).ticks, 19);
  EXPECT_GT(simulator.controller().target_bytes(), target_bytes);
}

TEST(PaceTest, WhileReadsQueueForTooLongNoTickIsLeftOut) {
  Simulator simulator({}, {.foreign_bytes = 500'000});
  JoinAll(simulator, 4);
  simulator.Run(kCalmMs);
  EXPECT_EQ(simulator.Run(1'000).ticks, 200);
}

// 4 ms of reading in 10, halves of which look like one steady reader of 40 % that wants no more.
TEST(PaceTest, WhoReadsInBurstsIsMeasuredEveryInterval) {
  Simulator simulator;
  simulator.Join(1, SimulatedSession().Inflight([](double window_bytes, uint64_t now_ns) {
    return now_ns / 1'000'000 % 10 < 4 ? window_bytes : 0.0;
  }));
  simulator.Join(2);
  simulator.Run(kCalmMs);
  const Observed observed = simulator.Run(1'000);
  EXPECT_EQ(observed.ticks, 200);
  EXPECT_GE(observed.Rate(1), 0.8 * 0.4 * 0.5 * 51.1e9);
}

// Beside a steady reader, 20 % of the time: found late, it loses a few per cent of its share.
TEST(PaceTest, WhoPausesForLongLosesLittle) {
  for (const uint64_t period_ms : {100, 300, 500, 1'000}) {
    Simulator simulator;
    simulator.Join(1, SimulatedSession().Inflight([period_ms](double window_bytes, uint64_t now_ns) {
      return now_ns / 1'000'000 % period_ms * 5 < period_ms ? window_bytes : 0.0;
    }));
    simulator.Join(2);
    simulator.Run(kCalmMs);
    const Observed observed = simulator.Run(6'000);
    const double of_share = observed.Rate(1) / (0.2 * 0.5 * 51.1e9);
    EXPECT_GE(of_share, period_ms < 200 ? 0.91 : 0.94) << period_ms;
    EXPECT_GE(observed.link_use, 0.97) << period_ms;
    std::cout << "| " << period_ms << " | " << of_share << " |\n";
  }
}

// The others have its share until then. Beside 8, the round trip doesn't tell that it reads from its standing window.
TEST(PaceTest, WhoWakesUpInACalmHasItsShareWithin50Ms) {
  for (const int others : {3, 8}) {
    Simulator simulator;
    bool on = false;
    simulator.Join(1'000, ReadsWhile(&on));
    JoinAll(simulator, others);
    simulator.Run(kCalmMs);
    ASSERT_EQ(simulator.controller().NextIntervalNs(), 2 * kPaceNs);
    EXPECT_GT(simulator.controller().WindowOf(1), simulator.controller().WindowOf(1'000)) << others;
    on = true;
    simulator.Run(50);
    const Observed observed = simulator.Run(100);
    EXPECT_GE(observed.Fairness(), 0.99) << others;
    EXPECT_GE(observed.link_use, 0.97) << others;
  }
}

// A round trip that was learned is believed for a second, however many ticks that has. Then the target is cut once
// more, in a few ticks, and it is learned anew.
TEST(PaceTest, WhatWasLearnedIsTestedAnewEverySecond) {
  Simulator simulator({}, {.round_trip_ns = 6'000});
  simulator.Join(1);
  simulator.Run(kCalmMs);
  int tests = 0, ticks = 0, last_cut = -100;
  uint64_t target_bytes = simulator.controller().target_bytes();
  for (int i = 0; i < 2'000; ++i) {
    ticks += simulator.Run(5).ticks;
    const uint64_t now_bytes = simulator.controller().target_bytes();
    if (now_bytes < target_bytes) {
      tests += i > last_cut + 20 ? 1 : 0;
      last_cut = i;
    }
    target_bytes = now_bytes;
  }
  EXPECT_GE(tests, 9);
  EXPECT_LE(tests, 10);
  EXPECT_LT(ticks, 1'300);
}

// What a modest session used is forgotten by time, not by ticks: copies get the rest of the target.
TEST(PaceTest, UseIsForgottenByTime) {
  uint64_t left_bytes[2] = {};
  for (const uint64_t ticks : {1, 2}) {
    Controller controller{LinkProfile{}};
    ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
    controller.SetBackgroundDemand(true, 0);
    SessionReport report = {.session_id = 1};
    for (uint64_t tick = 1; tick <= 10; ++tick) {
      report.bytes += 100'000'000;  // 20 GB/s
      report.round_trips += 10;
      report.round_trip_ns += 20'000;
      controller.Tick(tick * kPaceNs, {report});
    }
    for (uint64_t tick = 1; tick <= ticks; ++tick) {
      controller.Tick(10 * kPaceNs + tick * 2 * kPaceNs / ticks, {report});
    }
    left_bytes[ticks - 1] = controller.background_window_bytes();
  }
  EXPECT_GT(left_bytes[0], 10 * 8'192);
  EXPECT_EQ(left_bytes[0], left_bytes[1]);
}

}  // namespace
}  // namespace dak::congestion

// Sessions that ignore their window or lie about it: found out, and of no use to them or harm to others.
#include <gtest/gtest.h>

#include <iomanip>
#include <iostream>

#include "tests/unit/congestion/simulator.h"

namespace dak::congestion {
namespace {

constexpr double kCliff = 1'000'000;

SimulatedSession Ignoring(double bytes) {
  return SimulatedSession().Inflight([bytes](double, uint64_t) { return bytes; });
}

bool Violating(Simulator& simulator, uint64_t id) {
  for (const SessionState& state : simulator.controller().Sessions()) {
    if (state.session_id == id) return state.violating;
  }
  ADD_FAILURE() << "no session " << id;
  return false;
}

void Print(const char* what, const Observed& o) {
  std::cout << "| " << what << " | " << std::fixed << std::setprecision(2) << o.Rate(1) / o.Sum() << " | "
            << std::setprecision(0) << o.most_inflight_bytes / 1000 << " | " << std::setprecision(2)
            << o.least_hbm_share << " |\n";
}

TEST(MisbehaviourTest, AnHonestSessionIsNeverCalledViolating) {
  Simulator simulator;
  simulator.SetNoise(0.1);
  for (int i = 1; i <= 6; ++i) simulator.Join(i, SimulatedSession().Weight(50 * i));
  Observed observed = simulator.Run(200);
  for (int i = 7; i <= 40; ++i) {
    simulator.Join(i);  // every join cuts the windows of those who are there
    observed = simulator.Run(10);
    for (const auto& [id, ticks] : observed.violations) EXPECT_EQ(ticks, 0) << id;
  }
}

class ViolatorTest : public ::testing::TestWithParam<int> {};

// Session 1 has GetParam() KB in flight whatever its window, and says so.
TEST_P(ViolatorTest, IsFoundAndWinsNoMoreThanItsShareWhereTheLinkAllows) {
  const double bytes = GetParam() * 1e3;
  Simulator simulator;
  simulator.Join(1, Ignoring(bytes));
  simulator.Join(2);
  simulator.Join(3);
  simulator.Run(50);
  const Observed observed = simulator.Run(100);
  EXPECT_EQ(observed.violations.at(1), 20);
  EXPECT_EQ(observed.violations.at(2), 0);
  EXPECT_EQ(observed.violations.at(3), 0);
  EXPECT_GE(observed.link_use, 0.97);
  EXPECT_LE(observed.most_window_bytes, kCliff / 2);
  if (bytes < 0.85 * kCliff) {
    EXPECT_LT(observed.most_inflight_bytes, kCliff);
    EXPECT_EQ(observed.least_hbm_share, 1);
  }
  // Its neighbours could have two thirds, in windows that stay under half the cliff beside its own.
  const double room = std::min({2 * bytes, kCliff / 2 - 65'000, 0.9 * kCliff - bytes});
  const double rest = std::max(room, 2 * 8'192.0);
  EXPECT_LE(observed.Rate(1) / observed.Sum(), 1.1 * bytes / (bytes + rest)) << "room " << rest;
  EXPECT_GE(observed.Rate(2) / observed.Rate(3), 0.95);
  EXPECT_LE(observed.Rate(2) / observed.Rate(3), 1.05);
  Print((std::to_string(GetParam()) + " KB of its own will").c_str(), observed);
}

INSTANTIATE_TEST_SUITE_P(KB, ViolatorTest, ::testing::Values(100, 150, 200, 300, 400, 600, 800, 1'000, 2'000, 16'000));

TEST(MisbehaviourTest, IsFoundWithinTwoIntervalsAndForgivenWhenItObeys) {
  Simulator simulator;
  bool obeys = true;
  simulator.Join(
      1, SimulatedSession().Inflight([&](double window_bytes, uint64_t) { return obeys ? window_bytes : 400'000.0; }));
  simulator.Join(2);
  simulator.Run(100);
  EXPECT_FALSE(Violating(simulator, 1));
  obeys = false;
  simulator.Run(10);
  EXPECT_TRUE(Violating(simulator, 1));
  obeys = true;
  simulator.Run(50);
  EXPECT_FALSE(Violating(simulator, 1));
  const Observed after = simulator.Run(100);
  EXPECT_GE(after.Fairness(), 0.99);
  EXPECT_EQ(after.violations.at(1), 0);
  EXPECT_LE(after.most_window_bytes, 200'000);  // the compensation is gone
}

TEST(MisbehaviourTest, HasOneIntervalsGraceAfterACut) {
  Controller controller{LinkProfile{}};
  ASSERT_TRUE(controller.AddSession(1, 100, 0).ok());
  const uint64_t alone = controller.WindowOf(1);
  SessionReport report = {.session_id = 1, .inflight_bytes = alone, .inflight_peak_bytes = alone};
  uint64_t now_ns = 0;
  const auto tick = [&] {
    now_ns += 5'000'000;
    report.bytes += 100'000'000;
    controller.Tick(now_ns, {report});
    return controller.Sessions()[0].violating;
  };
  EXPECT_FALSE(tick());
  ASSERT_TRUE(controller.AddSession(2, 100, now_ns + 1).ok());  // halves the window
  EXPECT_LT(controller.WindowOf(1), alone);
  EXPECT_FALSE(tick());  // the larger window was in force in this interval
  EXPECT_FALSE(tick());  // and in the one before
  EXPECT_TRUE(tick());
}

// Reports as much in flight as its window allows, but the bytes that it read give it away.
TEST(MisbehaviourTest, HidingBytesInFlightIsFoundByTheRate) {
  Simulator simulator;
  uint64_t window = 0;
  simulator.Join(1, Ignoring(500'000).Lie([&window](SessionReport& report) {
    report.inflight_bytes = window;
    report.inflight_peak_bytes = window;
  }));
  simulator.Join(2);
  window = simulator.controller().WindowOf(1);
  simulator.Run(50);
  const Observed observed = simulator.Run(100);
  EXPECT_EQ(observed.violations.at(1), 20);
  EXPECT_EQ(observed.violations.at(2), 0);
  EXPECT_LT(observed.most_inflight_bytes, kCliff);
  EXPECT_LE(observed.Rate(1) / observed.Sum(), 0.6);  // without compensation it would be 0.85
  Print("500 KB, in flight hidden", observed);
}

// Reports nothing at all: nobody can be blamed, but the queue shows it, and the total stays under the cliff.
TEST(MisbehaviourTest, HidingEverythingIsSeenInTheRoundTrip) {
  Simulator simulator;
  simulator.Join(1, Ignoring(600'000).Lie([](SessionReport& report) { report = {.session_id = report.session_id}; }));
  for (int i = 2; i <= 4; ++i) simulator.Join(i);
  simulator.Run(50);
  const Observed observed = simulator.Run(100);
  EXPECT_LT(observed.most_inflight_bytes, kCliff);
  EXPECT_NEAR(static_cast<double>(simulator.controller().unexplained_bytes()), 600'000, 60'000);
  for (int i = 2; i <= 4; ++i) EXPECT_EQ(observed.violations.at(i), 0);
  simulator.Leave(1);
  simulator.Run(50);
  EXPECT_EQ(simulator.controller().unexplained_bytes(), 0u);
  EXPECT_GE(simulator.Run(50).link_use, 0.97);
}

TEST(MisbehaviourTest, ClaimingMuchTakesNothingFromTheOthers) {
  Simulator simulator;
  simulator.Join(1, SimulatedSession().Lie([](SessionReport& report) {
    report.inflight_bytes = uint64_t{1} << 60;
    report.inflight_peak_bytes = uint64_t{1} << 60;
    report.bytes *= 1'000'000;
  }));
  simulator.Join(2);
  simulator.Join(3);
  simulator.Run(50);
  const Observed observed = simulator.Run(100);
  EXPECT_EQ(observed.violations.at(1), 20);
  EXPECT_GE(observed.Rate(2) / observed.Sum(), 0.33);
  EXPECT_GE(observed.Rate(3) / observed.Sum(), 0.33);
  EXPECT_GE(observed.link_use, 0.97);
  EXPECT_LE(observed.most_window_bytes, kCliff / 2);
}

TEST(MisbehaviourTest, ClaimingLongRoundTripsSlowsNobodyDown) {
  for (double factor : {10.0, 0.01}) {
    Simulator simulator;
    simulator.Join(1, SimulatedSession().Lie([factor](SessionReport& report) {
      report.round_trip_ns = static_cast<uint64_t>(static_cast<double>(report.round_trip_ns) * factor);
    }));
    simulator.Join(2);
    simulator.Run(50);
    const Observed observed = simulator.Run(100);
    EXPECT_GE(observed.link_use, 0.97) << factor;
    EXPECT_GE(observed.Fairness(), 0.99) << factor;
    EXPECT_LE(observed.most_window_bytes, kCliff / 2) << factor;
    EXPECT_EQ(observed.violations.at(2), 0) << factor;
  }
}

// A majority that lies makes the controller believe in a flood, or in none: windows shrink or grow, but between bounds.
TEST(MisbehaviourTest, EvenAMajorityOfLiarsCannotStopTheLinkOrPassTheCliff) {
  for (double factor : {10.0, 0.3}) {
    Simulator simulator;
    for (int i = 1; i <= 3; ++i) {
      simulator.Join(i, SimulatedSession().Lie([factor](SessionReport& report) {
        report.round_trip_ns = static_cast<uint64_t>(static_cast<double>(report.round_trip_ns) * factor);
      }));
    }
    simulator.Join(4);
    simulator.Run(100);
    const Observed observed = simulator.Run(100);
    EXPECT_GE(observed.link_use, 0.8) << factor;
    EXPECT_LE(observed.most_window_bytes, kCliff / 2) << factor;
    EXPECT_GE(observed.Rate(4) / observed.Sum(), 0.24) << factor;
  }
}

TEST(MisbehaviourTest, CountersThatGoBackwardsAreFlaggedAndCountedAgainFromThere) {
  Simulator simulator;
  bool restarts = false;
  SessionReport base;
  simulator.Join(1, SimulatedSession().Lie([&](SessionReport& report) {
    const SessionReport now = report;
    if (restarts) base = now, restarts = false;
    report.bytes -= base.bytes;
    report.round_trips -= base.round_trips;
    report.round_trip_ns -= base.round_trip_ns;
  }));
  simulator.Join(2);
  simulator.Run(50);
  restarts = true;
  const Observed observed = simulator.Run(50);
  EXPECT_EQ(observed.violations.at(1), 1);
  EXPECT_GE(observed.link_use, 0.97);
  const Observed after = simulator.Run(50);
  EXPECT_EQ(after.violations.at(1), 0);
  EXPECT_GE(after.Fairness(), 0.99);
  EXPECT_NEAR(simulator.controller().Sessions()[0].bytes_per_s, 25.5e9, 1e9);
}

}  // namespace
}  // namespace dak::congestion

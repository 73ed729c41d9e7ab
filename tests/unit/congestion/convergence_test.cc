// The bars of the simulation: link at least 0.97 used, Jain's index at least 0.99 at equal weights, weighted shares
// within 5 %, steady within 50 ms of a join or leave.
#include <gtest/gtest.h>

#include <iomanip>
#include <iostream>

#include "tests/unit/congestion/simulator.h"

namespace dak::congestion {
namespace {

constexpr double kSettleMs = 50;
constexpr double kMeasureMs = 100;
constexpr double kHalfCliff = 500'000;
constexpr double kTile = 8'192;

void ExpectTheBars(const Observed& observed, const Simulator& simulator, bool equal_weights) {
  const auto sessions = static_cast<double>(observed.bytes_per_s.size());
  EXPECT_GE(observed.link_use, 0.97);
  if (equal_weights) {
    EXPECT_GE(observed.Fairness(), 0.99);
  }
  EXPECT_LE(observed.WorstShareError(simulator.Weights()), 0.05);
  EXPECT_LE(observed.most_window_bytes, std::max(kHalfCliff, sessions * kTile));
  EXPECT_EQ(observed.least_hbm_share, 1);
  for (const auto& [id, ticks] : observed.violations) EXPECT_EQ(ticks, 0) << "session " << id;
}

// One row of docs/congestion.md, with --gtest_filter='*Converge*'.
void Print(const char* what, int sessions, const Observed& o, const Simulator& s) {
  std::cout << "| " << what << " | " << sessions << " | " << std::fixed << std::setprecision(3) << o.link_use << " | "
            << o.Fairness() << " | " << std::setprecision(1) << o.WorstShareError(s.Weights()) * 100 << " % | "
            << std::setprecision(0) << o.most_window_bytes / 1000 << " | " << std::setprecision(1)
            << o.mean_round_trip_ns / 1000 << " |\n";
}

class ConvergenceTest : public ::testing::TestWithParam<int> {};

TEST_P(ConvergenceTest, EqualWeightsConverge) {
  Simulator simulator;
  for (int i = 1; i <= GetParam(); ++i) simulator.Join(i);
  simulator.Run(kSettleMs);
  const Observed observed = simulator.Run(kMeasureMs);
  ExpectTheBars(observed, simulator, /*equal_weights=*/true);
  Print("equal", GetParam(), observed, simulator);
}

// Weights 1 : 2 : 3 in turn, as far as there are tiles for it under half the cliff. With more sessions the lightest
// ones' shares would be less than a tile: ChurnTest.LightSessionsKeepATile.
class MixedConvergenceTest : public ::testing::TestWithParam<int> {};

TEST_P(MixedConvergenceTest, MixedWeightsConverge) {
  Simulator simulator;
  for (int i = 1; i <= GetParam(); ++i) simulator.Join(i, SimulatedSession().Weight(100 * (1 + i % 3)));
  simulator.Run(kSettleMs);
  const Observed observed = simulator.Run(kMeasureMs);
  ExpectTheBars(observed, simulator, /*equal_weights=*/false);
  Print("1:2:3", GetParam(), observed, simulator);
}

TEST_P(ConvergenceTest, NoisyReportsConverge) {
  Simulator simulator;
  simulator.SetNoise(0.3);
  for (int i = 1; i <= GetParam(); ++i) simulator.Join(i);
  simulator.Run(kSettleMs);
  const Observed observed = simulator.Run(kMeasureMs);
  ExpectTheBars(observed, simulator, /*equal_weights=*/true);
  Print("equal, 30 % noise", GetParam(), observed, simulator);
}

INSTANTIATE_TEST_SUITE_P(Sessions, ConvergenceTest,
                         ::testing::Values(1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 23, 24, 30, 32, 40, 47, 48, 60, 63, 64));
INSTANTIATE_TEST_SUITE_P(Sessions, MixedConvergenceTest, ::testing::Range(1, 31));

}  // namespace
}  // namespace dak::congestion

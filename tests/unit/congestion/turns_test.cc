// Sessions that have the GPU in turn, as processes without MPS: who waits reads nothing and can't obey, and a read that
// waits for its turn has a round trip of milliseconds.
#include <gtest/gtest.h>

#include <iomanip>
#include <iostream>

#include "tests/unit/congestion/simulator.h"

namespace dak::congestion {
namespace {

constexpr SimulatedLink kTurns = {.turn_ns = 2'000'000};

class TurnsFillTest : public ::testing::TestWithParam<int> {};

TEST_P(TurnsFillTest, SessionsShareTheWholeLink) {
  Simulator simulator({}, kTurns);
  for (int i = 1; i <= GetParam(); ++i) simulator.Join(i);
  simulator.Run(200);
  const Observed observed = simulator.Run(1'000);
  EXPECT_GE(observed.link_use, 0.97);
  EXPECT_GE(observed.Fairness(), 0.99);
  EXPECT_LE(observed.most_window_bytes, 500'000);
  for (const auto& [id, ticks] : observed.violations) EXPECT_EQ(ticks, 0) << id;
  std::cout << "| " << GetParam() << " | " << std::fixed << std::setprecision(3) << observed.link_use << " | "
            << std::setprecision(0) << observed.most_window_bytes / 1000 << " |\n";
}

INSTANTIATE_TEST_SUITE_P(Sessions, TurnsFillTest, ::testing::Values(1, 2, 3, 4));

// Why control_page.h asks kernels to leave such round trips out: a few of them look like a queue that nobody is in.
TEST(TurnsTest, RoundTripsThatWaitedForATurnWouldStarveTheLink) {
  Simulator simulator({}, {.turn_ns = 2'000'000, .reports_waits = true});
  simulator.Join(1);
  simulator.Join(2);
  simulator.Run(200);
  EXPECT_LT(simulator.Run(1'000).link_use, 0.6);
}

// Its bytes stay in flight, as far as its report tells, for as long as the others have their turns.
TEST(TurnsTest, WhoHasNoTurnIsNotCalledViolatingForAWindowThatWasCutMeanwhile) {
  Simulator simulator({}, {.turn_ns = 8'000'000});
  simulator.Join(1);
  simulator.Run(50);
  for (int i = 2; i <= 6; ++i) {
    simulator.Join(i);  // cuts the windows of those who are there
    const Observed observed = simulator.Run(100);
    for (const auto& [id, ticks] : observed.violations) EXPECT_EQ(ticks, 0) << id << " after " << i;
  }
}

}  // namespace
}  // namespace dak::congestion

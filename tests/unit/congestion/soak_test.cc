// Long random runs in virtual time: sessions of every kind come, change and go, and the bounds hold at every moment.
//
// DAK_FUZZ_STEPS raises the number of events of each seed (300 by default).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>

#include "absl/strings/numbers.h"
#include "tests/unit/congestion/simulator.h"

namespace dak::congestion {
namespace {

constexpr double kCliff = 1'000'000;
constexpr double kTile = 8'192;
constexpr size_t kMostSessions = 64;

// Fewer under a sanitizer, which takes some thirty times as long and looks for something else.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kEvents = 60;
#else
constexpr int kEvents = 300;
#endif

int Events() {
  int events = kEvents;
  const char* text = std::getenv("DAK_FUZZ_STEPS");
  if (text != nullptr && !absl::SimpleAtoi(text, &events)) ADD_FAILURE() << "DAK_FUZZ_STEPS isn't a number: " << text;
  return events;
}

class Soak {
 public:
  explicit Soak(uint64_t seed) : random_(seed) { simulator_.SetNoise(0.1); }

  void Run(int events) {
    for (int i = 0; i < events && !::testing::Test::HasFailure(); ++i) {
      Event();
      Check(simulator_.Run(5.0 * static_cast<double>(1 + Below(6))), i);
    }
    // When everybody is honest and hungry, all is as if nothing had been.
    while (!ids_.empty()) Leave();
    for (uint64_t id = 1; id <= 5; ++id) simulator_.Join(10'000 + id);
    simulator_.SetBackground(false);
    simulator_.Run(100);
    const Observed last = simulator_.Run(100);
    EXPECT_GE(last.link_use, 0.97);
    EXPECT_GE(last.Fairness(), 0.99);
  }

 private:
  uint64_t Below(uint64_t bound) { return random_() % bound; }
  uint64_t AnyId() { return *std::next(ids_.begin(), static_cast<ptrdiff_t>(Below(ids_.size()))); }

  void Event() {
    const uint64_t dice = Below(10);
    if (ids_.empty() || (dice < 5 && ids_.size() < kMostSessions)) {
      Join();
    } else if (dice < 7) {
      Leave();
    } else if (dice < 9) {
      simulator_.SetWeight(AnyId(), static_cast<uint32_t>(1 + Below(1'000)));
    } else {
      simulator_.SetBackground(Below(2) == 0);
    }
  }
  void Join() {
    SimulatedSession session;
    session.Weight(static_cast<uint32_t>(1 + Below(1'000)));
    const uint64_t period_ns = (1 + Below(100)) * 1'000'000;
    const double most_bytes = static_cast<double>(Below(100'000));
    switch (Below(4)) {
      case 0:  // in bursts
        session.Inflight([period_ns](double window_bytes, uint64_t now_ns) {
          return now_ns / period_ns % 2 == 0 ? std::max(window_bytes, kTile) : 0.0;
        });
        break;
      case 1:  // modest
        session.Inflight([most_bytes](double window_bytes, uint64_t) {
          return std::min(most_bytes, std::max(window_bytes, kTile));
        });
        break;
      default:  // hungry
        break;
    }
    const uint64_t id = ++last_id_;
    ids_.insert(id);
    simulator_.Join(id, session);
  }
  void Leave() {
    const uint64_t id = AnyId();
    ids_.erase(id);
    simulator_.Leave(id);
  }
  void Check(const Observed& observed, int event) {
    const double tiles = static_cast<double>(ids_.size() + 1) * kTile;
    EXPECT_LE(observed.most_window_bytes, std::max(kCliff / 2, tiles)) << "event " << event;
    EXPECT_EQ(observed.least_hbm_share, 1) << "event " << event;
    for (const auto& [id, ticks] : observed.violations) EXPECT_EQ(ticks, 0) << "event " << event << " session " << id;
    for (const SessionState& state : simulator_.controller().Sessions()) {
      EXPECT_EQ(state.window_bytes % 8'192, 0u) << "event " << event;
    }
  }

  std::mt19937_64 random_;
  Simulator simulator_;
  std::set<uint64_t> ids_;
  uint64_t last_id_ = 0;
};

class SoakTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(SoakTest, BoundsHoldAtEveryMoment) { Soak(GetParam()).Run(Events()); }

INSTANTIATE_TEST_SUITE_P(Seeds, SoakTest, ::testing::Range<uint64_t>(1, 13));

}  // namespace
}  // namespace dak::congestion

// The sum of windows: raised while the link has room, cut while reads queue for longer than they should.
#include <algorithm>
#include <cmath>

#include "daemon/congestion/controller.h"

namespace dak::congestion {
namespace {

// Round trips within this of the expected one change nothing.
constexpr double kTooLong = 1.1;
constexpr double kShort = 0.95;
// A link that carries this much of its bandwidth is full.
constexpr double kFull = 0.97;
// A cut takes at most a fifth; a raise adds an eighth of the goal.
constexpr double kLeastKept = 0.8;
constexpr double kRaise = 1.0 / 8;
// Cuts that come to this much together tell whether reads queue: a link's rate seldom changes by as much meanwhile.
constexpr double kTellingCut = 0.4;
constexpr double kLeastTellingCut = 0.1;  // where there is no room for more
// Of the product that was learned: enough to fill such a link, without the queue of twice the product.
constexpr double kOfLearned = 1.25;
// For how long a round trip that was learned is believed in.
constexpr uint64_t kLearnedNs = 1'000'000'000;
// Ticks in which what was learned must pay: larger windows carry more where nothing queues, and reads come back in that
// time. Else nothing is learned again for as long as it would have been believed.
constexpr int kTrialTicks = 5;
constexpr double kTrialTolerance = 0.15;
// How near the cliff all bytes in flight may come, violators' included.
constexpr double kOfCliff = 0.9;

}  // namespace

double Controller::CapBytes() const {
  return std::max(static_cast<double>(profile_.cliff_bytes) / 2, static_cast<double>(parameters_.min_window_bytes));
}
// How long a round trip may take: twice the unloaded one, or a little more than one that was learned.
double Controller::ExpectedNs() const {
  return std::max(parameters_.target_bdp * static_cast<double>(profile_.round_trip_ns), kOfLearned * round_trip_ns_);
}
double Controller::GoalBytes() const {
  return std::min(profile_.bandwidth_bytes_per_s * ExpectedNs() * 1e-9, CapBytes());
}
double Controller::LeastBytes() const { return std::min(Product(), GoalBytes()); }
// What windows may add to the bytes that none of them holds, so that all stays under the cliff. Past it already,
// nothing is won by starving those who obey.
double Controller::SafeBytes() const {
  const auto cliff = static_cast<double>(profile_.cliff_bytes);
  const double others_bytes = load_.violating_bytes + unexplained_bytes_;
  const double least_bytes = std::min(LeastBytes(), (1 - kOfCliff) * cliff);
  if (others_bytes >= cliff) return least_bytes;
  return std::max(kOfCliff * cliff - others_bytes, std::min(least_bytes, cliff - others_bytes));
}

void Controller::Adapt(uint64_t elapsed_ns) {
  const Load& load = load_;
  unexplained_bytes_ = 0;
  if (load.round_trip_ns == 0) {
    cut_.made = false;
    return;
  }
  // A shorter trip than the one believed in disproves it. One that was learned is put to the test at once and now and
  // then, since the windows that it leads to make it look true.
  doubted_ns_ -= std::min(doubted_ns_, elapsed_ns);
  learned_ns_ -= std::min(learned_ns_, elapsed_ns);
  if (trial_.ticks > 0) TryLearned();
  if (learned_ns_ == 0) round_trip_ns_ = static_cast<double>(profile_.round_trip_ns);
  round_trip_ns_ = std::clamp(load.round_trip_ns, static_cast<double>(profile_.round_trip_ns), round_trip_ns_);
  const double expected_ns = std::max(ExpectedNs(), planned_bytes_ / profile_.bandwidth_bytes_per_s * 1e9);
  if (load.round_trip_ns > kTooLong * expected_ns) {
    if (cut_.made && LearnFromCut()) return;
    const double all_bytes = profile_.bandwidth_bytes_per_s * load.round_trip_ns * 1e-9;
    unexplained_bytes_ = std::max(0.0, all_bytes - load.honest_bytes - load.violating_bytes);
    if (!cut_.made) {
      cut_ = {.made = true,
              .target_bytes = target_bytes_,
              .round_trip_ns = load.round_trip_ns,
              .bytes_per_s = load.bytes_per_s};
    }
    target_bytes_ = std::max(LeastBytes(), target_bytes_ * std::max(kLeastKept, expected_ns / load.round_trip_ns));
    return;
  }
  cut_.made = false;
  if (load.round_trip_ns >= kShort * expected_ns || trial_.ticks > 0) return;
  const double carried = load.bytes_per_s + static_cast<double>(background_window_bytes_) / load.round_trip_ns * 1e9;
  const double step_bytes = std::max(GoalBytes() * kRaise, static_cast<double>(parameters_.min_window_bytes));
  if (target_bytes_ < GoalBytes()) {
    target_bytes_ = std::min(target_bytes_ + step_bytes, GoalBytes());
  } else if (load.hungry && carried < kFull * profile_.bandwidth_bytes_per_s) {
    target_bytes_ = std::min(target_bytes_ + step_bytes, CapBytes());
  }
}

// Where reads queue, fewer of them come back sooner, at the same rate. Where fewer only come back slower, they never
// queued: the unloaded round trip is longer than the profile says. A flood by somebody else looks much the same, so
// this is believed only where larger windows beside such a flood would still be safe.
bool Controller::LearnFromCut() {
  if (cut_.round_trip_ns == 0 || cut_.bytes_per_s == 0 || doubted_ns_ > 0) return false;
  const double cut = 1 - target_bytes_ / cut_.target_bytes;
  if (cut < kTellingCut && (target_bytes_ > LeastBytes() || cut < kLeastTellingCut)) return false;
  const double sooner = 1 - load_.round_trip_ns / cut_.round_trip_ns;
  const double slower = 1 - load_.bytes_per_s / cut_.bytes_per_s;
  if (slower < cut / 2 || sooner > slower / 2) return false;
  const double all_bytes = profile_.bandwidth_bytes_per_s * load_.round_trip_ns * 1e-9;
  const double flood_bytes = all_bytes - load_.honest_bytes;
  const double windows_bytes = std::min(kOfLearned * all_bytes, CapBytes());
  if (flood_bytes + windows_bytes > kOfCliff * static_cast<double>(profile_.cliff_bytes)) return false;
  round_trip_ns_ = load_.round_trip_ns;
  learned_ns_ = kLearnedNs;
  trial_ = {.ticks = kTrialTicks, .target_bytes = target_bytes_, .bytes_per_s = load_.bytes_per_s};
  target_bytes_ = cut_.target_bytes;
  cut_.made = false;
  return true;
}

// A link that slumps while windows are cut looks like one whose round trip is long. But with larger windows again such
// a one carries more in proportion; the other as little as before, or, when it has come back, all that it can.
void Controller::TryLearned() {
  const bool queues = load_.round_trip_ns > kTooLong * ExpectedNs();
  // In the first tick there are reads of the smaller windows still.
  if (trial_.ticks-- == kTrialTicks && !queues) return;
  const double promised =
      std::min(trial_.bytes_per_s * target_bytes_ / trial_.target_bytes, profile_.bandwidth_bytes_per_s);
  if (!queues && std::abs(load_.bytes_per_s / promised - 1) <= kTrialTolerance) return;
  trial_.ticks = 0;
  learned_ns_ = 0;
  round_trip_ns_ = static_cast<double>(profile_.round_trip_ns);
  doubted_ns_ = kLearnedNs;
  target_bytes_ = std::max(trial_.target_bytes, LeastBytes());
}

}  // namespace dak::congestion

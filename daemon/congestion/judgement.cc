// What the sessions did in the last interval, as far as it can be known from reports that may lie.
#include <algorithm>
#include <cmath>
#include <vector>

#include "daemon/congestion/controller.h"

namespace dak::congestion {
namespace {

// A session that fills this much of its window wants more.
constexpr double kHungryFill = 0.7;
// How fast a session's measured use is forgotten: what is kept of it over an interval.
constexpr double kUseKept = 0.75;
constexpr uint64_t kMostKept = 32;  // intervals, after which next to nothing is
// Bytes in flight reckoned from rate and round trip are rougher than those that were counted.
constexpr double kReckoningSlack = 1.25;
// A rate that changes by this part of the larger from tick to tick, and by a tile in flight, is news. Who reads in
// bursts wouldn't look hungry over longer intervals: with smaller changes, the mean of two is over `kHungryFill` of the
// larger.
constexpr double kUneven = 0.5;

}  // namespace

void Controller::Measure(uint64_t now_ns, uint64_t elapsed_ns, absl::Span<const SessionReport> reports) {
  for (Entry& entry : sessions_) entry.measured = {};
  size_t next = 0;
  for (const SessionReport& report : reports) {
    Entry* const entry = FindNext(report.session_id, &next);
    if (entry == nullptr) continue;
    const uint64_t since_ns = std::max(entry->since_ns, rested_ns_);
    if (now_ns <= since_ns) continue;
    entry->measured = Compare(profile_, entry->last, report, now_ns - since_ns);
    entry->last = report;
    entry->since_ns = now_ns;
  }
  load_ = {};
  load_.round_trip_ns = MeasuredRoundTrip();
  double use_kept = kUseKept;
  const uint64_t intervals =
      (elapsed_ns + parameters_.interval_ns / 2) / std::max<uint64_t>(parameters_.interval_ns, 1);
  for (uint64_t i = 1; i < std::min(intervals, kMostKept); ++i) use_kept *= kUseKept;
  for (Entry& entry : sessions_) Judge(entry, now_ns, use_kept);
  SumUp();
}

// After the clock jumped back: what was counted since can't be turned into rates.
void Controller::Rebase(uint64_t now_ns, absl::Span<const SessionReport> reports) {
  for (Entry& entry : sessions_) {
    entry.since_ns = std::min(entry.since_ns, now_ns);
    entry.last_byte_ns = std::min(entry.last_byte_ns, now_ns);
  }
  for (const SessionReport& report : reports) {
    if (Entry* const entry = Find(report.session_id); entry != nullptr) entry->last = report;
  }
  rested_ns_ = std::min(rested_ns_, now_ns);
  calm_ns_ = 0;
  last_tick_ns_ = now_ns;
}

// All sessions wait in the same queue, so any honest one's round trip will do: the median of those that don't stand
// out, the lower one of two. Somebody who claims long round trips to slow others down thus needs a majority.
double Controller::MeasuredRoundTrip() const {
  std::vector<double> honest, all;
  for (const Entry& entry : sessions_) {
    if (entry.measured.round_trip_ns == 0) continue;
    all.push_back(entry.measured.round_trip_ns);
    if (!entry.measured.suspect && !entry.state.violating) honest.push_back(entry.measured.round_trip_ns);
  }
  std::vector<double>& samples = honest.empty() ? all : honest;
  if (samples.empty()) return 0;
  const auto middle = samples.begin() + static_cast<ptrdiff_t>((samples.size() - 1) / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

void Controller::Judge(Entry& entry, uint64_t now_ns, double use_kept) {
  const Measured& measured = entry.measured;
  SessionState& state = entry.state;
  const bool was_active = state.active, was_hungry = entry.hungry;
  const double rate_before = state.bytes_per_s;
  const double round_trip_ns = load_.round_trip_ns != 0 ? load_.round_trip_ns : round_trip_ns_;
  const double reckoned_bytes = measured.bytes_per_s * round_trip_ns * 1e-9;
  state.bytes_per_s = measured.bytes_per_s;
  state.round_trip_ns = measured.round_trip_ns;
  state.inflight_peak_bytes = entry.last.inflight_peak_bytes;
  state.inflight_bytes = static_cast<uint64_t>(reckoned_bytes);

  // With any window kernels keep a tile in flight, and taking turns they may overlap by one.
  const uint64_t tile_bytes = parameters_.min_window_bytes;
  const uint64_t window_bytes = std::max({entry.most_window_bytes, entry.most_before_bytes, tile_bytes});
  const uint64_t allowed_bytes = window_bytes + tile_bytes;
  // What nobody could have taken back says nothing: without MPS a process that waits for its turn reads no window.
  const bool passed = (!measured.still && measured.inflight_bytes > allowed_bytes) ||
                      reckoned_bytes > kReckoningSlack * static_cast<double>(allowed_bytes);
  state.implausible = measured.suspect;
  state.violating = measured.suspect || passed;

  if (measured.bytes_per_s > 0) {
    entry.last_byte_ns = now_ns;
    entry.fresh = false;
  }
  state.active = now_ns < entry.last_byte_ns + parameters_.idle_after_ns;
  const auto counted_bytes = static_cast<double>(std::min(measured.inflight_bytes, allowed_bytes));
  entry.used_bytes = state.active ? std::max({reckoned_bytes, counted_bytes, use_kept * entry.used_bytes}) : 0;
  entry.hungry =
      state.active &&
      (entry.fresh || state.violating ||
       entry.used_bytes >= kHungryFill * static_cast<double>(std::max(entry.least_window_bytes, tile_bytes)));
  const double rate_change = std::abs(measured.bytes_per_s - rate_before);
  const bool uneven = rate_change > kUneven * std::max(measured.bytes_per_s, rate_before) &&
                      rate_change * round_trip_ns * 1e-9 > static_cast<double>(tile_bytes);
  load_.turned |= entry.hungry != was_hungry;
  load_.modest |= !entry.hungry && entry.used_bytes > 0;
  load_.violating |= state.violating;
  load_.news |= state.violating || state.active != was_active || entry.hungry != was_hungry || uneven;
}

void Controller::SumUp() {
  double claimed_bytes = 0;
  double reckoned_bytes = 0;
  for (const Entry& entry : sessions_) {
    load_.bytes_per_s += entry.measured.bytes_per_s;
    const auto inflight_bytes = static_cast<double>(entry.state.inflight_bytes);
    if (entry.state.violating) {
      claimed_bytes += static_cast<double>(std::min(entry.measured.inflight_bytes, profile_.cliff_bytes));
      reckoned_bytes += inflight_bytes;
    } else {
      load_.honest_bytes += inflight_bytes;
      load_.hungry |= entry.hungry;
    }
  }
  // While reads queue, all that is in flight is rate times round trip, whatever anybody says. What a violator claims is
  // believed only so far: else claiming much would take the others' windows away.
  const double all_bytes = profile_.bandwidth_bytes_per_s * load_.round_trip_ns * 1e-9;
  const double evidence_bytes = std::max(0.0, all_bytes - load_.honest_bytes);
  load_.violating_bytes = std::max(std::min(reckoned_bytes, all_bytes), std::min(claimed_bytes, evidence_bytes));
}

}  // namespace dak::congestion

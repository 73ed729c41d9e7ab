#include "tests/unit/congestion/simulator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace dak::congestion {
namespace {

constexpr uint64_t kStepNs = 100'000;
constexpr uint64_t kUnsteadyNs = 2'000'000;
constexpr double kTileBytes = 8 * 1024;
constexpr double kSampledTrips = 1.0 / 16;  // kernels time one read in 16
constexpr double kReaders = 4;              // CTAs that read for a session, each of which waits for one read at a time

}  // namespace

double Observed::Sum() const {
  double sum = 0;
  for (const auto& [id, rate] : bytes_per_s) sum += rate;
  return sum;
}

double Observed::Fairness() const {
  double squares = 0;
  for (const auto& [id, rate] : bytes_per_s) squares += rate * rate;
  return squares == 0 ? 0 : Sum() * Sum() / (static_cast<double>(bytes_per_s.size()) * squares);
}

double Observed::WorstShareError(const std::map<uint64_t, uint32_t>& weights) const {
  double weight = 0, worst = 0;
  for (const auto& [id, w] : weights) weight += w;
  for (const auto& [id, w] : weights) worst = std::max(worst, std::abs(Rate(id) / Sum() / (w / weight) - 1));
  return worst;
}

Simulator::Simulator(LinkProfile profile, SimulatedLink link, Parameters parameters)
    : controller_(profile, parameters), parameters_(parameters), link_(link) {}

void Simulator::Join(uint64_t id, SimulatedSession session) {
  ASSERT_TRUE(controller_.AddSession(id, session.weight, ControllerNow()).ok());
  readers_[id].session = std::move(session);
}

void Simulator::Leave(uint64_t id) {
  ASSERT_TRUE(controller_.RemoveSession(id, ControllerNow()).ok());
  readers_.erase(id);
}

void Simulator::SetWeight(uint64_t id, uint32_t weight) {
  ASSERT_TRUE(controller_.SetWeight(id, weight, ControllerNow()).ok());
  readers_.at(id).session.weight = weight;
}

void Simulator::SetBackground(bool wants) { controller_.SetBackgroundDemand(wants, ControllerNow()); }

std::map<uint64_t, uint32_t> Simulator::Weights() const {
  std::map<uint64_t, uint32_t> weights;
  for (const auto& [id, reader] : readers_) weights[id] = reader.session.weight;
  return weights;
}

double Simulator::Random() { return static_cast<double>(random_() >> 11) / static_cast<double>(uint64_t{1} << 53); }
double Simulator::Noise() { return 1 + noise_ * (2 * Random() - 1); }

bool Simulator::HasTurn(size_t i) const { return link_.turn_ns == 0 || now_ns_ / link_.turn_ns % readers_.size() == i; }
bool Simulator::BeginsTurn() const { return link_.turn_ns != 0 && now_ns_ % link_.turn_ns < kStepNs; }

void Simulator::Step(Observed& observed) {
  const double seconds = kStepNs * 1e-9;
  double inflight_bytes = link_.foreign_bytes + background_window_bytes_;
  size_t number = 0;
  for (auto& [id, reader] : readers_) {
    reader.has_turn = HasTurn(number++);
    if (!reader.has_turn) continue;
    const SimulatedSession& session = reader.session;
    // Even a window of 0 leaves a tile in flight.
    reader.inflight_bytes = session.inflight_bytes
                                ? session.inflight_bytes(reader.window_bytes, now_ns_)
                                : std::max(std::floor(reader.window_bytes / kTileBytes), 1.0) * kTileBytes;
    reader.peak_bytes = std::max(reader.peak_bytes, reader.inflight_bytes);
    inflight_bytes += reader.inflight_bytes;
  }
  if (now_ns_ % kUnsteadyNs == 0) bandwidth_share_ = 1 - link_.unsteady_share * Random();
  const double bandwidth_bytes_per_s = bandwidth_share_ * link_.bandwidth_bytes_per_s;
  const double served = std::min(inflight_bytes / link_.round_trip_ns * 1e9, bandwidth_bytes_per_s);
  const double round_trip_ns = std::max(link_.round_trip_ns, inflight_bytes / bandwidth_bytes_per_s * 1e9);
  for (auto& [id, reader] : readers_) {
    observed.bytes_per_s[id] += 0;
    if (!reader.has_turn) continue;
    if (BeginsTurn() && link_.reports_waits && readers_.size() > 1) {
      reader.round_trips += kReaders;
      reader.round_trip_ns += kReaders * static_cast<double>((readers_.size() - 1) * link_.turn_ns);
    }
    const double bytes = inflight_bytes == 0 ? 0 : served * reader.inflight_bytes / inflight_bytes * seconds;
    const double trips = bytes / kTileBytes * kSampledTrips;
    reader.bytes += bytes * Noise();
    reader.round_trips += trips;
    reader.round_trip_ns += trips * round_trip_ns * Noise();
    observed.bytes_per_s[id] += bytes;
    reader.window_bytes = static_cast<double>(controller_.WindowOf(id));
  }
  if (inflight_bytes > 0)
    observed.background_bytes_per_s += served * background_window_bytes_ / inflight_bytes * seconds;
  background_window_bytes_ = static_cast<double>(controller_.background_window_bytes());
  observed.link_use += served * seconds;
  observed.mean_round_trip_ns += round_trip_ns;
  observed.most_inflight_bytes = std::max(observed.most_inflight_bytes, inflight_bytes);
  const double past_cliff = inflight_bytes / link_.cliff_bytes;
  if (past_cliff > 1) observed.least_hbm_share = std::min(observed.least_hbm_share, 1 / (past_cliff * past_cliff));
  now_ns_ += kStepNs;
}

void Simulator::Tick(Observed& observed) {
  last_tick_ns_ = now_ns_;
  ++observed.ticks;
  std::vector<SessionReport> reports;
  for (auto& [id, reader] : readers_) {
    SessionReport report = {.session_id = id,
                            .bytes = static_cast<uint64_t>(reader.bytes),
                            .round_trip_ns = static_cast<uint64_t>(reader.round_trip_ns),
                            .round_trips = static_cast<uint64_t>(reader.round_trips),
                            .inflight_bytes = static_cast<uint64_t>(reader.inflight_bytes),
                            .inflight_peak_bytes = static_cast<uint64_t>(reader.peak_bytes)};
    if (reader.session.lie) reader.session.lie(report);
    reports.push_back(report);
  }
  controller_.Tick(ControllerNow(), reports);
  double window_bytes = static_cast<double>(controller_.background_window_bytes());
  for (const SessionState& state : controller_.Sessions()) {
    window_bytes += static_cast<double>(state.window_bytes);
    observed.violations[state.session_id] += state.violating ? 1 : 0;
  }
  observed.most_window_bytes = std::max(observed.most_window_bytes, window_bytes);
}

Observed Simulator::RunFor(double milliseconds, bool ticks) {
  Observed observed;
  const auto steps = static_cast<uint64_t>(std::llround(milliseconds * 1e6 / static_cast<double>(kStepNs)));
  for (uint64_t i = 0; i < steps; ++i) {
    const bool is_due = now_ns_ - last_tick_ns_ >= controller_.NextIntervalNs();
    if (ticks && is_due && now_ns_ % parameters_.interval_ns == 0) Tick(observed);
    Step(observed);
  }
  observed.seconds = static_cast<double>(steps * kStepNs) * 1e-9;
  observed.link_use /= link_.bandwidth_bytes_per_s * observed.seconds;
  observed.mean_round_trip_ns /= static_cast<double>(steps);
  observed.background_bytes_per_s /= observed.seconds;
  for (auto& [id, bytes] : observed.bytes_per_s) bytes /= observed.seconds;
  return observed;
}

Observed Simulator::Run(double milliseconds) { return RunFor(milliseconds, /*ticks=*/true); }
Observed Simulator::Stall(double milliseconds) { return RunFor(milliseconds, /*ticks=*/false); }

}  // namespace dak::congestion

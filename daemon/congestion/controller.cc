#include "daemon/congestion/controller.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak::congestion {
namespace {

constexpr uint32_t kMostWeight = 1000;
// Use that modest sessions are counted with, over what was measured.
constexpr double kHeadroom = 1.25;
// Of the bandwidth-delay product: what fills the link for sure.
constexpr double kEnough = 1.1;
// Idle ticks after which another one would be the same again: windows of an interval earlier count in one.
constexpr int kSettledTicks = 2;
// Ticks closer together than this part of the interval tell nothing.
constexpr uint64_t kLeastOfInterval = 8;
// After this long without news, the longer one where nobody reads, ticks are as many intervals apart, since waking up
// costs dakd more than a tick. Who pauses for as long is then found late by 2.5 % of the pause at most.
constexpr uint64_t kCalmNs = 200'000'000;
constexpr uint64_t kLongCalmNs = 1'000'000'000;
constexpr uint64_t kCalmIntervals = 2;
constexpr uint64_t kIdleIntervals = 4;
constexpr uint64_t kMostIntervalNs = 20'000'000;

absl::Status CheckWeight(uint32_t weight) {
  if (weight >= 1 && weight <= kMostWeight) return absl::OkStatus();
  return InvalidField("weight", absl::StrCat(weight, " is out of range"), absl::StrCat("1 to ", kMostWeight));
}

absl::Status UnknownSession(uint64_t session_id) {
  return WithDetail(absl::NotFoundError(absl::StrCat("no session ", session_id)), {.reason = "UNKNOWN_SESSION"});
}

}  // namespace

Controller::Controller(LinkProfile profile, Parameters parameters) : profile_(profile), parameters_(parameters) {
  parameters_.min_window_bytes = std::max<uint64_t>(parameters_.min_window_bytes, 1);
  profile_.bandwidth_bytes_per_s = std::max(profile_.bandwidth_bytes_per_s, 1.0);
  round_trip_ns_ = static_cast<double>(profile_.round_trip_ns);
  target_bytes_ = GoalBytes();
}

absl::Status Controller::AddSession(uint64_t session_id, uint32_t weight, uint64_t now_ns) {
  DAK_RETURN_IF_ERROR(CheckWeight(weight));
  if (Find(session_id) != nullptr) return absl::AlreadyExistsError(absl::StrCat("session ", session_id, " is there"));
  const auto after = std::find_if(sessions_.begin(), sessions_.end(),
                                  [&](const Entry& entry) { return entry.state.session_id > session_id; });
  Entry& entry = *sessions_.emplace(after);
  entry.state.session_id = session_id;
  entry.state.weight = weight;
  entry.state.active = true;
  entry.since_ns = now_ns;
  entry.last_byte_ns = now_ns;
  if (sessions_.size() == 1) last_tick_ns_ = now_ns;
  Divide(/*settle_rounding=*/false);
  entry.least_window_bytes = entry.state.window_bytes;
  return absl::OkStatus();
}

absl::Status Controller::RemoveSession(uint64_t session_id, uint64_t) {
  Entry* const entry = Find(session_id);
  if (entry == nullptr) return UnknownSession(session_id);
  sessions_.erase(sessions_.begin() + (entry - sessions_.data()));
  if (sessions_.empty()) {
    // The next one starts from the profile.
    round_trip_ns_ = static_cast<double>(profile_.round_trip_ns);
    target_bytes_ = GoalBytes();
    cut_ = {};
    trial_ = {};
    learned_ns_ = 0;
    doubted_ns_ = 0;
    load_ = {};
    unexplained_bytes_ = 0;
  }
  Divide(/*settle_rounding=*/false);
  return absl::OkStatus();
}

absl::Status Controller::SetWeight(uint64_t session_id, uint32_t weight, uint64_t) {
  DAK_RETURN_IF_ERROR(CheckWeight(weight));
  Entry* const entry = Find(session_id);
  if (entry == nullptr) return UnknownSession(session_id);
  entry->state.weight = weight;
  Divide(/*settle_rounding=*/false);
  return absl::OkStatus();
}

void Controller::SetBackgroundDemand(bool wants, uint64_t) {
  background_wants_ = wants;
  Divide(/*settle_rounding=*/false);
}

void Controller::Tick(uint64_t now_ns, absl::Span<const SessionReport> reports) {
  if (sessions_.empty()) return;
  if (now_ns < last_tick_ns_) return Rebase(now_ns, reports);
  if (now_ns - last_tick_ns_ < std::max<uint64_t>(parameters_.interval_ns / kLeastOfInterval, 1)) return;
  const uint64_t elapsed_ns = now_ns - last_tick_ns_;
  last_tick_ns_ = now_ns;
  const double target_bytes = target_bytes_;
  Measure(now_ns, elapsed_ns, reports);
  Adapt(elapsed_ns);
  for (Entry& entry : sessions_) {
    const uint64_t kept_bytes = entry.measured.still ? entry.most_before_bytes : 0;
    entry.most_before_bytes = std::max(kept_bytes, entry.most_window_bytes);
    entry.most_window_bytes = 0;
    entry.least_window_bytes = ~uint64_t{0};
  }
  const int idle_ticks = AllAreIdle() ? std::min(idle_ticks_ + 1, kSettledTicks) : 0;
  const bool calm = !load_.news && target_bytes_ == target_bytes && !cut_.made;
  const uint64_t calm_ns = calm ? calm_ns_ + elapsed_ns : 0;
  if (IsDivided()) {
    for (Entry& entry : sessions_) entry.most_window_bytes = entry.least_window_bytes = entry.state.window_bytes;
  } else {
    Divide(/*settle_rounding=*/true);
  }
  idle_ticks_ = idle_ticks;
  calm_ns_ = calm_ns;
}

bool Controller::AllAreIdle() const {
  return std::none_of(sessions_.begin(), sessions_.end(),
                      [](const Entry& entry) { return entry.state.active || entry.state.violating; });
}

bool Controller::Rest(uint64_t now_ns) {
  if (idle_ticks_ < kSettledTicks || now_ns < last_tick_ns_) return false;
  calm_ns_ += now_ns - last_tick_ns_;
  last_tick_ns_ = now_ns;
  rested_ns_ = now_ns;
  return true;
}

uint64_t Controller::NextIntervalNs() const {
  const bool idle = idle_ticks_ == kSettledTicks;
  const uint64_t interval_ns = parameters_.interval_ns;
  if (calm_ns_ < (idle ? kLongCalmNs : kCalmNs)) return interval_ns;
  return std::max(interval_ns, std::min(interval_ns * (idle ? kIdleIntervals : kCalmIntervals), kMostIntervalNs));
}

Budget Controller::SessionsBudget() const {
  return {.target_bytes = std::min(target_bytes_, SafeBytes()),
          .enough_bytes = kEnough * Product(),
          .cap_bytes = CapBytes(),
          .tile_bytes = parameters_.min_window_bytes};
}

bool Controller::IsDivided() const {
  return settled_ && !load_.turned && !load_.modest && !load_.violating && SessionsBudget() == divided_;
}

void Controller::SetWindow(Entry& entry, const Share& share) {
  settled_ &= entry.carry_tiles == share.carry_tiles;
  entry.carry_tiles = share.carry_tiles;
  entry.state.window_bytes = share.window_bytes;
  entry.most_window_bytes = std::max(entry.most_window_bytes, share.window_bytes);
  entry.least_window_bytes = std::min(entry.least_window_bytes, share.window_bytes);
}

// What honest sessions that want the link should have so that a violator's bytes in flight win it no more than its
// weight's share: as much in proportion, as far as half the cliff and the cliff itself allow.
double Controller::CompensatedBytes(const std::vector<Share>& honest, double violators_window_bytes) const {
  double weight = 0, violators_weight = 0, now_bytes = 0, tiles_bytes = 0;
  for (const Share& share : honest) {
    if (!share.hungry) continue;
    weight += share.weight;
    now_bytes += static_cast<double>(share.window_bytes);
    tiles_bytes += static_cast<double>(parameters_.min_window_bytes);
  }
  for (const Entry& entry : sessions_) {
    if (entry.state.violating) violators_weight += entry.state.weight;
  }
  const double fair_bytes = std::max(now_bytes, load_.violating_bytes * weight / violators_weight);
  return std::max(std::min({fair_bytes, CapBytes() - violators_window_bytes, SafeBytes()}), tiles_bytes);
}

void Controller::Divide(bool settle_rounding) {
  idle_ticks_ = 0;  // what a caller has changed takes effect
  calm_ns_ = 0;
  const auto tile = static_cast<double>(parameters_.min_window_bytes);
  std::vector<Entry*> honest_entries, violators;
  std::vector<Share> all;
  honest_entries.reserve(sessions_.size());
  all.reserve(sessions_.size());
  bool hungry = false;
  double modest_bytes = 0;
  for (Entry& entry : sessions_) {
    (entry.state.violating ? violators : honest_entries).push_back(&entry);
    hungry |= entry.hungry;
    if (!entry.hungry) modest_bytes += kHeadroom * entry.used_bytes;
  }
  // Honest ones first: their shares can then be divided again without the others.
  for (const std::vector<Entry*>* entries : {&honest_entries, &violators}) {
    for (const Entry* entry : *entries) {
      all.push_back({.weight = entry->state.weight,
                     .hungry = entry->hungry,
                     .used_bytes = entry->hungry ? 0 : kHeadroom * entry->used_bytes,
                     .carry_tiles = entry->carry_tiles});
    }
  }
  Budget budget = SessionsBudget();
  divided_ = budget;
  settled_ = settle_rounding && !load_.modest && !load_.violating;
  double background_bytes = 0;
  if (background_wants_) {
    background_bytes = hungry ? tile : std::max(std::floor((budget.target_bytes - modest_bytes) / tile) * tile, tile);
    budget.cap_bytes -= background_bytes;
    if (hungry) budget.target_bytes -= background_bytes;
  }
  background_window_bytes_ = static_cast<uint64_t>(background_bytes);

  Division division = dak::congestion::Divide(budget, settle_rounding && violators.empty(), absl::MakeSpan(all));
  planned_bytes_ = division.hungry_bytes > budget.target_bytes
                       ? division.hungry_bytes + division.modest_bytes + background_bytes
                       : 0;
  if (!violators.empty()) {
    double violators_window_bytes = 0;
    for (size_t i = honest_entries.size(); i < all.size(); ++i) {
      violators_window_bytes += static_cast<double>(all[i].window_bytes);
      SetWindow(*violators[i - honest_entries.size()], all[i]);
    }
    all.resize(honest_entries.size());
    budget.target_bytes = CompensatedBytes(all, violators_window_bytes) + modest_bytes;
    budget.cap_bytes -= violators_window_bytes;
    division = dak::congestion::Divide(budget, settle_rounding, absl::MakeSpan(all));
    planned_bytes_ = division.hungry_bytes + division.modest_bytes + load_.violating_bytes + background_bytes;
  }
  for (size_t i = 0; i < honest_entries.size(); ++i) SetWindow(*honest_entries[i], all[i]);
}

std::vector<SessionState> Controller::Sessions() const {
  std::vector<SessionState> states;
  states.reserve(sessions_.size());
  for (const Entry& entry : sessions_) states.push_back(entry.state);
  return states;
}

uint64_t Controller::WindowOf(uint64_t session_id) const {
  const Entry* const entry = Find(session_id);
  return entry == nullptr ? 0 : entry->state.window_bytes;
}

const Controller::Entry* Controller::Find(uint64_t session_id) const {
  const auto found = std::lower_bound(sessions_.begin(), sessions_.end(), session_id,
                                      [](const Entry& entry, uint64_t id) { return entry.state.session_id < id; });
  return found == sessions_.end() || found->state.session_id != session_id ? nullptr : &*found;
}

Controller::Entry* Controller::Find(uint64_t session_id) {
  return const_cast<Entry*>(std::as_const(*this).Find(session_id));
}

Controller::Entry* Controller::FindNext(uint64_t session_id, size_t* next) {
  const bool is_next = *next < sessions_.size() && sessions_[*next].state.session_id == session_id;
  Entry* const entry = is_next ? &sessions_[*next] : Find(session_id);
  if (entry != nullptr) *next = static_cast<size_t>(entry - sessions_.data()) + 1;
  return entry;
}

}  // namespace dak::congestion

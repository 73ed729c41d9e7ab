#include "daemon/congestion_loop.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/clock.h"

namespace dak::daemon {
namespace {

// More than any session can have in flight; keeps sums of what clients claim from overflowing.
constexpr uint64_t kMostInflightBytes = uint64_t{1} << 32;

uint64_t Growth(uint64_t now, uint64_t before) { return now > before ? now - before : 0; }

// What an operator reads in the event.
std::string Describe(uint32_t link, const congestion::SessionState& state, const LinkReportValues& report) {
  const std::string where = absl::StrCat("link ", link, ": ");
  if (state.implausible) return absl::StrCat(where, "what it reports can't be true");
  return absl::StrCat(where, std::max(report.inflight_bytes, state.inflight_bytes), " bytes in flight, window ",
                      state.window_bytes);
}

}  // namespace

CongestionLoop::CongestionLoop(std::vector<NodeLink> links, const congestion::Parameters& parameters, EventLog* events,
                               monitoring::Metrics* metrics)
    : links_(std::move(links)), parameters_(parameters), events_(events), metrics_(metrics) {
  for (const NodeLink& link : links_) controllers_.emplace_back(link.profile, parameters);
  background_users_.resize(links_.size());
  slots_.resize(links_.size());
}

CongestionLoop::~CongestionLoop() { Stop(); }

void CongestionLoop::Start() {
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "dak-congestion");
    Run();
  });
}

void CongestionLoop::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void CongestionLoop::Run() {
  uint64_t interval_ns = 0;
  auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || !sessions_.empty(); };
  auto sooner = [this, &interval_ns]()
                    ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || LeastIntervalNs() < interval_ns; };
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&work));
      // A change ends a long interval, and a usual one is waited for from then on.
      do {
        interval_ns = LeastIntervalNs();
      } while (mutex_.AwaitWithTimeout(absl::Condition(&sooner), absl::Nanoseconds(interval_ns)) && !stop_);
      if (stop_) return;
    }
    TickOnce(MonotonicNs());
  }
}

uint64_t CongestionLoop::NextIntervalNs() const {
  absl::MutexLock lock(&mutex_);
  return LeastIntervalNs();
}

uint64_t CongestionLoop::LeastIntervalNs() const {
  uint64_t least_ns = ~uint64_t{0};
  for (const congestion::Controller& controller : controllers_) {
    least_ns = std::min(least_ns, controller.NextIntervalNs());
  }
  return least_ns;
}

absl::Status CongestionLoop::Add(uint64_t session_id, const std::string& name, uint32_t weight,
                                 std::shared_ptr<SessionPages> pages) {
  absl::MutexLock lock(&mutex_);
  const uint64_t now_ns = MonotonicNs();
  for (congestion::Controller& controller : controllers_) {
    DAK_RETURN_IF_ERROR(controller.AddSession(session_id, weight, now_ns));
  }
  Entry& entry = sessions_[session_id];
  entry.name = name;
  entry.pages = std::move(pages);
  for (uint32_t link = 0; link < controllers_.size(); ++link) {
    std::vector<Slot>& slots = slots_[link];
    const auto after =
        std::find_if(slots.begin(), slots.end(), [&](const Slot& s) { return s.session_id > session_id; });
    Slot& slot = *slots.emplace(after);
    slot.session_id = session_id;
    slot.pages = entry.pages.get();
    slot.report = entry.pages->report(link);
    WritePages(link);
  }
  return absl::OkStatus();
}

void CongestionLoop::Remove(uint64_t session_id) {
  absl::MutexLock lock(&mutex_);
  if (sessions_.erase(session_id) == 0) return;
  for (std::vector<Slot>& slots : slots_) {
    std::erase_if(slots, [&](const Slot& slot) { return slot.session_id == session_id; });
  }
  const uint64_t now_ns = MonotonicNs();
  for (congestion::Controller& controller : controllers_) {
    controller.RemoveSession(session_id, now_ns).IgnoreError();  // added to all links or to none
  }
}

void CongestionLoop::SetPlanVersion(uint64_t session_id, uint64_t version) {
  absl::MutexLock lock(&mutex_);
  auto it = sessions_.find(session_id);
  if (it != sessions_.end()) it->second.pages->WritePlanVersion(version);
}

void CongestionLoop::TickOnce(uint64_t now_ns) {
  std::vector<Violation> violations;
  {
    absl::MutexLock lock(&mutex_);
    const uint64_t elapsed_ns = last_tick_ns_ == 0 ? parameters_.interval_ns : Growth(now_ns, last_tick_ns_);
    last_tick_ns_ = std::max(last_tick_ns_, now_ns);
    for (uint32_t link = 0; link < controllers_.size(); ++link) TickLink(link, now_ns, elapsed_ns, &violations);
  }
  for (const Violation& violation : violations) {
    events_->Append(v1::Event::WINDOW_VIOLATED, violation.session_id, violation.name, violation.message);
  }
}

bool CongestionLoop::ReadPages(uint32_t link, uint64_t elapsed_ns) {
  // A late scrape of a page may fall into the next interval, hence the factor of two.
  const auto most_bytes =
      static_cast<uint64_t>(2 * links_[link].profile.bandwidth_bytes_per_s * static_cast<double>(elapsed_ns) / 1e9);
  // All at once: one after the other, each would be waited for.
  for (const Slot& slot : slots_[link]) __builtin_prefetch(slot.report);
  reports_.clear();
  bool is_news = false;
  for (Slot& slot : slots_[link]) {
    const LinkReportValues now = ReadReport(*slot.report);
    is_news |= now != slot.last;
    slot.total.bytes += std::min(Growth(now.bytes, slot.last.bytes), most_bytes);
    slot.total.round_trip_ns += Growth(now.round_trip_ns, slot.last.round_trip_ns);
    slot.total.round_trips += Growth(now.round_trips, slot.last.round_trips);
    slot.last = now;
    reports_.push_back({.session_id = slot.session_id,
                        .bytes = now.bytes,
                        .round_trip_ns = now.round_trip_ns,
                        .round_trips = now.round_trips,
                        .inflight_bytes = now.inflight_bytes,
                        .inflight_peak_bytes = now.inflight_peak_bytes});
  }
  return is_news;
}

void CongestionLoop::TickLink(uint32_t link, uint64_t now_ns, uint64_t elapsed_ns, std::vector<Violation>* violations) {
  congestion::Controller& controller = controllers_[link];
  if (!ReadPages(link, elapsed_ns) && controller.Rest(now_ns)) return;
  controller.Tick(now_ns, reports_);
  for (size_t i = 0; i < slots_[link].size(); ++i) {
    const congestion::SessionState& state = controller.SessionAt(i);
    Slot& slot = slots_[link][i];
    if (state.round_trip_ns > 0) metrics_->ObserveRoundTrip(link, state.round_trip_ns / 1e9);
    if (state.violating) {
      const std::string& name = sessions_.at(state.session_id).name;
      metrics_->CountWindowViolation(state.session_id, name);
      // An event for each time that it starts, not for each interval that it lasts.
      if (!slot.violating) violations->push_back({state.session_id, name, Describe(link, state, slot.last)});
    }
    slot.violating = state.violating;
  }
  WritePages(link);
}

void CongestionLoop::WritePages(uint32_t link) {
  uint64_t inflight_sum_bytes = controllers_[link].background_window_bytes();
  for (const Slot& slot : slots_[link]) inflight_sum_bytes += std::min(slot.last.inflight_bytes, kMostInflightBytes);
  for (size_t i = 0; i < slots_[link].size(); ++i) {
    Slot& slot = slots_[link][i];
    const uint64_t neighbours_bytes =
        Growth(inflight_sum_bytes, std::min(slot.last.inflight_bytes, kMostInflightBytes));
    if (links_[link].is_modelled && neighbours_bytes != slot.neighbours_bytes) {
      slot.neighbours_bytes = neighbours_bytes;
      slot.pages->WriteNeighbourInflight(link, neighbours_bytes);
    }
    const uint64_t window_bytes = controllers_[link].SessionAt(i).window_bytes;
    if (window_bytes == slot.window_bytes) continue;
    slot.window_bytes = window_bytes;
    slot.pages->WriteWindow(link, window_bytes);
  }
}

void CongestionLoop::BeginBackground(uint32_t link) {
  absl::MutexLock lock(&mutex_);
  ChangeBackground(link, background_users_[link] + 1);
}

void CongestionLoop::EndBackground(uint32_t link) {
  absl::MutexLock lock(&mutex_);
  ChangeBackground(link, background_users_[link] - 1);
}

void CongestionLoop::ChangeBackground(uint32_t link, uint64_t users) {
  const bool wanted = background_users_[link] > 0;
  background_users_[link] = users;
  if (wanted == (users > 0)) return;
  controllers_[link].SetBackgroundDemand(users > 0, MonotonicNs());
  WritePages(link);
}

// What is in flight comes back once a round trip, so shares of the target are shares of the rate.
double CongestionLoop::BackgroundRate(uint32_t link) const {
  const auto window = static_cast<double>(controllers_[link].background_window_bytes());
  const double target = std::max(static_cast<double>(controllers_[link].target_bytes()), 1.0);
  // Targets are whole tiles or less; what rounding takes isn't worth pacing for.
  return links_[link].profile.bandwidth_bytes_per_s * (window >= 0.9 * target ? 1.0 : window / target);
}

double CongestionLoop::BackgroundBytesPerS(uint32_t link) const {
  absl::MutexLock lock(&mutex_);
  return BackgroundRate(link) / static_cast<double>(std::max<uint64_t>(background_users_[link], 1));
}

std::vector<LinkSnapshot> CongestionLoop::Snapshot() const {
  absl::MutexLock lock(&mutex_);
  std::vector<LinkSnapshot> links(controllers_.size());
  for (size_t link = 0; link < controllers_.size(); ++link) {
    links[link].link = links_[link];
    links[link].target_bytes = controllers_[link].target_bytes();
    links[link].background_bytes_per_s = static_cast<uint64_t>(BackgroundRate(static_cast<uint32_t>(link)));
    links[link].unexplained_bytes = controllers_[link].unexplained_bytes();
    for (size_t i = 0; i < slots_[link].size(); ++i) {
      const congestion::SessionState& state = controllers_[link].SessionAt(i);
      const LinkReportValues& total = slots_[link][i].total;
      links[link].sessions.push_back({.state = state,
                                      .name = sessions_.at(state.session_id).name,
                                      .remote_bytes = total.bytes,
                                      .round_trip_ns_sum = total.round_trip_ns,
                                      .round_trips = total.round_trips});
    }
  }
  return links;
}

}  // namespace dak::daemon

#include "daemon/events/event_log.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "allocator/base/error_detail.h"

namespace dak::daemon {

void EventLog::Append(v1::Event::Type type, uint64_t session_id, absl::string_view subject, absl::string_view message,
                      const TierArray* bytes) {
  auto event = std::make_shared<v1::Event>();
  event->set_time_unix_ns(static_cast<uint64_t>(absl::GetCurrentTimeNanos()));
  event->set_type(type);
  event->set_session_id(session_id);
  event->set_subject(std::string(subject));
  event->set_message(std::string(message));
  for (const Tier tier : kAllTiers) {
    if (bytes == nullptr || (*bytes)[TierIndex(tier)] == 0) continue;
    v1::TierBytes* entry = event->add_bytes();
    entry->set_tier(static_cast<v1::Tier>(tier));
    entry->set_bytes((*bytes)[TierIndex(tier)]);
  }
  absl::MutexLock lock(&mutex_);
  event->set_sequence(next_sequence_++);
  if (ring_.size() == kCapacity) ring_.pop_front();
  ring_.push_back(event);
  if (observer_) observer_(type);
  for (EventWatcher* watcher : watchers_) watcher->OnEvent(ring_.back());
}

absl::Status EventLog::Subscribe(EventWatcher* watcher, uint32_t replay) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return absl::UnavailableError("the daemon is shutting down");
  if (watchers_.size() >= max_watchers_) {
    return WithDetail(absl::ResourceExhaustedError("too many watchers"),
                      {.reason = "TOO_MANY_WATCHERS", .limit = absl::StrCat("at most ", max_watchers_)});
  }
  const size_t count = std::min<size_t>(replay, ring_.size());
  for (size_t i = ring_.size() - count; i < ring_.size(); ++i) watcher->OnEvent(ring_[i]);
  watchers_.insert(watcher);
  return absl::OkStatus();
}

void EventLog::Unsubscribe(EventWatcher* watcher) {
  absl::MutexLock lock(&mutex_);
  watchers_.erase(watcher);
}

void EventLog::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  for (EventWatcher* watcher : watchers_) watcher->OnShutdown();
  watchers_.clear();
}

}  // namespace dak::daemon

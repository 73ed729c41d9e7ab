// What happened on this node, in order: the last 1024 events, and whoever watches.
//
// Every state change is appended after it has happened; sequence numbers start at 1 and have no gaps. A watcher is
// told of every event from its subscription on, without a gap to what it had replayed.
//
// Thread safety: all methods may be called from any thread. Watchers are called under the log's lock: they must be
// quick, and must not call the log.
#ifndef DAK_DAEMON_EVENTS_EVENT_LOG_H_
#define DAK_DAEMON_EVENTS_EVENT_LOG_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "daemon/session/tensor.h"
#include "dak/v1/node.pb.h"

namespace dak::daemon {

using EventPtr = std::shared_ptr<const v1::Event>;

class EventWatcher {
 public:
  virtual ~EventWatcher() = default;
  virtual void OnEvent(const EventPtr& event) = 0;
  virtual void OnShutdown() = 0;
};

class EventLog {
 public:
  static constexpr size_t kCapacity = 1024;

  // `observer` is called with each event's type, under the lock; may be empty.
  EventLog(uint64_t max_watchers, std::function<void(v1::Event::Type)> observer)
      : max_watchers_(max_watchers), observer_(std::move(observer)) {}

  // `bytes` may be null. Tiers with 0 bytes are left out.
  void Append(v1::Event::Type type, uint64_t session_id, absl::string_view subject, absl::string_view message,
              const TierArray* bytes = nullptr);

  // Hands the watcher up to `replay` of the latest events, then every later one. RESOURCE_EXHAUSTED if there are
  // too many watchers, UNAVAILABLE after Close.
  absl::Status Subscribe(EventWatcher* watcher, uint32_t replay);
  // After this returns the watcher isn't called again. Harmless if it isn't subscribed.
  void Unsubscribe(EventWatcher* watcher);
  // Tells every watcher that the end has come; later subscriptions are refused.
  void Close();

 private:
  const uint64_t max_watchers_;
  const std::function<void(v1::Event::Type)> observer_;
  absl::Mutex mutex_;
  uint64_t next_sequence_ ABSL_GUARDED_BY(mutex_) = 1;
  std::deque<EventPtr> ring_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<EventWatcher*> watchers_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_EVENTS_EVENT_LOG_H_

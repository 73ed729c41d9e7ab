#include "daemon/rpc/watch_events.h"

#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "daemon/events/event_log.h"
#include "daemon/session/limits.h"

namespace dak::daemon {
namespace {

constexpr char kMethod[] = "dak.v1.NodeService/WatchEvents";

class Watch final : public grpc::ServerWriteReactor<v1::Event>, public EventWatcher {
 public:
  explicit Watch(const ServiceContext& service) : service_(service), begin_ns_(MonotonicNs()) {}

  void Begin(const absl::StatusOr<Peer>& caller, uint32_t replay) {
    absl::Status status = caller.status();
    if (status.ok() && replay > kMaxReplay) {
      status = InvalidField("replay", absl::StrCat(replay, " is out of range"), absl::StrCat("at most ", kMaxReplay));
    }
    if (status.ok()) status = service_.environment->events->Subscribe(this, replay);
    if (!status.ok()) {
      End(status);
      return;
    }
    // A client learns from this that it misses nothing from here on.
    absl::MutexLock lock(&mutex_);
    if (finished_ || metadata_sent_) return;
    metadata_sent_ = true;
    StartSendInitialMetadata();
  }

  void OnEvent(const EventPtr& event) override {
    {
      absl::MutexLock lock(&mutex_);
      if (finished_) return;
      if (queue_.size() < kMaxWatcherQueue) {
        queue_.push_back(event);
        WriteNext();
        return;
      }
    }
    End(WithDetail(absl::DataLossError("the watcher fell too far behind"),
                   {.reason = "WATCHER_TOO_SLOW", .limit = absl::StrCat("at most ", kMaxWatcherQueue, " events")}));
  }
  void OnShutdown() override { End(absl::UnavailableError("the daemon is shutting down")); }

  void OnWriteDone(bool ok) override {
    bool finish = false;
    {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      queue_.pop_front();
      finish = finished_;
      if (!finish && ok) WriteNext();
    }
    if (finish) {
      Finish(ToGrpcStatus(end_));
    } else if (!ok) {
      End(absl::CancelledError("the watcher has gone"));
    }
  }
  void OnCancel() override { End(absl::CancelledError("the watcher has gone")); }
  void OnDone() override {
    service_.environment->events->Unsubscribe(this);
    delete this;
  }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || queue_.empty()) return;
    writing_ = true;
    metadata_sent_ = true;
    StartWrite(queue_.front().get());
  }

  // A write that is under way must end before the stream may; OnWriteDone then finishes it.
  void End(const absl::Status& status) {
    bool finish = false;
    {
      absl::MutexLock lock(&mutex_);
      if (finished_) return;
      finished_ = true;
      end_ = status;
      finish = !writing_;
    }
    service_.environment->metrics->ObserveRpc(kMethod, CodeName(status.code()),
                                              static_cast<double>(MonotonicNs() - begin_ns_) / 1e9);
    if (finish) Finish(ToGrpcStatus(status));
  }

  const ServiceContext& service_;
  const uint64_t begin_ns_;
  absl::Mutex mutex_;
  std::deque<EventPtr> queue_ ABSL_GUARDED_BY(mutex_);  // the first is being written while writing_
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool metadata_sent_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_;  // set once, with finished_
};

}  // namespace

grpc::ServerWriteReactor<v1::Event>* StartWatch(const ServiceContext& service,
                                                const grpc::CallbackServerContext& context,
                                                const v1::WatchEventsRequest& request) {
  auto* watch = new Watch(service);
  watch->Begin(service.peers->Find(context.peer()), request.replay());
  return watch;
}

}  // namespace dak::daemon

#include "daemon/rpc/watch_events.h"

#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "allocator/base/status_macros.h"
#include "daemon/events/event_log.h"
#include "daemon/session/limits.h"

namespace dak::daemon {
namespace {

class Watch final : public EventWatcher {
 public:
  // Subscribed from construction to destruction.
  Watch(EventLog* events, uint32_t replay) : events_(events), subscribed_(events->Subscribe(this, replay)) {}
  ~Watch() override { events_->Unsubscribe(this); }

  const absl::Status& subscribed() const { return subscribed_; }

  void OnEvent(const EventPtr& event) override {
    absl::MutexLock lock(&mutex_);
    if (!end_.ok()) return;
    if (queue_.size() < kMaxWatcherQueue) {
      queue_.push_back(event);
      return;
    }
    end_ = WithDetail(absl::DataLossError("the watcher fell too far behind"),
                      {.reason = "WATCHER_TOO_SLOW", .limit = absl::StrCat("at most ", kMaxWatcherQueue, " events")});
  }
  void OnShutdown() override {
    absl::MutexLock lock(&mutex_);
    if (end_.ok()) end_ = absl::UnavailableError("the daemon is shutting down");
  }

  absl::Status Stream(const grpc::ServerContext& context, grpc::ServerWriter<v1::Event>* writer) {
    // A client learns from this that it misses nothing from here on.
    writer->SendInitialMetadata();
    while (true) {
      EventPtr event;
      DAK_RETURN_IF_ERROR(Next(&event));
      if (event == nullptr ? context.IsCancelled() : !writer->Write(*event)) {
        return absl::CancelledError("the watcher has gone");
      }
    }
  }

 private:
  // Waits a while; null if nothing happened in it. Fails when the stream must end.
  absl::Status Next(EventPtr* event) {
    auto something = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !queue_.empty() || !end_.ok(); };
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(&something), kDepartureCheckInterval);
    DAK_RETURN_IF_ERROR(end_);
    if (queue_.empty()) return absl::OkStatus();
    *event = std::move(queue_.front());
    queue_.pop_front();
    return absl::OkStatus();
  }

  EventLog* const events_;
  absl::Mutex mutex_;
  std::deque<EventPtr> queue_ ABSL_GUARDED_BY(mutex_);
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  const absl::Status subscribed_;  // last: events come as soon as it is set
};

absl::Status Run(const ServiceContext& service, const grpc::ServerContext& context,
                 const v1::WatchEventsRequest& request, grpc::ServerWriter<v1::Event>* writer) {
  if (request.replay() > kMaxReplay) {
    return InvalidField("replay", absl::StrCat(request.replay(), " is out of range"),
                        absl::StrCat("at most ", kMaxReplay));
  }
  Watch watch(service.environment->events, request.replay());
  DAK_RETURN_IF_ERROR(watch.subscribed());
  return watch.Stream(context, writer);
}

}  // namespace

grpc::Status StreamEvents(const ServiceContext& service, const grpc::ServerContext& context,
                          const v1::WatchEventsRequest& request, grpc::ServerWriter<v1::Event>* writer) {
  return HandleCall(service, context, "dak.v1.NodeService/WatchEvents",
                    [&](const Peer&) { return Run(service, context, request, writer); });
}

}  // namespace dak::daemon

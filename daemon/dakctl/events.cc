#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "allocator/base/status_macros.h"
#include "daemon/dakctl/commands.h"
#include "daemon/dakctl/json.h"
#include "daemon/dakctl/views.h"

namespace dak::dakctl {
namespace {

// The stream has no mark where past events end, so without --follow it is over when nothing came for this long.
constexpr auto kQuiet = std::chrono::milliseconds(300);

// Reads the stream on a thread of its own, so that the reader may stop waiting.
class EventReader {
 public:
  EventReader(const Client& client, uint32_t replay) {
    v1::WatchEventsRequest request;
    request.set_replay(replay);
    stream_ = client.node().WatchEvents(&context_, request);
    thread_ = std::thread([this] { Pump(); });
  }
  ~EventReader() {
    context_.TryCancel();
    thread_.join();
  }

  // The next event; nothing if the stream ended or, where `quiet` is given, if none came for that long.
  std::optional<v1::Event> Next(std::optional<std::chrono::milliseconds> quiet) {
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return !events_.empty() || end_.has_value(); };
    if (quiet.has_value()) {
      changed_.wait_for(lock, *quiet, ready);
    } else {
      changed_.wait(lock, ready);
    }
    if (events_.empty()) return std::nullopt;
    v1::Event event = std::move(events_.front());
    events_.pop_front();
    changed_.notify_all();
    return event;
  }
  // How the stream ended, if it did.
  std::optional<grpc::Status> end() {
    std::lock_guard lock(mutex_);
    return end_;
  }

 private:
  static constexpr size_t kMaxHeld = 1024;

  void Pump() {
    for (v1::Event event; stream_->Read(&event);) {
      std::unique_lock lock(mutex_);
      events_.push_back(std::move(event));
      changed_.notify_all();
      // A pipe that takes nothing holds the stream up rather than filling memory; dakd then ends it.
      changed_.wait_for(lock, std::chrono::seconds(1), [this] { return events_.size() < kMaxHeld; });
    }
    const grpc::Status status = stream_->Finish();
    std::lock_guard lock(mutex_);
    end_ = status;
    changed_.notify_all();
  }

  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::Event>> stream_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::Event> events_;
  std::optional<grpc::Status> end_;
  std::thread thread_;
};

}  // namespace

absl::Status RunEvents(const Client& client, const Options& options, std::ostream& out) {
  // Says at once if there is no daemon, and that the connection stands before the quiet time counts.
  DAK_RETURN_IF_ERROR(client.Call(client.node(), &v1::NodeService::Stub::GetNode, {}).status());
  if (!options.follow && options.replay == 0) return absl::OkStatus();
  EventReader reader(client, options.replay);
  const Format format{options.exact_bytes};
  uint32_t shown = 0;
  while (out.good() && (options.follow || shown < options.replay)) {
    const auto event = reader.Next(options.follow ? std::nullopt : std::optional(kQuiet));
    if (!event.has_value()) break;
    out << (options.json ? ToJson(*event, JsonStyle::kLine) : EventLine(*event, format)) << std::flush;
    ++shown;
  }
  const auto end = reader.end();
  if (end.has_value() && !end->ok()) return client.Explain(*end);
  if (options.follow && out.good()) return absl::UnavailableError("dakd ended the stream of events");
  if (shown == 0 && !options.json) out << "no events\n";
  return absl::OkStatus();
}

}  // namespace dak::dakctl

// grpc.health.v1.Health: whether this daemon takes calls. Only the daemon as a whole, service "", has a state.
//
// Thread safety: all methods may be called from any thread.
// Errors: NOT_FOUND (Check of another service), RESOURCE_EXHAUSTED (too many Watch streams), UNAVAILABLE (a Watch
// stream at the daemon's end).
#ifndef DAK_DAEMON_RPC_HEALTH_SERVICE_H_
#define DAK_DAEMON_RPC_HEALTH_SERVICE_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "daemon/rpc/call_gate.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace dak::daemon {

inline constexpr uint64_t kMaxHealthWatchers = 16;  // each holds a thread of the server

class HealthServiceImpl final : public grpc::health::v1::Health::Service {
 public:
  // A stop waits at `gate`, which outlives the service, for the Watch streams.
  explicit HealthServiceImpl(CallGate* gate) : gate_(gate) {}

  grpc::Status Check(grpc::ServerContext* context, const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* response) override;
  grpc::Status Watch(grpc::ServerContext* context, const grpc::health::v1::HealthCheckRequest* request,
                     grpc::ServerWriter<grpc::health::v1::HealthCheckResponse>* writer) override;

  // Serving until then, and never again. Every Watch stream is told and ended.
  void StopServing();

 private:
  // Until the stream must end, with the status that ends it.
  absl::Status Stream(const grpc::ServerContext& context, bool known,
                      grpc::ServerWriter<grpc::health::v1::HealthCheckResponse>* writer);
  absl::Status AddWatcher();

  CallGate* const gate_;
  absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t watchers_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_HEALTH_SERVICE_H_

// What every handler does before and after its own work: who calls, how long it took, how a status goes back.
#ifndef DAK_DAEMON_RPC_CALL_H_
#define DAK_DAEMON_RPC_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "allocator/base/error_detail.h"
#include "daemon/congestion_loop.h"
#include "daemon/ipc/peers.h"
#include "daemon/planning.h"
#include "daemon/profile/node_profile.h"
#include "daemon/rpc/call_gate.h"
#include "daemon/session/clock.h"
#include "daemon/session/session_manager.h"
#include "dak/v1/plan.pb.h"
#include "dak/v1/session.pb.h"

namespace dak::daemon {

// What the services share. Set up before the server starts, unchanged while it runs; everything outlives it.
struct ServiceContext {
  SessionEnvironment* environment = nullptr;
  SessionManager* sessions = nullptr;
  CongestionLoop* congestion = nullptr;
  Planning* planning = nullptr;
  PeerTable* peers = nullptr;
  CallGate* gate = nullptr;
  std::string version;
  v1::DeviceInfo device;
  std::array<int, kTierCount> numa_nodes{};  // by TierIndex
  TierArray default_quota_bytes{};
  NodeProfile profile;
  std::string metrics_address;
  uint64_t started_ns = 0;
};

// How often a stream that has nothing to say looks whether its reader is still there: gRPC tells a synchronous handler
// of that only when it asks.
inline constexpr absl::Duration kDepartureCheckInterval = absl::Milliseconds(200);

// The status as gRPC carries it: the detail rides in `grpc-status-details-bin` as a google.rpc.Status.
grpc::Status ToGrpcStatus(const absl::Status& status);
// "OK", "NOT_FOUND", ...
const char* CodeName(absl::StatusCode code);

// Runs `handler(caller)` and counts the call. `method` as in "dak.v1.NodeService/GetNode".
template <typename Handler>
grpc::Status HandleCall(const ServiceContext& service, const grpc::ServerContextBase& call, const char* method,
                        Handler&& handler) {
  const uint64_t begin_ns = MonotonicNs();
  absl::Status status = absl::UnavailableError("the daemon is shutting down");
  if (service.gate->Enter()) {
    const absl::StatusOr<Peer> caller = service.peers->Find(call.peer());
    status = caller.ok() ? handler(*caller) : caller.status();
    service.gate->Leave();
  }
  service.environment->metrics->ObserveRpc(method, CodeName(status.code()),
                                           static_cast<double>(MonotonicNs() - begin_ns) / 1e9);
  return status.ok() ? grpc::Status() : ToGrpcStatus(status);
}

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_CALL_H_

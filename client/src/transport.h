// Calls to dakd over control.sock: one gRPC channel, a deadline on every call, errors with their details.
//
// Thread safety: all methods may be called from any thread.
// Errors: the daemon's own, or UNAVAILABLE (nobody listens; the message names the socket) or DEADLINE_EXCEEDED.
#ifndef DAK_CLIENT_SRC_TRANSPORT_H_
#define DAK_CLIENT_SRC_TRANSPORT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/src/rpc_status.h"
#include "dak/v1/migration.grpc.pb.h"
#include "dak/v1/plan.grpc.pb.h"
#include "dak/v1/session.grpc.pb.h"
#include "dak/v1/tensor.grpc.pb.h"

namespace dak::client {

class Transport {
 public:
  // Connects when the first call is made.
  explicit Transport(std::string socket_path);

  // One unary call, as in Call(&v1::TensorService::Stub::FreeTensors, request, &response, timeout).
  template <typename Stub, typename Request, typename Response>
  absl::Status Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response, absl::Duration timeout) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    return Describe(StatusFromRpc((stub<Stub>()->*method)(&context, request, response)), timeout);
  }

 private:
  template <typename Stub>
  Stub* stub() {
    if constexpr (std::is_same_v<Stub, v1::SessionService::Stub>) {
      return sessions_.get();
    } else if constexpr (std::is_same_v<Stub, v1::TensorService::Stub>) {
      return tensors_.get();
    } else if constexpr (std::is_same_v<Stub, v1::MigrationService::Stub>) {
      return migrations_.get();
    } else {
      return plans_.get();
    }
  }
  absl::Status Describe(const absl::Status& status, absl::Duration timeout) const;

  std::string socket_path_;
  std::unique_ptr<v1::SessionService::Stub> sessions_;
  std::unique_ptr<v1::TensorService::Stub> tensors_;
  std::unique_ptr<v1::PlanService::Stub> plans_;
  std::unique_ptr<v1::MigrationService::Stub> migrations_;
};

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_TRANSPORT_H_

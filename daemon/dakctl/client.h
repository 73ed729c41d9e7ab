// The way to a daemon: calls with a deadline, and errors that say what to do.
//
// Thread safety: calls may be made from any thread. Errors: the status that the daemon gave, with its ErrorDetail
// attached (allocator/base/error_detail.h); UNAVAILABLE and DEADLINE_EXCEEDED explain what is wrong with the socket.
#ifndef DAK_DAEMON_DAKCTL_CLIENT_H_
#define DAK_DAEMON_DAKCTL_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dak/v1/migration.grpc.pb.h"
#include "dak/v1/node.grpc.pb.h"
#include "dak/v1/session.grpc.pb.h"
#include "dak/v1/tensor.grpc.pb.h"

namespace dak::dakctl {

class Client {
 public:
  // Connects with the first call.
  Client(const std::string& runtime_dir, double timeout_s);

  // client.Call(client.node(), &v1::NodeService::Stub::ListPools, {})
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                const std::type_identity_t<Request>& request) const {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::microseconds(int64_t(timeout_s_ * 1e6)));
    Response response;
    if (const grpc::Status status = (stub.*method)(&context, request, &response); !status.ok()) return Explain(status);
    return response;
  }

  v1::NodeService::Stub& node() const { return *node_; }
  v1::SessionService::Stub& sessions() const { return *sessions_; }
  v1::TensorService::Stub& tensors() const { return *tensors_; }
  v1::MigrationService::Stub& migrations() const { return *migrations_; }

  // What a failed call means, for the person at the terminal.
  absl::Status Explain(const grpc::Status& status) const;

 private:
  const std::string socket_;
  const double timeout_s_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::NodeService::Stub> node_;
  std::unique_ptr<v1::SessionService::Stub> sessions_;
  std::unique_ptr<v1::TensorService::Stub> tensors_;
  std::unique_ptr<v1::MigrationService::Stub> migrations_;
};

// Why nobody answers at `socket`, and what to do: the file is missing, left over, closed to us, or the peer hung up.
std::string DiagnoseSocket(const std::string& socket);

}  // namespace dak::dakctl

#endif  // DAK_DAEMON_DAKCTL_CLIENT_H_

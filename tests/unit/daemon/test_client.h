// A client as tests need it: the handle connection and the stubs, with nothing hidden.
#ifndef DAK_TESTS_UNIT_DAEMON_TEST_CLIENT_H_
#define DAK_TESTS_UNIT_DAEMON_TEST_CLIENT_H_

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "allocator/base/unique_fd.h"
#include "dak/v1/handles.pb.h"
#include "dak/v1/node.grpc.pb.h"
#include "dak/v1/plan.grpc.pb.h"
#include "dak/v1/session.grpc.pb.h"
#include "dak/v1/tensor.grpc.pb.h"

namespace dak::daemon {

// One packet of the daemon's and what came with it.
struct ReceivedReply {
  v1::HandleReply reply;
  std::vector<UniqueFd> fds;
  bool ended = false;
};

// A connection to handles.sock. Destroying it is what a client's death is.
class HandleConnection {
 public:
  explicit HandleConnection(const std::string& runtime_dir);
  ReceivedReply Receive();  // waits
  void SendBytes(const std::string& packet);
  ReceivedReply Fetch(const std::vector<std::string>& tickets);
  int fd() const { return fd_.get(); }
  void Close() { fd_.reset(); }

 private:
  UniqueFd fd_;
};

struct Stubs {
  // With `narrow`, the transport buffers little for a reader that doesn't read.
  explicit Stubs(const std::string& runtime_dir, bool narrow = false);
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::SessionService::Stub> session;
  std::unique_ptr<v1::TensorService::Stub> tensor;
  std::unique_ptr<v1::NodeService::Stub> node;
  std::unique_ptr<v1::PlanService::Stub> plan;
};

// One unary call with a deadline. The response is in *response where that isn't null.
template <typename Stub, typename Request, typename Response>
grpc::Status Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, Response* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  return (stub.*method)(&context, request, response);
}

// The detail that a refused call carries.
v1::ErrorDetail DetailIn(const grpc::Status& status);

// A session with its connection.
class TestSession {
 public:
  explicit TestSession(const std::string& runtime_dir, const std::string& name = "test",
                       const std::vector<std::pair<v1::Tier, uint64_t>>& quotas = {});
  // `name`, [rows, cols] of bf16, `ratio` of it on the host.
  static v1::TensorSpec Spec(const std::string& name, uint64_t rows, uint64_t cols, double ratio = 0);
  v1::AllocateTensorsRequest AllocateRequest(const std::string& group, const std::vector<v1::TensorSpec>& specs) const;
  grpc::Status Allocate(const std::string& group, const std::vector<v1::TensorSpec>& specs,
                        v1::AllocateTensorsResponse* response);
  grpc::Status Free(const std::vector<uint64_t>& ids, v1::FreeTensorsResponse* response = nullptr);
  grpc::Status Publish(const std::string& group, const std::string& publication, const std::string& fingerprint,
                       v1::PublishGroupResponse* response = nullptr);
  grpc::Status Attach(const std::string& publication, const std::string& fingerprint,
                      v1::AttachPublicationResponse* response = nullptr);
  grpc::Status Detach(const std::string& publication);
  grpc::Status Withdraw(const std::string& publication, v1::WithdrawPublicationResponse* response = nullptr);
  grpc::Status Close(v1::CloseSessionResponse* response = nullptr);

  uint64_t id() const { return opened.session_id(); }
  const std::string& token() const { return opened.session_token(); }

  HandleConnection connection;
  Stubs stubs;
  v1::HandleReply greeting;
  v1::OpenSessionResponse opened;
};

// "OK", or the code, reason and field that a refusal carries.
MATCHER(IsOk, "is OK") {
  *result_listener << "code " << arg.error_code() << ": " << arg.error_message();
  return arg.ok();
}
MATCHER_P3(FailsWith, code, reason, field, "") {
  const v1::ErrorDetail detail = DetailIn(arg);
  *result_listener << "code " << arg.error_code() << ", " << arg.error_message() << ", reason " << detail.reason()
                   << ", field " << detail.field();
  return arg.error_code() == code && detail.reason() == reason && detail.field() == field;
}

}  // namespace dak::daemon

#endif  // DAK_TESTS_UNIT_DAEMON_TEST_CLIENT_H_

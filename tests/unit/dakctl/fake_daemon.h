// A gRPC server on control.sock in a folder of its own, with scripted answers, and dakctl run against it.
#ifndef DAK_TESTS_UNIT_DAKCTL_FAKE_DAEMON_H_
#define DAK_TESTS_UNIT_DAKCTL_FAKE_DAEMON_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "daemon/dakctl/dakctl.h"
#include "dak/v1/node.grpc.pb.h"
#include "dak/v1/plan.grpc.pb.h"
#include "dak/v1/session.grpc.pb.h"
#include "dak/v1/tensor.grpc.pb.h"

namespace dak::dakctl::testing {

// What the daemon answers. Set it before the call that needs it.
struct Script {
  grpc::Status status;  // of every call, if not OK
  v1::GetNodeResponse node;
  v1::ListPoolsResponse pools;
  v1::ListSessionsResponse sessions;
  v1::ListTensorsResponse tensors;  // served in pages of `page_size`
  uint32_t page_size = 2;
  bool endless_pages = false;
  v1::ListPublicationsResponse publications;
  v1::GetQuotasResponse quotas;
  v1::GetCongestionResponse congestion;
  v1::Profile profile;
  v1::Plan plan;  // of its session_id; others have none
  std::function<grpc::Status(const v1::SetQuotaRequest&, v1::SetQuotaResponse*)> set_quota;
  std::function<grpc::Status(const v1::WithdrawPublicationRequest&, v1::WithdrawPublicationResponse*)> withdraw;
  // Past events first; then the stream stays open until the call ends, unless `end_events` is given.
  std::vector<v1::Event> events;
  std::function<grpc::Status()> end_events;
};

// A script with two sessions, three pools, one link and so on: what a node at work says.
Script NodeAtWork();

class FakeDaemon {
 public:
  explicit FakeDaemon(Script script = NodeAtWork());
  ~FakeDaemon();

  Script& script() { return script_; }
  const std::string& runtime_dir() const { return dir_; }
  // Ends the server, and takes the socket away.
  void Stop();

 private:
  class Shared;  // the script, for the services
  class Node;
  class Sessions;
  class Tensors;
  class Plans;

  Script script_;
  std::string dir_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<Sessions> sessions_;
  std::unique_ptr<Tensors> tensors_;
  std::unique_ptr<Plans> plans_;
  std::unique_ptr<grpc::Server> server_;
};

// A fresh empty folder.
std::string MakeFolder();

struct Result {
  int exit_code = -1;
  std::string out;
  std::string err;
};
Result Dakctl(const std::string& runtime_dir, std::vector<std::string> args, const Terminal& terminal = {});

}  // namespace dak::dakctl::testing

#endif  // DAK_TESTS_UNIT_DAKCTL_FAKE_DAEMON_H_

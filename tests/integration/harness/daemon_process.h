// A real dakd for tests: its own process, its own temporary runtime directory, asked over gRPC.
//
// Start waits for dakd's readiness notice (sd_notify), so nothing here sleeps. Waits for a state ask the daemon again
// and again, up to a minute.
// Thread safety: none; one test's. Errors: failures of the machinery abort the test program with a message.
#ifndef DAK_TESTS_INTEGRATION_HARNESS_DAEMON_PROCESS_H_
#define DAK_TESTS_INTEGRATION_HARNESS_DAEMON_PROCESS_H_

#include <grpcpp/channel.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/demo/child_process.h"
#include "dak/v1/node.grpc.pb.h"
#include "dak/v1/plan.grpc.pb.h"
#include "dak/v1/session.grpc.pb.h"
#include "dak/v1/tensor.grpc.pb.h"

namespace dak::testing {

struct DaemonOptions {
  std::vector<std::string> flags{};  // after the ones that every test needs
  std::string config{};              // text of a configuration file; empty: none
  std::string hbm = "256MiB";
  std::string host = "512MiB";
  std::string device = "emulated";
  std::string dakd{};  // empty: the one that was built
};

using demo::ChildProcess;

class DaemonProcess {
 public:
  explicit DaemonProcess(DaemonOptions options = {});
  ~DaemonProcess();
  DaemonProcess(const DaemonProcess&) = delete;
  DaemonProcess& operator=(const DaemonProcess&) = delete;

  const std::string& runtime_dir() const { return runtime_dir_; }
  pid_t pid() const { return process_->pid(); }
  double start_seconds() const { return start_seconds_; }  // from fork to ready

  // SIGTERM; the exit code, or -signal.
  int Terminate();
  void Kill();
  // Starts it again in the same directory.
  void Start();

  std::shared_ptr<grpc::Channel> NewChannel() const;
  // Over a connection of its own.
  std::unique_ptr<v1::NodeService::Stub> NewNodeStub() const;
  v1::NodeService::Stub& node() { return *node_; }
  v1::SessionService::Stub& sessions() { return *sessions_; }
  v1::TensorService::Stub& tensors() { return *tensors_; }
  v1::PlanService::Stub& plans() { return *plans_; }

  // By tier ("hbm", "host").
  std::map<std::string, v1::PoolInfo> Pools();
  // Bytes that sessions hold, all tiers together, and bytes that are published.
  uint64_t SessionBytes();
  uint64_t PublishedBytes();
  std::vector<v1::SessionInfo> Sessions();
  std::vector<v1::PublicationInfo> Publications();
  std::vector<v1::Tensor> Tensors();
  // Withdraws whatever is published.
  void WithdrawAll();
  // Descriptors that the daemon's process has open.
  size_t OpenDescriptors() const;
  // Asks until `condition` holds; false after a minute.
  bool WaitUntil(const std::function<bool()>& condition);

 private:
  void Connect();

  const DaemonOptions options_;
  std::string runtime_dir_;
  std::unique_ptr<ChildProcess> process_;
  double start_seconds_ = 0;
  std::unique_ptr<v1::NodeService::Stub> node_;
  std::unique_ptr<v1::SessionService::Stub> sessions_;
  std::unique_ptr<v1::TensorService::Stub> tensors_;
  std::unique_ptr<v1::PlanService::Stub> plans_;
};

// What `call` returned, with a deadline; aborts the program if it failed.
template <typename Stub, typename Request, typename Response>
Response Ask(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
             const Request& request) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) {
    std::fprintf(stderr, "the daemon answered %d: %s\n", status.error_code(), status.error_message().c_str());
    std::abort();
  }
  return response;
}

}  // namespace dak::testing

#endif  // DAK_TESTS_INTEGRATION_HARNESS_DAEMON_PROCESS_H_

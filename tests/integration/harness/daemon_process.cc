#include "tests/integration/harness/daemon_process.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "client/demo/daemon_launcher.h"

namespace dak::testing {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(errno));
  std::abort();
}

const char* TierText(v1::Tier tier) { return tier == v1::TIER_HBM ? "hbm" : tier == v1::TIER_HOST ? "host" : "cxl"; }

}  // namespace

DaemonProcess::DaemonProcess(DaemonOptions options) : options_(std::move(options)) {
  std::string pattern = std::filesystem::temp_directory_path() / "dak-test-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) Die("mkdtemp");
  runtime_dir_ = pattern;
  if (!options_.config.empty()) std::ofstream(runtime_dir_ + "/dakd.textproto") << options_.config;
  Start();
}

DaemonProcess::~DaemonProcess() {
  Kill();
  std::filesystem::remove_all(runtime_dir_);
}

void DaemonProcess::Start() {
  std::vector<std::string> arguments = {options_.dakd.empty() ? DAK_DAKD_PATH : options_.dakd,
                                        "--device=" + options_.device,
                                        "--hbm=" + options_.hbm,
                                        "--host=" + options_.host,
                                        "--log-level=warn",
                                        "--metrics-address=127.0.0.1:0"};
  if (!options_.config.empty()) arguments.push_back("--config=" + runtime_dir_ + "/dakd.textproto");
  arguments.insert(arguments.end(), options_.flags.begin(), options_.flags.end());
  demo::LaunchedDaemon launched = demo::LaunchDaemon(std::move(arguments), runtime_dir_,
                                                     std::chrono::duration_cast<std::chrono::seconds>(kPatience));
  if (launched.process == nullptr) Die(launched.error);
  process_ = std::move(launched.process);
  start_seconds_ = launched.start_seconds;
  Connect();
}

std::shared_ptr<grpc::Channel> DaemonProcess::NewChannel() const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("unix:" + runtime_dir_ + "/control.sock", grpc::InsecureChannelCredentials(),
                                   arguments);
}

std::unique_ptr<v1::NodeService::Stub> DaemonProcess::NewNodeStub() const {
  return v1::NodeService::NewStub(NewChannel());
}

void DaemonProcess::Connect() {
  auto channel = NewChannel();
  node_ = v1::NodeService::NewStub(channel);
  sessions_ = v1::SessionService::NewStub(channel);
  tensors_ = v1::TensorService::NewStub(channel);
  plans_ = v1::PlanService::NewStub(channel);
}

int DaemonProcess::Terminate() {
  process_->Signal(SIGTERM);
  return process_->Wait();
}

void DaemonProcess::Kill() { process_->Kill(); }

std::map<std::string, v1::PoolInfo> DaemonProcess::Pools() {
  std::map<std::string, v1::PoolInfo> pools;
  const auto response = Ask(*node_, &v1::NodeService::Stub::ListPools, v1::ListPoolsRequest());
  for (const v1::PoolInfo& pool : response.pools()) {
    pools[TierText(pool.tier())] = pool;
  }
  return pools;
}

uint64_t DaemonProcess::SessionBytes() {
  uint64_t bytes = 0;
  for (const auto& [tier, pool] : Pools()) bytes += pool.session_bytes();
  return bytes;
}

uint64_t DaemonProcess::PublishedBytes() {
  uint64_t bytes = 0;
  for (const auto& [tier, pool] : Pools()) bytes += pool.published_bytes();
  return bytes;
}

std::vector<v1::SessionInfo> DaemonProcess::Sessions() {
  const auto response = Ask(*sessions_, &v1::SessionService::Stub::ListSessions, v1::ListSessionsRequest());
  return {response.sessions().begin(), response.sessions().end()};
}

std::vector<v1::PublicationInfo> DaemonProcess::Publications() {
  const auto response = Ask(*tensors_, &v1::TensorService::Stub::ListPublications, v1::ListPublicationsRequest());
  return {response.publications().begin(), response.publications().end()};
}

std::vector<v1::Tensor> DaemonProcess::Tensors() {
  v1::ListTensorsRequest request;
  request.set_page_size(1000);
  const auto response = Ask(*tensors_, &v1::TensorService::Stub::ListTensors, request);
  return {response.tensors().begin(), response.tensors().end()};
}

void DaemonProcess::WithdrawAll() {
  for (const v1::PublicationInfo& publication : Publications()) {
    v1::WithdrawPublicationRequest request;
    request.set_publication(publication.name());
    if (!publication.withdrawn()) Ask(*tensors_, &v1::TensorService::Stub::WithdrawPublication, request);
  }
}

size_t DaemonProcess::OpenDescriptors() const {
  const std::filesystem::directory_iterator fds("/proc/" + std::to_string(pid()) + "/fd");
  return static_cast<size_t>(std::distance(begin(fds), end(fds)));
}

bool DaemonProcess::WaitUntil(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    // A round trip to the daemon gives it the processor.
    Ask(*node_, &v1::NodeService::Stub::GetNode, v1::GetNodeRequest());
  }
  return true;
}

}  // namespace dak::testing

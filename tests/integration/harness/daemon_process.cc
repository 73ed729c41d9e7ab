#include "tests/integration/harness/daemon_process.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "allocator/base/unique_fd.h"

namespace dak::testing {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(errno));
  std::abort();
}

UniqueFd BindNotifySocket(const std::string& path) {
  UniqueFd socket_fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size());
  unlink(path.c_str());
  if (bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) Die("bind " + path);
  return socket_fd;
}

// Returns once "READY=1" came; dies if the daemon does.
void AwaitReady(int socket_fd, pid_t pid) {
  for (;;) {
    pollfd polled{.fd = socket_fd, .events = POLLIN, .revents = 0};
    if (poll(&polled, 1, 100) > 0) {
      char text[512] = "";
      if (recv(socket_fd, text, sizeof(text) - 1, 0) < 0) Die("recv");
      if (std::strstr(text, "READY=1") != nullptr) return;
    }
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) == pid) Die("dakd ended before it was ready");
  }
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
  const auto begin = std::chrono::steady_clock::now();
  const std::string notify = runtime_dir_ + "/notify.sock";
  const UniqueFd ready = BindNotifySocket(notify);
  std::vector<std::string> arguments = {DAK_DAKD_PATH,
                                        "--runtime-dir=" + runtime_dir_,
                                        "--device=emulated",
                                        "--hbm=" + options_.hbm,
                                        "--host=" + options_.host,
                                        "--log-level=warn",
                                        "--metrics-address=127.0.0.1:0"};
  if (!options_.config.empty()) arguments.push_back("--config=" + runtime_dir_ + "/dakd.textproto");
  arguments.insert(arguments.end(), options_.flags.begin(), options_.flags.end());
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setenv("NOTIFY_SOCKET", notify.c_str(), 1);
    execv(argv[0], argv.data());
    _exit(127);
  }
  if (pid_ < 0) Die("fork");
  AwaitReady(ready.get(), pid_);
  start_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  Connect();
}

void DaemonProcess::Connect() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel = grpc::CreateCustomChannel("unix:" + runtime_dir_ + "/control.sock", grpc::InsecureChannelCredentials(),
                                           arguments);
  node_ = v1::NodeService::NewStub(channel);
  sessions_ = v1::SessionService::NewStub(channel);
  tensors_ = v1::TensorService::NewStub(channel);
  plans_ = v1::PlanService::NewStub(channel);
}

int DaemonProcess::Wait() {
  int status = 0;
  if (waitpid(std::exchange(pid_, -1), &status, 0) < 0) Die("waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int DaemonProcess::Terminate() {
  kill(pid_, SIGTERM);
  return Wait();
}

void DaemonProcess::Kill() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  Wait();
}

std::map<std::string, v1::PoolInfo> DaemonProcess::Pools() {
  std::map<std::string, v1::PoolInfo> pools;
  for (const v1::PoolInfo& pool : Ask(*node_, &v1::NodeService::Stub::ListPools, v1::ListPoolsRequest()).pools()) {
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
  const std::filesystem::directory_iterator fds("/proc/" + std::to_string(pid_) + "/fd");
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

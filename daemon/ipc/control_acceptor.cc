#include "daemon/ipc/control_acceptor.h"

#include <grpcpp/server_posix.h>
#include <poll.h>
#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace dak::daemon {

ControlAcceptor::ControlAcceptor(UnixListener listener, grpc::Server* server, PeerPolicy policy, PeerTable* peers)
    : listener_(std::move(listener)), server_(server), policy_(std::move(policy)), peers_(peers) {}

ControlAcceptor::~ControlAcceptor() { Stop(); }

absl::Status ControlAcceptor::Start() {
  stop_event_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!stop_event_.valid()) return absl::InternalError(absl::StrCat("eventfd: ", std::strerror(errno)));
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "dak-control");
    Run();
  });
  return absl::OkStatus();
}

void ControlAcceptor::Stop() {
  if (!thread_.joinable()) return;
  ::eventfd_write(stop_event_.get(), 1);
  thread_.join();
}

void ControlAcceptor::Run() {
  pollfd watched[] = {{.fd = listener_.fd(), .events = POLLIN, .revents = 0},
                      {.fd = stop_event_.get(), .events = POLLIN, .revents = 0}};
  while (true) {
    if (::poll(watched, 2, -1) < 0 && errno != EINTR) {
      spdlog::critical("control.sock: poll: {}", std::strerror(errno));
      return;
    }
    if (watched[1].revents != 0) return;
    if (watched[0].revents != 0) AcceptOne();
  }
}

void ControlAcceptor::AcceptOne() {
  UniqueFd connection = listener_.Accept();
  if (!connection.valid()) return;
  const absl::StatusOr<Peer> peer = ReadPeer(connection.get());
  if (!peer.ok() || !policy_.Allows(*peer)) {
    spdlog::warn("control.sock: refused uid {} (pid {})", peer.ok() ? peer->uid : 0, peer.ok() ? peer->pid : 0);
    return;
  }
  absl::StatusOr<UniqueFd> entered = peers_->Enter(std::move(connection), *peer);
  if (!entered.ok()) {
    spdlog::warn("control.sock: {}", std::string(entered.status().message()));
    return;
  }
  grpc::AddInsecureChannelFromFd(server_, entered->release());
}

}  // namespace dak::daemon

#include "daemon/ipc/handle_server.h"

#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "daemon/ipc/packet.h"
#include "daemon/rpc/convert.h"

namespace dak::daemon {
namespace {

// Keys of epoll events; connections count up from 1.
constexpr uint64_t kListenerKey = ~uint64_t{0};
constexpr uint64_t kStopKey = kListenerKey - 1;

absl::Status SystemError(const char* call) {
  return absl::InternalError(absl::StrCat("handles.sock: ", call, ": ", std::strerror(errno)));
}

v1::HandleReply ReplyOf(const absl::Status& status) {
  v1::HandleReply reply;
  if (status.ok()) return reply;
  reply.set_code(static_cast<int>(status.code()));
  reply.set_message(std::string(status.message()));
  *reply.mutable_detail() = DetailMessage(status);
  return reply;
}

bool Send(int fd, const v1::HandleReply& reply, absl::Span<const int> fds) {
  const absl::Status sent = SendPacket(fd, reply.SerializeAsString(), fds);
  if (!sent.ok()) spdlog::debug("handles.sock: {}", std::string(sent.message()));
  return sent.ok();
}

bool SendHandles(int fd, v1::HandleReply reply, absl::Span<const HandleGrant> handles) {
  std::vector<int> fds;
  for (const HandleGrant& grant : handles) {
    *reply.add_handles() = HandleMessage(grant);
    fds.push_back(grant.fd.get());
  }
  return Send(fd, reply, fds);
}

}  // namespace

HandleServer::HandleServer(UnixListener listener, PeerPolicy policy, std::string version, SessionManager* sessions)
    : listener_(std::move(listener)),
      policy_(std::move(policy)),
      version_(std::move(version)),
      sessions_(sessions),
      buffer_(kMaxPacketBytes) {}

HandleServer::~HandleServer() { Stop(); }

absl::Status HandleServer::Start() {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.valid()) return SystemError("epoll_create1");
  stop_event_.reset(::eventfd(0, EFD_CLOEXEC));
  if (!stop_event_.valid()) return SystemError("eventfd");
  for (const auto& [fd, key] : {std::pair(listener_.fd(), kListenerKey), std::pair(stop_event_.get(), kStopKey)}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = key;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return SystemError("epoll_ctl");
  }
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "dak-handles");
    Run();
  });
  return absl::OkStatus();
}

void HandleServer::Stop() {
  if (!thread_.joinable()) return;
  ::eventfd_write(stop_event_.get(), 1);
  thread_.join();
  absl::flat_hash_map<uint64_t, UniqueFd> connections;
  {
    absl::MutexLock lock(&mutex_);
    connections.swap(connections_);
  }
  for (const auto& [id, fd] : connections) sessions_->Disconnect(id);
}

void HandleServer::EndConnection(uint64_t connection_id) {
  absl::MutexLock lock(&mutex_);
  auto it = connections_.find(connection_id);
  if (it != connections_.end()) ::shutdown(it->second.get(), SHUT_RDWR);
}

bool HandleServer::Deliver(uint64_t connection_id, absl::Span<const HandleGrant> handles) {
  v1::HandleReply delivery;
  delivery.set_delivery(true);
  // Under the lock: the descriptor may be closed by its thread, and its number be another's.
  absl::MutexLock lock(&mutex_);
  auto it = connections_.find(connection_id);
  return it != connections_.end() && SendHandles(it->second.get(), delivery, handles);
}

void HandleServer::Run() {
  std::array<epoll_event, 64> events;
  while (true) {
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
    if (count < 0 && errno != EINTR) {
      spdlog::critical("handles.sock: epoll_wait: {}", std::strerror(errno));
      return;
    }
    for (int i = 0; i < count; ++i) {
      const uint64_t key = events[static_cast<size_t>(i)].data.u64;
      if (key == kStopKey) return;
      if (key == kListenerKey) {
        AcceptOne();
      } else {
        Serve(key);
      }
    }
  }
}

void HandleServer::AcceptOne() {
  UniqueFd connection = listener_.Accept();
  if (!connection.valid()) return;
  const absl::StatusOr<Peer> peer = ReadPeer(connection.get());
  if (!peer.ok() || !policy_.Allows(*peer)) {
    spdlog::warn("handles.sock: refused uid {} (pid {})", peer.ok() ? peer->uid : 0, peer.ok() ? peer->pid : 0);
    Send(connection.get(),
         ReplyOf(WithDetail(absl::PermissionDeniedError("this user may not use dak"), {.reason = "PEER_REFUSED"})), {});
    return;
  }
  const absl::StatusOr<SessionManager::Connection> made = sessions_->Connect(*peer);
  if (!made.ok()) {
    Send(connection.get(), ReplyOf(made.status()), {});
    return;
  }
  v1::HandleReply greeting;
  greeting.set_api_version(kApiVersion);
  greeting.set_connection_ticket(made->ticket);
  greeting.set_daemon_version(version_);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = made->id;
  if (!Send(connection.get(), greeting, {}) ||
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, connection.get(), &event) != 0) {
    sessions_->Disconnect(made->id);
    return;
  }
  absl::MutexLock lock(&mutex_);
  connections_.emplace(made->id, std::move(connection));
}

void HandleServer::Serve(uint64_t connection_id) {
  int fd = -1;
  {
    absl::MutexLock lock(&mutex_);
    auto it = connections_.find(connection_id);
    if (it == connections_.end()) return;
    fd = it->second.get();
  }
  if (!ServeOnePacket(connection_id, fd)) Drop(connection_id);
}

bool HandleServer::ServeOnePacket(uint64_t connection_id, int fd) {
  const ReceivedPacket packet = ReceivePacket(fd, absl::MakeSpan(buffer_));
  if (packet.nothing) return true;
  if (packet.ended) return false;
  if (packet.malformed) {
    return Send(fd,
                ReplyOf(InvalidField("packet", "is too long or carries descriptors",
                                     absl::StrCat("at most ", kMaxPacketBytes, " bytes, no descriptors"), "MALFORMED")),
                {});
  }
  return Answer(connection_id, fd, buffer_.data(), packet.size);
}

bool HandleServer::Answer(uint64_t connection_id, int fd, const char* data, size_t size) {
  v1::HandleRequest request;
  if (!request.ParseFromArray(data, static_cast<int>(size))) {
    return Send(fd, ReplyOf(InvalidField("packet", "isn't a HandleRequest", "proto/dak/v1/handles.proto", "MALFORMED")),
                {});
  }
  const std::vector<std::string> tickets(request.tickets().begin(), request.tickets().end());
  const absl::StatusOr<std::vector<HandleGrant>> handles = sessions_->Redeem(connection_id, tickets);
  if (!handles.ok()) return Send(fd, ReplyOf(handles.status()), {});
  return SendHandles(fd, v1::HandleReply(), *handles);
}

void HandleServer::Drop(uint64_t connection_id) {
  UniqueFd connection;
  {
    absl::MutexLock lock(&mutex_);
    auto it = connections_.find(connection_id);
    if (it == connections_.end()) return;
    connection = std::move(it->second);
    connections_.erase(it);
  }
  sessions_->Disconnect(connection_id);
}

}  // namespace dak::daemon

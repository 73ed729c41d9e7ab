#include "client/src/handle_connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/fork_guard.h"
#include "client/src/rpc_status.h"
#include "dak/dak.h"

namespace dak::client {
namespace {

constexpr size_t kMaxPacketBytes = 64 * 1024;
constexpr size_t kMaxDescriptors = 253;  // the kernel's SCM_MAX_FD

// The descriptors that ride beside one received message.
std::vector<UniqueFd> TakeDescriptors(msghdr* message) {
  std::vector<UniqueFd> fds;
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr; header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
  return fds;
}

absl::Status CheckGreeting(const v1::HandleReply& greeting, const std::string& socket_path) {
  DAK_RETURN_IF_ERROR(
      Prefixed(absl::StrCat("dakd refused the connection to ", socket_path), StatusFromReply(greeting)));
  if (greeting.api_version() == kApiVersion) return absl::OkStatus();
  return WithDetail(absl::FailedPreconditionError(absl::StrCat(
                        "dakd ", greeting.daemon_version(), " at ", socket_path, " speaks API version ",
                        greeting.api_version(), ", libdak ", dak_version(), " speaks version ", kApiVersion)),
                    Reason("api_version", "VERSION_MISMATCH", absl::StrCat("API version ", kApiVersion)));
}

absl::StatusOr<sockaddr_un> MakeAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return InvalidField("runtime_dir", absl::StrCat("the path ", path, " is too long for a Unix socket"),
                        absl::StrCat("at most ", sizeof(address.sun_path) - 1, " characters"));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

absl::Status ConnectError(int error, const std::string& path) {
  if (error == EAGAIN) {
    return absl::DeadlineExceededError(absl::StrCat("dakd at ", path, " didn't accept the connection in time"));
  }
  const std::string text = absl::StrCat("no dakd listens at ", path, ": ", std::strerror(error));
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(text);
  return absl::UnavailableError(text);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HandleConnection>> HandleConnection::Connect(const std::string& socket_path,
                                                                            absl::Duration timeout) {
  std::unique_ptr<HandleConnection> connection(new HandleConnection(socket_path));
  DAK_RETURN_IF_ERROR(connection->Open(timeout));
  return connection;
}

HandleConnection::~HandleConnection() {
  if (fd_ >= 0) CloseRegistered(fd_);
}

absl::Status HandleConnection::Open(absl::Duration timeout) {
  DAK_ASSIGN_OR_RETURN(const sockaddr_un address, MakeAddress(socket_path_));
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return absl::InternalError(absl::StrCat("socket: ", std::strerror(errno)));
  // For connect alone, which waits where many connect at once; everything else says MSG_DONTWAIT.
  const timeval patience = absl::ToTimeval(timeout);
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  while (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno != EINTR) return ConnectError(errno, socket_path_);
  }
  if (!CloseInChildren(fd.get())) return absl::ResourceExhaustedError("too many dak sessions in this process");
  fd_ = fd.release();
  absl::MutexLock lock(&mutex_);
  auto packet = Receive(absl::Now() + timeout);
  if (!packet.ok()) return Prefixed("while waiting for dakd's greeting", packet.status());
  greeting_ = std::move(packet->reply);
  return CheckGreeting(greeting_, socket_path_);
}

bool HandleConnection::PeerIsGone() const {
  if (gone_.load(std::memory_order_relaxed)) return true;
  pollfd poll_fd{.fd = fd_, .events = POLLRDHUP, .revents = 0};
  if (poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0) {
    gone_.store(true, std::memory_order_relaxed);
  }
  return gone_.load(std::memory_order_relaxed);
}

absl::Status HandleConnection::Gone() const {
  gone_.store(true, std::memory_order_relaxed);
  return absl::UnavailableError(absl::StrCat("dakd closed the connection to ", socket_path_));
}

absl::Status HandleConnection::Wait(short events, absl::Time deadline) {
  for (;;) {
    const int64_t left_ms = std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now()) + 1);
    pollfd poll_fd{.fd = fd_, .events = events, .revents = 0};
    const int ready = poll(&poll_fd, 1, static_cast<int>(std::min<int64_t>(left_ms, 1 << 30)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return absl::InternalError(absl::StrCat("poll: ", std::strerror(errno)));
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat("dakd at ", socket_path_, " didn't answer in time"));
    }
  }
}

absl::StatusOr<HandleConnection::Packet> HandleConnection::Receive(absl::Time deadline) {
  buffer_.resize(kMaxPacketBytes);
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptors * sizeof(int))];
  iovec vector{.iov_base = buffer_.data(), .iov_len = buffer_.size()};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  ssize_t received;
  for (;;) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    received = recvmsg(fd_, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (received > 0) break;
    if (received == 0 || errno == ECONNRESET || errno == EPIPE) return Gone();
    if (errno == EAGAIN) {
      DAK_RETURN_IF_ERROR(Wait(POLLIN, deadline));
    } else if (errno != EINTR) {
      return absl::InternalError(absl::StrCat("recvmsg: ", std::strerror(errno)));
    }
  }
  std::vector<UniqueFd> fds = TakeDescriptors(&message);
  Packet packet;
  const bool parsed = packet.reply.ParseFromArray(buffer_.data(), static_cast<int>(received));
  if (replies_owed_ > 0 && !(parsed && packet.reply.delivery())) --replies_owed_;
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return absl::InternalError(absl::StrCat("a packet of dakd at ", socket_path_,
                                            " was cut off (too long, or this process may open no more files)"));
  }
  if (!parsed) {
    return absl::InternalError(absl::StrCat("what listens at ", socket_path_, " doesn't speak dak's protocol"));
  }
  if (fds.size() != static_cast<size_t>(packet.reply.handles_size())) {
    return absl::InternalError(
        absl::StrCat("dakd announced ", packet.reply.handles_size(), " descriptors and sent ", fds.size()));
  }
  for (size_t i = 0; i < fds.size(); ++i) {
    packet.handles.push_back({.info = packet.reply.handles(static_cast<int>(i)), .fd = std::move(fds[i])});
  }
  return packet;
}

absl::StatusOr<HandleConnection::Packet> HandleConnection::ReceiveReply(absl::Time deadline) {
  for (;;) {
    absl::StatusOr<Packet> packet = Receive(deadline);
    if (!packet.ok() || !packet->reply.delivery()) return packet;
    for (ReceivedHandle& handle : packet->handles) delivered_.push_back(std::move(handle));
  }
}

absl::Status HandleConnection::Send(const std::string& packet, absl::Time deadline) {
  for (;;) {
    if (send(fd_, packet.data(), packet.size(), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return absl::OkStatus();
    if (errno == EPIPE || errno == ECONNRESET) return Gone();
    if (errno == EAGAIN) {
      DAK_RETURN_IF_ERROR(Wait(POLLOUT, deadline));
    } else if (errno != EINTR) {
      return absl::InternalError(absl::StrCat("send: ", std::strerror(errno)));
    }
  }
}

absl::StatusOr<HandleConnection::Packet> HandleConnection::Exchange(const v1::HandleRequest& request,
                                                                    absl::Time deadline) {
  while (replies_owed_ > 0) {
    const uint64_t before = replies_owed_;
    const absl::Status late = ReceiveReply(deadline).status();
    if (replies_owed_ == before) return late;
  }
  DAK_RETURN_IF_ERROR(Send(request.SerializeAsString(), deadline));
  ++replies_owed_;
  DAK_ASSIGN_OR_RETURN(Packet packet, ReceiveReply(deadline));
  DAK_RETURN_IF_ERROR(StatusFromReply(packet.reply));
  return packet;
}

absl::StatusOr<std::vector<ReceivedHandle>> HandleConnection::Redeem(absl::Span<const std::string> tickets,
                                                                     absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  absl::MutexLock lock(&mutex_);
  std::vector<ReceivedHandle> handles;
  while (!tickets.empty()) {
    v1::HandleRequest request;
    const size_t count = std::min(tickets.size(), kMaxTicketsPerRequest);
    for (const std::string& ticket : tickets.first(count)) request.add_tickets(ticket);
    tickets.remove_prefix(count);
    DAK_ASSIGN_OR_RETURN(Packet packet, Exchange(request, deadline));
    for (ReceivedHandle& handle : packet.handles) handles.push_back(std::move(handle));
  }
  return handles;
}

absl::StatusOr<std::vector<ReceivedHandle>> HandleConnection::TakeDelivered(absl::Span<const uint64_t> segment_ids,
                                                                            absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  absl::MutexLock lock(&mutex_);
  std::vector<ReceivedHandle> taken;
  for (const uint64_t id : segment_ids) {
    const auto is_it = [id](const ReceivedHandle& handle) { return handle.info.segment_id() == id; };
    auto found = std::find_if(delivered_.begin(), delivered_.end(), is_it);
    while (found == delivered_.end()) {
      DAK_ASSIGN_OR_RETURN(Packet packet, Receive(deadline));
      if (!packet.reply.delivery()) continue;  // a late reply
      for (ReceivedHandle& handle : packet.handles) delivered_.push_back(std::move(handle));
      found = std::find_if(delivered_.begin(), delivered_.end(), is_it);
    }
    taken.push_back(std::move(*found));
    delivered_.erase(found);
  }
  delivered_.clear();
  return taken;
}

void HandleConnection::DropDelivered() {
  absl::MutexLock lock(&mutex_);
  delivered_.clear();
  while (Receive(absl::InfinitePast()).ok()) continue;
}

}  // namespace dak::client

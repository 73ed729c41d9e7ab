#include "daemon/ipc/packet.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace dak::daemon {

absl::Status SendPacket(int fd, absl::string_view payload, absl::Span<const int> fds) {
  if (payload.size() > kMaxPacketBytes || fds.size() > kMaxPacketFds) {
    return absl::InternalError("a packet for handles.sock is too large");
  }
  iovec data = {.iov_base = const_cast<char*>(payload.data()), .iov_len = payload.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxPacketFds)] = {};
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return absl::UnavailableError(absl::StrCat("sendmsg: ", std::strerror(errno)));
  return absl::OkStatus();
}

ReceivedPacket ReceivePacket(int fd, absl::Span<char> buffer) {
  iovec data = {.iov_base = buffer.data(), .iov_len = buffer.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  ssize_t got = 0;
  do {
    got = ::recvmsg(fd, &message, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  ReceivedPacket packet;
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
    packet.nothing = true;
  } else if (got <= 0) {
    packet.ended = true;
  } else {
    packet.size = static_cast<size_t>(got);
    packet.malformed = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  }
  return packet;
}

}  // namespace dak::daemon

#include "daemon/ipc/peers.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "allocator/base/error_detail.h"

namespace dak::daemon {

absl::StatusOr<Peer> ReadPeer(int fd) {
  struct ucred credentials {};
  socklen_t length = sizeof(credentials);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return absl::InternalError(absl::StrCat("getsockopt(SO_PEERCRED): ", std::strerror(errno)));
  }
  return Peer{.pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid};
}

PeerPolicy::PeerPolicy(std::vector<uint32_t> allowed_uids, uint32_t own_uid)
    : allowed_uids_(std::move(allowed_uids)), own_uid_(own_uid) {}

bool PeerPolicy::Allows(const Peer& peer) const {
  if (allowed_uids_.empty() || peer.uid == 0 || peer.uid == own_uid_) return true;
  return std::find(allowed_uids_.begin(), allowed_uids_.end(), peer.uid) != allowed_uids_.end();
}

absl::StatusOr<UniqueFd> PeerTable::Enter(UniqueFd fd, const Peer& peer) {
  absl::MutexLock lock(&mutex_);
  UniqueFd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, next_fd_));
  if (!moved.valid() || moved.get() > last_fd_) moved.reset(::fcntl(fd.get(), F_DUPFD_CLOEXEC, first_fd_));
  if (!moved.valid() || moved.get() > last_fd_) {
    return WithDetail(absl::ResourceExhaustedError("too many connections"), {.reason = "TOO_MANY_CONNECTIONS"});
  }
  next_fd_ = moved.get() >= last_fd_ ? first_fd_ : moved.get() + 1;
  peers_[moved.get()] = peer;
  return moved;
}

absl::StatusOr<Peer> PeerTable::Find(const std::string& grpc_peer) const {
  absl::string_view number = grpc_peer;
  int fd = -1;
  if (absl::ConsumePrefix(&number, "fd:") && absl::SimpleAtoi(number, &fd)) {
    absl::MutexLock lock(&mutex_);
    auto it = peers_.find(fd);
    if (it != peers_.end()) return it->second;
  }
  return WithDetail(absl::UnauthenticatedError("the caller has no peer credentials"), {.reason = "NO_CREDENTIALS"});
}

}  // namespace dak::daemon

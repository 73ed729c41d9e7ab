// A listening Unix socket with an owner and a mode, and the loop of accepting on it.
//
// Errors: Bind is INVALID_ARGUMENT for a path that doesn't fit a socket address, FAILED_PRECONDITION if something
// that isn't a socket is in the way, else INTERNAL with errno's text; the message names the path.
// Thread safety: one owner.
#ifndef DAK_DAEMON_IPC_UNIX_LISTENER_H_
#define DAK_DAEMON_IPC_UNIX_LISTENER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "allocator/base/unique_fd.h"

namespace dak::daemon {

struct SocketOptions {
  uint32_t mode = 0660;
  std::optional<uint32_t> gid;  // the daemon's own if not set
};

class UnixListener {
 public:
  // `type` is SOCK_STREAM or SOCK_SEQPACKET. A socket that is left at `path` is replaced: the caller holds the lock
  // that says no other daemon uses it.
  static absl::StatusOr<UnixListener> Bind(const std::string& path, int type, const SocketOptions& options);

  int fd() const { return fd_.get(); }
  // The next waiting connection, non-blocking and close-on-exec; invalid if there is none. Out of descriptors, it
  // closes the connection at once, so that a level-triggered loop doesn't spin.
  UniqueFd Accept();

 private:
  UnixListener(UniqueFd fd, UniqueFd spare) : fd_(std::move(fd)), spare_(std::move(spare)) {}
  UniqueFd fd_;
  UniqueFd spare_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_IPC_UNIX_LISTENER_H_

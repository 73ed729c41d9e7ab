#include "daemon/ipc/unix_listener.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak::daemon {
namespace {

constexpr int kBacklog = 512;

absl::Status SocketError(const std::string& path, const char* call) {
  return absl::InternalError(absl::StrCat(path, ": ", call, ": ", std::strerror(errno)));
}

absl::Status RemoveStaleSocket(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    return errno == ENOENT ? absl::OkStatus() : SocketError(path, "lstat");
  }
  if (!S_ISSOCK(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is in the way and isn't a socket"));
  }
  return ::unlink(path.c_str()) == 0 ? absl::OkStatus() : SocketError(path, "unlink");
}

UniqueFd OpenSpare() { return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

absl::StatusOr<UnixListener> UnixListener::Bind(const std::string& path, int type, const SocketOptions& options) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return InvalidField("runtime_dir", absl::StrCat("makes the socket's path ", path.size(), " characters long"),
                        absl::StrCat("at most ", sizeof(address.sun_path) - 1));
  }
  path.copy(address.sun_path, path.size());
  DAK_RETURN_IF_ERROR(RemoveStaleSocket(path));
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return SocketError(path, "socket");
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return SocketError(path, "bind");
  }
  // Nobody can connect before listen(), so nobody sees the mode that umask made.
  if (options.gid.has_value() && ::chown(path.c_str(), static_cast<uid_t>(-1), *options.gid) != 0) {
    return SocketError(path, "chown");
  }
  if (::chmod(path.c_str(), options.mode) != 0) return SocketError(path, "chmod");
  if (::listen(fd.get(), kBacklog) != 0) return SocketError(path, "listen");
  return UnixListener(std::move(fd), OpenSpare());
}

UniqueFd UnixListener::Accept() {
  UniqueFd connection(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (connection.valid() || (errno != EMFILE && errno != ENFILE)) return connection;
  spare_.reset();
  connection.reset(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  connection.reset();
  spare_ = OpenSpare();
  return UniqueFd();
}

}  // namespace dak::daemon

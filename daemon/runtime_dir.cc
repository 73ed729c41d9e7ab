#include "daemon/runtime_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "allocator/base/error_detail.h"

namespace dak::daemon {
namespace {

absl::Status PathError(const std::string& path, const char* call) {
  return WithDetail(absl::InternalError(absl::StrCat("runtime_dir: ", path, ": ", call, ": ", std::strerror(errno))),
                    {.field = "runtime_dir", .reason = "SYSTEM_ERROR"});
}

std::string ReadPid(int fd) {
  char text[32] = {};
  const ssize_t got = ::pread(fd, text, sizeof(text) - 1, 0);
  return got > 0 ? std::string(text, static_cast<size_t>(got)) : "unknown";
}

}  // namespace

absl::StatusOr<RuntimeDir> RuntimeDir::Claim(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return PathError(path, "mkdir");
  const std::string lock_path = absl::StrCat(path, "/dakd.lock");
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!lock.valid()) return PathError(lock_path, "open");
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return PathError(lock_path, "flock");
    return WithDetail(absl::FailedPreconditionError(
                          absl::StrCat("runtime_dir: another dakd (pid ", ReadPid(lock.get()), ") serves ", path)),
                      {.field = "runtime_dir", .reason = "ALREADY_RUNNING"});
  }
  const std::string pid = absl::StrCat(::getpid());
  if (::ftruncate(lock.get(), 0) != 0 || ::pwrite(lock.get(), pid.data(), pid.size(), 0) < 0) {
    return PathError(lock_path, "write");
  }
  return RuntimeDir(path, std::move(lock));
}

void RuntimeDir::RemoveSockets() const {
  for (const std::string& path : {control_socket(), handles_socket()}) {
    // A start that failed because a file was in the way must not end by removing that file.
    struct stat info {};
    if (::lstat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) ::unlink(path.c_str());
  }
}

}  // namespace dak::daemon

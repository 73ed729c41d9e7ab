#include "daemon/profile/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "allocator/base/unique_fd.h"
#include "daemon/planner/profile_file.h"

namespace dak::daemon {
namespace {

constexpr size_t kMostOutputBytes = 1 << 20;

absl::Status SystemError(const std::string& what, int error) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(error)));
}

// A child whose standard output is a pipe. Killed and reaped with this, if it wasn't reaped before.
class Child {
 public:
  explicit Child(const std::vector<std::string>& command) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) {
      status_ = SystemError("pipe", errno);
      return;
    }
    output_.reset(ends[0]);
    const UniqueFd write_end(ends[1]);
    std::vector<char*> arguments;
    for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), STDOUT_FILENO);
    const int error = ::posix_spawn(&pid_, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
      pid_ = -1;
      status_ = SystemError(command[0], error);
    }
  }
  ~Child() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    Wait();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  const absl::Status& status() const { return status_; }
  int output() const { return output_.get(); }
  // As waitpid gives it.
  int Wait() {
    int result = 0;
    while (::waitpid(pid_, &result, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return result;
  }

 private:
  absl::Status status_;
  UniqueFd output_;
  pid_t pid_ = -1;
};

// Until its end.
absl::StatusOr<std::string> ReadAll(int fd, double timeout_s) {
  using std::chrono::steady_clock;
  const auto end = steady_clock::now() + std::chrono::microseconds(static_cast<int64_t>(timeout_s * 1e6));
  std::string text;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - steady_clock::now()).count();
    pollfd wait = {.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return absl::DeadlineExceededError(absl::StrCat("it took longer than ", timeout_s, " s"));
    char buffer[4096];
    const ssize_t bytes = ready < 0 ? -1 : ::read(fd, buffer, sizeof(buffer));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) return SystemError("read", errno);
    if (bytes == 0) return text;
    text.append(buffer, static_cast<size_t>(bytes));
    if (text.size() > kMostOutputBytes) return absl::InternalError("its output doesn't end");
  }
}

}  // namespace

absl::StatusOr<Measurement> MeasureInChild(const std::vector<std::string>& command, double timeout_s) {
  Child child(command);
  DAK_RETURN_IF_ERROR(child.status());
  DAK_ASSIGN_OR_RETURN(const std::string text, ReadAll(child.output(), timeout_s));
  const int result = child.Wait();
  if (WIFSIGNALED(result)) {
    return absl::UnavailableError(absl::StrCat("the measuring process was ended by signal ", WTERMSIG(result)));
  }
  if (WEXITSTATUS(result) != 0 && WEXITSTATUS(result) != kExitIncomplete) {
    return absl::UnavailableError(absl::StrCat("the measuring process ended with ", WEXITSTATUS(result)));
  }
  absl::StatusOr<planner::Profile> profile = planner::ParseProfile(text);
  if (!profile.ok()) return absl::InternalError(absl::StrCat("its output: ", profile.status().message()));
  Measurement measured;
  measured.profile = *std::move(profile);
  if (WEXITSTATUS(result) == kExitIncomplete) measured.left_out.push_back("what its lines above name");
  return measured;
}

std::vector<std::string> MeasuringCommand(const std::string& program, const DeviceDescription& device) {
  return {program,
          "--print-profile",
          "--profile=once",
          "--device=cuda",
          absl::StrCat("--gpu=", device.ordinal),
          absl::StrCat("--cxl-numa-node=", device.cxl_numa_node)};
}

}  // namespace dak::daemon

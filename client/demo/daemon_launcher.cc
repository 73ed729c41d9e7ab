#include "client/demo/daemon_launcher.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace dak::demo {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kPollMs = 50;  // between looks at whether the process still lives

UniqueFd BindNotifySocket(const std::string& path) {
  UniqueFd socket_fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    errno = ENAMETOOLONG;
    return UniqueFd();
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  unlink(path.c_str());
  if (bind(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return UniqueFd();
  return socket_fd;
}

// Empty once "READY=1" came.
std::string AwaitReady(int socket_fd, ChildProcess& process, Clock::time_point deadline) {
  while (Clock::now() < deadline) {
    pollfd polled{.fd = socket_fd, .events = POLLIN, .revents = 0};
    if (poll(&polled, 1, kPollMs) > 0) {
      char text[512] = "";
      if (recv(socket_fd, text, sizeof(text) - 1, 0) > 0 && std::strstr(text, "READY=1") != nullptr) return "";
    }
    if (!process.alive()) return "dakd ended with code " + std::to_string(process.Wait()) + " before it was ready";
  }
  return "dakd didn't get ready in time";
}

}  // namespace

LaunchedDaemon LaunchDaemon(std::vector<std::string> argv, const std::string& runtime_dir,
                            std::chrono::seconds patience) {
  LaunchedDaemon launched;
  const Clock::time_point begin = Clock::now();
  const std::string notify = runtime_dir + "/notify.sock";
  const UniqueFd ready = BindNotifySocket(notify);
  if (!ready.valid()) {
    launched.error = "binding " + notify + ": " + std::strerror(errno);
    return launched;
  }
  argv.push_back("--runtime-dir=" + runtime_dir);
  auto process = std::make_unique<ChildProcess>(std::move(argv), ChildProcess::Environment{{"NOTIFY_SOCKET", notify}});
  launched.error = AwaitReady(ready.get(), *process, begin + patience);
  unlink(notify.c_str());
  if (!launched.error.empty()) return launched;
  launched.start_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  launched.process = std::move(process);
  return launched;
}

}  // namespace dak::demo

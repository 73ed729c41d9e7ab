#include "tests/fault/kernel_calls.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

namespace dak::testing {
namespace {

std::atomic<const char*> g_kind{nullptr};  // null: not counting
std::atomic<int> g_left{0};                // calls until the stop

void Count(const char* kind) {
  const char* const wanted = g_kind.load();
  if (wanted == nullptr || std::strcmp(kind, wanted) != 0 || g_left.fetch_sub(1) != 1) return;
  constexpr char kLine[] = "stopped\n";
  [[maybe_unused]] const long written = syscall(SYS_write, STDOUT_FILENO, kLine, sizeof(kLine) - 1);
  for (;;) syscall(SYS_pause);
}

}  // namespace

void StopAtCall(const char* kind, int n) {
  g_left.store(n);
  g_kind.store(kind);
}
void Disarm() { g_kind.store(nullptr); }

}  // namespace dak::testing

using dak::testing::Count;

extern "C" {

int connect(int fd, const sockaddr* address, socklen_t length) {
  Count("connect");
  return static_cast<int>(syscall(SYS_connect, fd, address, length));
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  Count("sendmsg");
  return syscall(SYS_sendmsg, fd, message, flags);
}

ssize_t send(int fd, const void* bytes, size_t count, int flags) {
  Count("send");
  return syscall(SYS_sendto, fd, bytes, count, flags, nullptr, 0);
}

ssize_t recvmsg(int fd, msghdr* message, int flags) {
  Count("recvmsg");
  return syscall(SYS_recvmsg, fd, message, flags);
}

void* mmap(void* address, size_t length, int protection, int flags, int fd, off_t offset) noexcept {
  Count("mmap");
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, length, protection, flags, fd, offset));
}

int munmap(void* address, size_t length) noexcept {
  Count("munmap");
  return static_cast<int>(syscall(SYS_munmap, address, length));
}

int mprotect(void* address, size_t length, int protection) noexcept {
  Count("mprotect");
  return static_cast<int>(syscall(SYS_mprotect, address, length, protection));
}

int madvise(void* address, size_t length, int advice) noexcept {
  Count("madvise");
  return static_cast<int>(syscall(SYS_madvise, address, length, advice));
}

int close(int fd) {
  Count("close");
  return static_cast<int>(syscall(SYS_close, fd));
}

int nanosleep(const timespec* wanted, timespec* left) {
  Count("sleep");
  return static_cast<int>(syscall(SYS_nanosleep, wanted, left));
}

int clock_nanosleep(clockid_t clock, int flags, const timespec* wanted, timespec* left) {
  Count("sleep");
  return syscall(SYS_clock_nanosleep, clock, flags, wanted, left) == 0 ? 0 : errno;
}
}

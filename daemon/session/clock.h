// The clock of ages, leases and the controller: never set back by an administrator.
#ifndef DAK_DAEMON_SESSION_CLOCK_H_
#define DAK_DAEMON_SESSION_CLOCK_H_

#include <chrono>
#include <cstdint>

namespace dak::daemon {

inline uint64_t MonotonicNs() {
  return static_cast<uint64_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_CLOCK_H_

// What dakd tells systemd: ready, stopping, still alive. Does nothing where no one listens ($NOTIFY_SOCKET unset).
#ifndef DAK_DAEMON_NOTIFY_H_
#define DAK_DAEMON_NOTIFY_H_

#include <cstdint>

namespace dak::daemon {

void NotifyReady();
void NotifyStopping();
void NotifyWatchdog();
// Interval at which NotifyWatchdog is due (half of what systemd allows), or 0 if nobody asked.
uint64_t WatchdogIntervalNs();

}  // namespace dak::daemon

#endif  // DAK_DAEMON_NOTIFY_H_

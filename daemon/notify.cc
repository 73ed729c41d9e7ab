#include "daemon/notify.h"

#include <systemd/sd-daemon.h>

namespace dak::daemon {

void NotifyReady() { ::sd_notify(0, "READY=1"); }
void NotifyStopping() { ::sd_notify(0, "STOPPING=1"); }
void NotifyWatchdog() { ::sd_notify(0, "WATCHDOG=1"); }

uint64_t WatchdogIntervalNs() {
  uint64_t usec = 0;
  return ::sd_watchdog_enabled(0, &usec) > 0 ? usec * 1000 / 2 : 0;
}

}  // namespace dak::daemon

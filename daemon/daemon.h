// dakd as an object: pools, sockets, services and threads, from Start to Stop.
//
//   DAK_ASSIGN_OR_RETURN(auto daemon, Daemon::Start(options, std::move(device)));
//   ... serves until ...
//   daemon->Stop();
//
// One daemon per runtime directory: it holds a lock on <runtime_dir>/dakd.lock, and a second one is refused. Sockets
// that a killed daemon left behind are replaced.
//
// Thread safety: Start and Stop belong to one thread; the accessors may be used between them from any.
// Errors of Start: FAILED_PRECONDITION with ALREADY_RUNNING if another daemon has the directory, RESOURCE_EXHAUSTED if
// a configured capacity is more than the device has, UNAVAILABLE if the metrics address is taken, INVALID_ARGUMENT or
// INTERNAL for what the system refuses. What was started is stopped again.
#ifndef DAK_DAEMON_DAEMON_H_
#define DAK_DAEMON_DAEMON_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "allocator/device/device.h"
#include "allocator/ledger.h"
#include "daemon/config/options.h"

namespace dak::daemon {

// Of the whole project.
const char* Version();

class Daemon {
 public:
  static absl::StatusOr<std::unique_ptr<Daemon>> Start(const DaemonOptions& options, std::unique_ptr<Device> device);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Refuses what is new, gives calls under way `shutdown_grace_ns` to end, closes all sessions, frees publications,
  // removes the sockets. Harmless to repeat.
  void Stop();

  const Ledger& ledger() const;
  std::string metrics_address() const;  // as bound; empty if off
  std::string RenderMetrics() const;

 private:
  class Impl;
  explicit Daemon(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_DAEMON_H_

// Starts dakd and waits until it serves.
//
// dakd says that it is ready by sd_notify; the launcher gives it a socket for that in its runtime directory.
// Thread safety: none. Errors: as text, nothing thrown.
#ifndef DAK_CLIENT_DEMO_DAEMON_LAUNCHER_H_
#define DAK_CLIENT_DEMO_DAEMON_LAUNCHER_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "client/demo/child_process.h"

namespace dak::demo {

struct LaunchedDaemon {
  std::unique_ptr<ChildProcess> process;  // null: it didn't get ready
  double start_seconds = 0;               // from its start to its readiness
  std::string error;
};

// argv[0] is dakd's path; --runtime-dir is added. `runtime_dir` must exist.
LaunchedDaemon LaunchDaemon(std::vector<std::string> argv, const std::string& runtime_dir,
                            std::chrono::seconds patience);

}  // namespace dak::demo

#endif  // DAK_CLIENT_DEMO_DAEMON_LAUNCHER_H_

// dakctl: what an operator asks of a running dakd, in tables for people and JSON for programs (docs/dakctl.md).
//
// A gRPC client of control.sock. Names come from clients, so every string from the daemon is shown with control
// characters made visible. Exit codes: 0 done, 1 it failed (err says what and what to do), 2 the command line is wrong;
// `plan` has the planner's (daemon/planner/plan_command.h), which mean the same.
// Thread safety: calls share nothing, as long as they write to streams of their own.
#ifndef DAK_DAEMON_DAKCTL_DAKCTL_H_
#define DAK_DAEMON_DAKCTL_DAKCTL_H_

#include <functional>
#include <ostream>
#include <string>

#include "absl/types/span.h"

namespace dak::dakctl {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

// What `out` is, for the live view.
struct Terminal {
  bool is_tty = false;  // false: `watch` writes plain lines and no escape sequence
  int columns = 80;     // of a tty; longer lines are cut
  int rows = 24;
  // Waits between two frames of `watch`; false ends it. Null sleeps.
  std::function<bool(double seconds)> wait;
};

// Runs one command line, without the program's name.
int RunDakctl(absl::Span<const std::string> args, std::ostream& out, std::ostream& err, const Terminal& terminal = {});

}  // namespace dak::dakctl

#endif  // DAK_DAEMON_DAKCTL_DAKCTL_H_

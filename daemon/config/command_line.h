// dakd's command line: flags that override the configuration file.
//
// Pure functions. Errors: INVALID_ARGUMENT names the flag.
#ifndef DAK_DAEMON_CONFIG_COMMAND_LINE_H_
#define DAK_DAEMON_CONFIG_COMMAND_LINE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "daemon/config/config.pb.h"

namespace dak::daemon {

struct CommandLine {
  enum class Mode { kRun, kHelp, kVersion, kCheckConfig, kPrintProfile };
  Mode mode = Mode::kRun;
  std::string config_path;  // empty: none
  config::Config overrides;
};

// `arguments` without the program's name. Flags are --name=value or --name value.
absl::StatusOr<CommandLine> ParseCommandLine(absl::Span<const std::string> arguments);
std::string HelpText();

}  // namespace dak::daemon

#endif  // DAK_DAEMON_CONFIG_COMMAND_LINE_H_

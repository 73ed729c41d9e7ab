// dakctl's command line, taken apart and checked.
#ifndef DAK_DAEMON_DAKCTL_OPTIONS_H_
#define DAK_DAEMON_DAKCTL_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "dak/v1/types.pb.h"

namespace dak::dakctl {

enum class Command {
  kStatus,
  kPools,
  kSessions,
  kTensors,
  kPublications,
  kQuotas,
  kCongestion,
  kEvents,
  kWatch,
  kPlan,
  kWithdraw,
  kDemote,
  kPromote,
  kHelp,
  kVersion,
};

struct CommandSpec {
  Command command;
  const char* name;
  const char* arguments;  // as in the usage line
  const char* summary;    // one line, for the list of commands
  const char* help;       // the rest, for `dakctl help NAME`
};
// All commands, in the order of the help.
absl::Span<const CommandSpec> Commands();
const CommandSpec& SpecOf(Command command);

struct FlagSpec {
  const char* name;      // without the dashes
  const char* value;     // what it takes, as in the help; empty: nothing
  const char* commands;  // names of the commands that have it, with blanks between; empty: all of them
  const char* help;
};
absl::Span<const FlagSpec> Flags();
bool HasFlag(const CommandSpec& command, const FlagSpec& flag);

struct Options {
  Command command = Command::kHelp;
  std::string runtime_dir;
  double timeout_s = 5;
  bool json = false;
  bool exact_bytes = false;

  uint64_t session_id = 0;  // 0: all
  bool set_quota = false;
  v1::Tier tier = v1::TIER_UNSPECIFIED;
  uint64_t limit_bytes = 0;
  uint64_t expected_revision = 0;
  bool follow = false;
  uint32_t replay = 20;
  double interval_s = 1;
  uint64_t count = 0;  // frames of watch; 0: no end
  std::string publication;
  std::vector<std::string> plan_args;
  std::string help_topic;  // a command's name, or empty
};

// INVALID_ARGUMENT says what is wrong, and what was likely meant. `default_runtime_dir` is used without --runtime-dir.
absl::StatusOr<Options> ParseCommandLine(absl::Span<const std::string> args, const std::string& default_runtime_dir);

// A quota's limit: a size as daemon/planner/size_text.h reads it, or "none". INVALID_ARGUMENT otherwise.
absl::StatusOr<uint64_t> ParseLimit(const std::string& text);

// The one of `known` nearest to `word`, or empty if none is near.
std::string Nearest(const std::string& word, absl::Span<const std::string> known);

}  // namespace dak::dakctl

#endif  // DAK_DAEMON_DAKCTL_OPTIONS_H_

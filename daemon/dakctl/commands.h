// What each command does, given a daemon. Each writes its result to `out` and returns why it failed.
#ifndef DAK_DAEMON_DAKCTL_COMMANDS_H_
#define DAK_DAEMON_DAKCTL_COMMANDS_H_

#include <ostream>

#include "absl/status/status.h"
#include "daemon/dakctl/client.h"
#include "daemon/dakctl/dakctl.h"
#include "daemon/dakctl/options.h"

namespace dak::dakctl {

// status, pools, sessions, tensors, publications, quotas, congestion, withdraw: one answer each.
absl::Status RunQuery(const Client& client, const Options& options, std::ostream& out);
absl::Status RunEvents(const Client& client, const Options& options, std::ostream& out);
// demote, promote: progress until it is done.
absl::Status RunMigrate(const Client& client, const Options& options, std::ostream& out);
absl::Status RunWatch(const Client& client, const Options& options, const Terminal& terminal, std::ostream& out);

// The list of commands, or one command's help.
std::string HelpText(const std::string& topic);

}  // namespace dak::dakctl

#endif  // DAK_DAEMON_DAKCTL_COMMANDS_H_

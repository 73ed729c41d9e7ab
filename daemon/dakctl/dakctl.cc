#include "daemon/dakctl/dakctl.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "daemon/dakctl/commands.h"
#include "daemon/dakctl/text.h"
#include "daemon/planner/plan_command.h"
#include "dakctl_version.h"

namespace dak::dakctl {
namespace {

std::string DefaultRuntimeDir() {
  const char* dir = std::getenv("DAK_RUNTIME_DIR");
  return dir == nullptr || *dir == '\0' ? "/run/dak" : dir;
}

void PrintError(const absl::Status& status, std::ostream& err) {
  err << "dakctl: " << Printable(std::string(status.message()));
  // The socket's diagnosis speaks for itself; the daemon's refusals are known by their code.
  if (!absl::IsUnavailable(status) && !absl::IsDeadlineExceeded(status)) {
    err << " [" << absl::StatusCodeToString(status.code()) << "]";
  }
  err << "\n";
  const ErrorDetail detail = DetailOf(status);
  const Format format;
  if (!detail.field.empty()) err << "  field:    " << Printable(detail.field) << "\n";
  if (!detail.reason.empty()) err << "  reason:   " << Printable(detail.reason) << "\n";
  if (!detail.limit.empty()) err << "  limit:    " << Printable(detail.limit) << "\n";
  if (detail.shortfall_bytes > 0) err << "  short by: " << format.Bytes(detail.shortfall_bytes) << "\n";
}

}  // namespace

int RunDakctl(absl::Span<const std::string> args, std::ostream& out, std::ostream& err, const Terminal& terminal) {
  const absl::StatusOr<Options> options = ParseCommandLine(args, DefaultRuntimeDir());
  if (!options.ok()) {
    err << "dakctl: " << options.status().message() << "\n";
    if (args.empty()) err << "\n" << HelpText("");
    if (!args.empty()) err << "'dakctl help' lists the commands\n";
    return kExitUsage;
  }
  if (options->command == Command::kHelp) return out << HelpText(options->help_topic), kExitOk;
  if (options->command == Command::kVersion) return out << "dakctl " << kVersion << " (API 1)\n", kExitOk;
  if (options->command == Command::kPlan) return planner::RunPlanCommand(options->plan_args, out, err);
  const Client client(options->runtime_dir, options->timeout_s);
  absl::Status status;
  switch (options->command) {
    case Command::kEvents:
      status = RunEvents(client, *options, out);
      break;
    case Command::kDemote:
    case Command::kPromote:
      status = RunMigrate(client, *options, out);
      break;
    case Command::kWatch:
      status = RunWatch(client, *options, terminal, out);
      break;
    default:
      status = RunQuery(client, *options, out);
  }
  out.flush();
  if (!status.ok()) return PrintError(status, err), kExitFailed;
  return kExitOk;
}

}  // namespace dak::dakctl

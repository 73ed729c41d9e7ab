// The commands and flags of dakctl: what the parser accepts and the help shows are the same table.
#include "absl/strings/str_split.h"
#include "daemon/dakctl/options.h"

namespace dak::dakctl {
namespace {

constexpr CommandSpec kCommands[] = {
    {Command::kStatus, "status", "", "the daemon, its device, pools and sessions at a glance", ""},
    {Command::kPools, "pools", "", "each tier's memory: capacity, who holds it, what is free",
     "UNPLACED is memory inside segments that no tensor covers; LARGEST HOLE the largest piece of it."},
    {Command::kSessions, "sessions", "", "who is connected, what they hold and read",
     "REMOTE is the share of a session's memory that isn't HBM, READ what its kernels read from there so far."},
    {Command::kTensors, "tensors", "", "every tensor and where its rows are",
     "Published tensors belong to no session."},
    {Command::kPublications, "publications", "", "sealed groups that sessions may attach to", ""},
    {Command::kQuotas, "quotas", "[get | set SESSION TIER LIMIT]", "what each session may hold, and changing it",
     "LIMIT is a size as 24GiB, 1.5GB or a number of bytes, or 'none'. TIER is hbm, host or cxl.\n"
     "A limit under what the session holds takes nothing away: the session keeps it, but may allocate nothing\n"
     "more until it is under. Only the session's own user and root may set."},
    {Command::kCongestion, "congestion", "", "the links: windows, rates and round trips by session", ""},
    {Command::kEvents, "events", "", "what happened: the latest events, or all to come",
     "Without --follow it ends when the daemon has no more past events to show."},
    {Command::kWatch, "watch", "", "a live view of pools, sessions and links",
     "On a terminal it redraws in place; end it with Ctrl-C. Into a file or pipe it writes plain lines, one for\n"
     "each pool, session and link; with --json one document a line."},
    {Command::kPlan, "plan", "[ARGUMENTS]", "which share of each operation would be remote; needs no daemon",
     "All that follows goes to the planner: 'dakctl plan --help' explains it."},
    {Command::kWithdraw, "withdraw", "PUBLICATION", "take a publication's name away",
     "Its memory goes when the last session detaches. Only the user who published it and root may."},
    {Command::kDemote, "demote", "SESSION", "take an idle session out of HBM, its addresses unchanged",
     "All or nothing, and only for a session that its process has suspended (dak_session_suspend). Tells of its\n"
     "progress; Ctrl-C takes it back. --timeout doesn't bound it. Only the session's own user and root may."},
    {Command::kPromote, "promote", "SESSION", "bring a demoted session back to HBM",
     "It comes back by itself when its process resumes it. If it doesn't fit, says by how much, and the session\n"
     "stays as it is."},
    {Command::kHelp, "help", "[COMMAND]", "this text, or a command's", ""},
    {Command::kVersion, "version", "", "dakctl's own version", ""},
};

constexpr FlagSpec kFlags[] = {
    {"runtime-dir", "DIR", "", "where control.sock is (default: $DAK_RUNTIME_DIR, else /run/dak)"},
    {"timeout", "SECONDS", "", "how long an answer may take (default 5)"},
    {"json", "", "", "JSON for programs, with the field names of the API"},
    {"bytes", "", "", "exact bytes rather than KiB, MiB, GiB"},
    {"help", "", "", "the command's help"},
    {"session", "ID", "tensors quotas", "only this session's"},
    {"revision", "N", "quotas", "set only if the quota's revision is still N"},
    {"follow", "", "events", "go on with what happens from now on"},
    {"replay", "N", "events", "past events to show, at most 1024 (default 20)"},
    {"interval", "SECONDS", "watch", "time between two frames (default 1)"},
    {"count", "N", "watch", "end after N frames"},
};

}  // namespace

absl::Span<const CommandSpec> Commands() { return kCommands; }
absl::Span<const FlagSpec> Flags() { return kFlags; }

const CommandSpec& SpecOf(Command command) { return kCommands[static_cast<size_t>(command)]; }

bool HasFlag(const CommandSpec& command, const FlagSpec& flag) {
  if (*flag.commands == '\0') return true;
  for (absl::string_view name : absl::StrSplit(flag.commands, ' ')) {
    if (name == command.name) return true;
  }
  return false;
}

}  // namespace dak::dakctl

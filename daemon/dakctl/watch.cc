#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "daemon/dakctl/commands.h"
#include "daemon/dakctl/json.h"
#include "daemon/dakctl/views.h"

namespace dak::dakctl {
namespace {

// Drawing over the last frame line by line doesn't flicker as clearing first does.
constexpr char kHome[] = "\x1b[H";
constexpr char kClear[] = "\x1b[2J";
constexpr char kClearLine[] = "\x1b[K";
constexpr char kClearBelow[] = "\x1b[J";

std::string Redraw(const std::string& frame, bool first) {
  return absl::StrCat(kHome, first ? kClear : "", absl::StrReplaceAll(frame, {{"\n", absl::StrCat(kClearLine, "\n")}}),
                      kClearBelow);
}

bool Sleep(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  return true;
}

}  // namespace

absl::Status RunWatch(const Client& client, const Options& options, const Terminal& terminal, std::ostream& out) {
  const Format format{options.exact_bytes};
  for (uint64_t frame = 1; out.good(); ++frame) {
    const absl::StatusOr<Overview> overview = AskOverview(client);
    if (!overview.ok()) {
      if (frame == 1) return overview.status();
      return absl::Status(overview.status().code(), absl::StrCat("dakd went away: ", overview.status().message()));
    }
    if (options.json) {
      out << ToJson(*overview, JsonStyle::kLine);
    } else if (terminal.is_tty) {
      // The last row stays free: a line break there would scroll.
      out << Redraw(WatchFrame(*overview, format, terminal.columns, terminal.rows - 1), frame == 1);
    } else {
      out << WatchLines(*overview, format);
    }
    out << std::flush;
    if (frame == options.count) break;
    if (!(terminal.wait ? terminal.wait(options.interval_s) : Sleep(options.interval_s))) break;
  }
  return absl::OkStatus();
}

}  // namespace dak::dakctl

// The live view's frames.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "daemon/dakctl/table.h"
#include "daemon/dakctl/views.h"

namespace dak::dakctl {
namespace {

constexpr int kBarWidth = 24;
constexpr auto kRight = Table::Align::kRight;

std::string Now() { return absl::FormatTime("%H:%M:%S", absl::Now(), absl::LocalTimeZone()); }

// "[#####===.......]": '#' held by sessions, '=' published, '.' free. Whatever isn't nothing shows.
std::string Bar(const v1::PoolInfo& pool) {
  const double capacity = std::max<double>(1, pool.capacity_bytes());
  const auto cells = [&](uint64_t bytes) {
    if (bytes == 0) return 0;
    return std::clamp(static_cast<int>(std::lround(kBarWidth * bytes / capacity)), 1, kBarWidth);
  };
  const int sessions = cells(pool.session_bytes());
  const int published = std::min(cells(pool.published_bytes()), kBarWidth - sessions);
  return absl::StrCat("[", std::string(sessions, '#'), std::string(published, '='),
                      std::string(kBarWidth - sessions - published, '.'), "]");
}

std::string PoolTable(const v1::ListPoolsResponse& pools, const Format& format) {
  Table table;
  table.Column("POOL").Column("# sessions  = published").Column("USED", kRight).Column("SESSIONS", kRight);
  table.Column("PUBLISHED", kRight).Column("FREE", kRight).Column("CAPACITY", kRight);
  for (const v1::PoolInfo& pool : pools.pools()) {
    table.Row({TierText(pool.tier()), Bar(pool),
               Percent(pool.capacity_bytes() - pool.free_bytes(), pool.capacity_bytes()),
               format.Bytes(pool.session_bytes()), format.Bytes(pool.published_bytes()),
               format.Bytes(pool.free_bytes()), format.Bytes(pool.capacity_bytes())});
  }
  return table.Render();
}

// What watch shows of one session, in the order of SessionColumns.
std::vector<std::string> SessionCells(const v1::SessionInfo& session, const Traffic& traffic, const Format& format) {
  const uint64_t total = TotalBytes(session.used());
  const uint64_t hbm = BytesOf(session.used(), v1::TIER_HBM);
  return {absl::StrCat(session.session_id()),
          session.name(),
          format.Bytes(hbm),
          format.Bytes(total - hbm),
          Percent(total - hbm, total),
          format.Rate(traffic.bytes_per_s),
          absl::StrCat(format.Bytes(traffic.window_bytes), traffic.violating ? " !" : ""),
          traffic.round_trip_ns == 0 ? "-" : Duration(traffic.round_trip_ns / 1e9),
          session.plan_version() == 0 ? "-" : absl::StrCat("v", session.plan_version())};
}

Table SessionTable() {
  Table table;
  table.Column("SESSION", kRight).Column("NAME").Column("HBM", kRight).Column("REMOTE", kRight).Column("RATIO", kRight);
  table.Column("READS", kRight).Column("WINDOW", kRight).Column("ROUND TRIP", kRight).Column("PLAN", kRight);
  return table;
}

}  // namespace

std::string WatchFrame(const Overview& overview, const Format& format, int columns, int rows) {
  const auto traffic = TrafficBySession(overview.congestion);
  bool violating = false;
  std::string text = absl::StrCat("dakd ", Printable(overview.node.daemon_version()), " on ",
                                  Printable(overview.node.device().name()), ", up ", Age(overview.node.uptime_ns()),
                                  "    ", Now(), "\n\n", PoolTable(overview.pools, format), "\n");
  for (const auto& link : overview.congestion.links()) absl::StrAppend(&text, LinkText(link, format), "\n");
  text += "\n";
  // The sessions get what rows are left, less the table's header and a line that says what isn't shown.
  const int taken = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  const int room = std::max(1, rows - taken - 3);
  const int sessions = overview.sessions.sessions_size();
  const int shown = sessions <= room ? sessions : room;
  Table table = SessionTable();
  for (int i = 0; i < shown; ++i) {
    const v1::SessionInfo& session = overview.sessions.sessions(i);
    const auto found = traffic.find(session.session_id());
    const Traffic now = found == traffic.end() ? Traffic{} : found->second;
    violating |= now.violating;
    table.Row(SessionCells(session, now, format));
  }
  text += table.empty() ? "no sessions\n" : table.Render();
  if (shown < sessions) absl::StrAppend(&text, "... and ", sessions - shown, " more (dakctl sessions)\n");
  if (violating) text += "! reads past its window\n";
  std::string out;
  for (absl::string_view line : absl::StrSplit(text.substr(0, text.size() - 1), '\n')) {
    absl::StrAppend(&out, Clip(line, columns), "\n");
  }
  return out;
}

std::string WatchLines(const Overview& overview, const Format& format) {
  const auto traffic = TrafficBySession(overview.congestion);
  const std::string now = Now();
  std::string out;
  for (const v1::PoolInfo& pool : overview.pools.pools()) {
    absl::StrAppend(&out, now, " pool ", TierText(pool.tier()), ": sessions ", format.Bytes(pool.session_bytes()),
                    ", published ", format.Bytes(pool.published_bytes()), ", free ", format.Bytes(pool.free_bytes()),
                    " of ", format.Bytes(pool.capacity_bytes()), "\n");
  }
  for (const v1::SessionInfo& session : overview.sessions.sessions()) {
    const auto found = traffic.find(session.session_id());
    const auto cells = SessionCells(session, found == traffic.end() ? Traffic{} : found->second, format);
    absl::StrAppend(&out, now, " session ", cells[0], " ", Printable(cells[1]), ": hbm ", cells[2], ", remote ",
                    cells[3], " (", cells[4], "), reads ", cells[5], ", window ", cells[6], ", round trip ", cells[7],
                    ", plan ", cells[8], "\n");
  }
  for (const v1::LinkState& link : overview.congestion.links()) {
    absl::StrAppend(&out, now, " ", LinkText(link, format), "\n");
  }
  return out;
}

}  // namespace dak::dakctl

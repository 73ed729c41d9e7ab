#include "daemon/dakctl/views.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "daemon/dakctl/table.h"
#include "daemon/dakctl/users.h"

namespace dak::dakctl {
namespace {

constexpr auto kRight = Table::Align::kRight;

// Tiers that get a column: HBM and host always, CXL where somebody has it.
std::set<v1::Tier> BaseTiers() { return {v1::TIER_HBM, v1::TIER_HOST}; }
void AddTierColumns(const std::set<v1::Tier>& tiers, Table& table) {
  for (v1::Tier tier : tiers) table.Column(absl::AsciiStrToUpper(TierText(tier)), kRight);
}

std::string DataTypeText(v1::DataType type) {
  const std::string name = v1::DataType_Name(type);
  return absl::AsciiStrToLower(name.starts_with("DATA_TYPE_") ? name.substr(10) : absl::StrCat("type ", int{type}));
}

std::string BytesByTier(const google::protobuf::RepeatedPtrField<v1::TierBytes>& list, const Format& format) {
  return absl::StrJoin(list, ", ", [&](std::string* out, const v1::TierBytes& entry) {
    absl::StrAppend(out, TierText(entry.tier()), " ", format.Bytes(entry.bytes()));
  });
}

std::string DeviceText(const v1::DeviceInfo& device) {
  std::string text = absl::StrCat(device.kind(), " ", device.ordinal());
  if (device.name() != device.kind()) absl::StrAppend(&text, ": ", device.name());
  if (!device.uuid().empty()) absl::StrAppend(&text, " (", device.uuid(), ")");
  return Printable(text);
}

}  // namespace

std::string TierText(v1::Tier tier) {
  const std::string name = v1::Tier_Name(tier);
  return name.starts_with("TIER_") ? absl::AsciiStrToLower(name.substr(5)) : absl::StrCat("tier ", int{tier});
}

std::string StatusView(const Overview& overview, const Format& format) {
  const v1::GetNodeResponse& node = overview.node;
  uint64_t rate = 0;
  for (const auto& [id, traffic] : TrafficBySession(overview.congestion)) rate += traffic.bytes_per_s;
  std::string out = absl::StrCat("dakd ", Printable(node.daemon_version()), " (API ", node.api_version(), "), pid ",
                                 node.pid(), ", up ", Age(node.uptime_ns()), "\n");
  absl::StrAppend(&out, "device    ", DeviceText(node.device()), "\n");
  absl::StrAppend(
      &out, "metrics   ",
      node.metrics_address().empty() ? "off" : absl::StrCat("http://", Printable(node.metrics_address()), "/metrics"),
      "\n");
  absl::StrAppend(&out, "sessions  ", overview.sessions.sessions_size(), ", reading ", format.Rate(rate),
                  " from remote tiers\n\n");
  return out + PoolsView(overview.pools, format);
}

std::string PoolsView(const v1::ListPoolsResponse& pools, const Format& format) {
  if (pools.pools().empty()) return "no pools\n";
  Table table;
  table.Column("POOL").Column("CAPACITY", kRight).Column("SESSIONS", kRight).Column("PUBLISHED", kRight);
  table.Column("FREE", kRight).Column("USED", kRight).Column("SEGMENTS", kRight).Column("UNPLACED", kRight);
  table.Column("LARGEST HOLE", kRight).Column("NUMA", kRight);
  for (const v1::PoolInfo& pool : pools.pools()) {
    table.Row({TierText(pool.tier()), format.Bytes(pool.capacity_bytes()), format.Bytes(pool.session_bytes()),
               format.Bytes(pool.published_bytes()), format.Bytes(pool.free_bytes()),
               Percent(pool.capacity_bytes() - pool.free_bytes(), pool.capacity_bytes()),
               absl::StrCat(pool.segment_count()), format.Bytes(pool.unplaced_bytes()),
               format.Bytes(pool.largest_unplaced_bytes()),
               pool.numa_node() < 0 ? "-" : absl::StrCat(pool.numa_node())});
  }
  return table.Render();
}

std::string SessionsView(const v1::ListSessionsResponse& sessions, const Format& format) {
  if (sessions.sessions().empty()) return "no sessions\n";
  std::set<v1::Tier> tiers = BaseTiers();
  for (const auto& session : sessions.sessions()) {
    for (const auto& entry : session.used()) tiers.insert(entry.tier());
  }
  Table table;
  table.Column("ID", kRight).Column("NAME").Column("PID", kRight).Column("USER").Column("AGE", kRight);
  table.Column("WEIGHT", kRight).Column("TENSORS", kRight);
  AddTierColumns(tiers, table);
  table.Column("REMOTE", kRight).Column("READ", kRight).Column("WINDOW", kRight).Column("PLAN", kRight);
  for (const v1::SessionInfo& session : sessions.sessions()) {
    std::vector<std::string> row = {absl::StrCat(session.session_id()),
                                    session.name(),
                                    absl::StrCat(session.pid()),
                                    UserName(session.uid()),
                                    Age(session.age_ns()),
                                    absl::StrCat(session.weight()),
                                    absl::StrCat(session.tensor_count())};
    for (v1::Tier tier : tiers) row.push_back(format.Bytes(BytesOf(session.used(), tier)));
    const uint64_t total = TotalBytes(session.used());
    row.push_back(Percent(total - BytesOf(session.used(), v1::TIER_HBM), total));
    row.push_back(format.Bytes(session.remote_bytes()));
    row.push_back(format.Bytes(session.window_bytes()));
    row.push_back(session.plan_version() == 0 ? "-" : absl::StrCat("v", session.plan_version()));
    table.Row(row);
  }
  return table.Render();
}

std::string TensorsView(const v1::ListTensorsResponse& tensors, const Format& format) {
  if (tensors.tensors().empty()) return "no tensors\n";
  std::set<v1::Tier> tiers = BaseTiers();
  for (const auto& tensor : tensors.tensors()) {
    for (const auto& part : tensor.parts()) tiers.insert(part.tier());
  }
  Table table;
  table.Column("ID", kRight).Column("SESSION", kRight).Column("GROUP").Column("NAME").Column("TYPE");
  table.Column("ROWS", kRight).Column("COLS", kRight);
  AddTierColumns(tiers, table);
  table.Column("REMOTE", kRight);
  for (const v1::Tensor& tensor : tensors.tensors()) {
    std::vector<std::string> row = {absl::StrCat(tensor.tensor_id()),
                                    tensor.session_id() == 0 ? "published" : absl::StrCat(tensor.session_id()),
                                    tensor.group(),
                                    tensor.name(),
                                    DataTypeText(tensor.data_type()),
                                    absl::StrCat(tensor.rows()),
                                    absl::StrCat(tensor.cols())};
    std::map<v1::Tier, uint64_t> bytes;
    uint64_t remote_rows = 0;
    for (const v1::TensorPart& part : tensor.parts()) {
      bytes[part.tier()] += part.bytes();
      if (part.tier() != v1::TIER_HBM) remote_rows += part.rows();
    }
    for (v1::Tier tier : tiers) row.push_back(format.Bytes(bytes[tier]));
    row.push_back(Percent(remote_rows, tensor.rows()));
    table.Row(row);
  }
  return table.Render();
}

std::string PublicationsView(const v1::ListPublicationsResponse& publications, const Format& format) {
  if (publications.publications().empty()) return "no publications\n";
  std::set<v1::Tier> tiers = BaseTiers();
  for (const auto& publication : publications.publications()) {
    for (const auto& entry : publication.bytes()) tiers.insert(entry.tier());
  }
  Table table;
  table.Column("NAME").Column("OWNER").Column("AGE", kRight).Column("TENSORS", kRight);
  AddTierColumns(tiers, table);
  table.Column("ATTACHED", kRight).Column("STATE").Column("FINGERPRINT");
  for (const v1::PublicationInfo& publication : publications.publications()) {
    std::vector<std::string> row = {publication.name(), UserName(publication.owner_uid()), Age(publication.age_ns()),
                                    absl::StrCat(publication.tensor_count())};
    for (v1::Tier tier : tiers) row.push_back(format.Bytes(BytesOf(publication.bytes(), tier)));
    row.push_back(absl::StrCat(publication.attached_sessions()));
    row.push_back(publication.withdrawn() ? "withdrawn" : "open");
    row.push_back(publication.fingerprint());
    table.Row(row);
  }
  return table.Render();
}

std::string QuotasView(const v1::GetQuotasResponse& quotas, const v1::ListSessionsResponse& sessions,
                       const Format& format) {
  if (quotas.quotas().empty()) return "no quotas\n";
  std::map<uint64_t, std::string> names;
  for (const auto& session : sessions.sessions()) names[session.session_id()] = session.name();
  Table table;
  table.Column("SESSION", kRight).Column("NAME").Column("TIER").Column("LIMIT", kRight).Column("USED", kRight);
  table.Column("OF LIMIT", kRight).Column("OVER BY", kRight).Column("REVISION", kRight);
  for (const v1::SessionQuota& quota : quotas.quotas()) {
    const bool unlimited = quota.limit_bytes() == ~uint64_t{0};
    table.Row({absl::StrCat(quota.session_id()), names[quota.session_id()], TierText(quota.tier()),
               format.Limit(quota.limit_bytes()), format.Bytes(quota.used_bytes()),
               unlimited ? "-" : Percent(quota.used_bytes(), quota.limit_bytes()),
               quota.overage_bytes() == 0 ? "-" : format.Bytes(quota.overage_bytes()), absl::StrCat(quota.revision())});
  }
  return table.Render();
}

std::string TiersText(const google::protobuf::RepeatedField<int>& tiers) {
  std::string text;
  for (const int tier : tiers) absl::StrAppend(&text, text.empty() ? "" : ", ", TierText(static_cast<v1::Tier>(tier)));
  return text;
}

std::string LinkText(const v1::LinkState& link, const Format& format) {
  uint64_t rate = 0, windows = 0;
  for (const auto& session : link.sessions()) {
    rate += session.achieved_bytes_per_s();
    windows += session.window_bytes();
  }
  const std::string tiers = TiersText(link.tiers());
  return absl::StrCat("link ", link.link(), tiers.empty() ? "" : absl::StrCat(" (", tiers, ")"), ": ",
                      format.Rate(rate), " of ", format.Rate(link.bandwidth_bytes_per_s()), " (",
                      Percent(rate, link.bandwidth_bytes_per_s()), "), windows ", format.Bytes(windows), " of ",
                      format.Bytes(link.target_bytes()));
}

std::string CongestionView(const v1::GetCongestionResponse& congestion, const Format& format) {
  if (congestion.links().empty()) return "no links\n";
  std::string out;
  for (const v1::LinkState& link : congestion.links()) {
    if (!out.empty()) out += "\n";
    absl::StrAppend(&out, LinkText(link, format), ", unloaded round trip ", Duration(link.base_round_trip_ns() / 1e9),
                    "\n");
    if (link.sessions().empty()) continue;
    Table table;
    table.Column("SESSION", kRight).Column("NAME").Column("WEIGHT", kRight).Column("STATE").Column("WINDOW", kRight);
    table.Column("RATE", kRight)
        .Column("OF LINK", kRight)
        .Column("ROUND TRIP", kRight)
        .Column("PEAK IN FLIGHT", kRight);
    for (const v1::SessionWindow& session : link.sessions()) {
      table.Row({absl::StrCat(session.session_id()), session.name(), absl::StrCat(session.weight()),
                 session.violating() ? "past its window"
                 : session.active()  ? "active"
                                     : "idle",
                 format.Bytes(session.window_bytes()), format.Rate(session.achieved_bytes_per_s()),
                 Percent(session.achieved_bytes_per_s(), link.bandwidth_bytes_per_s()),
                 session.round_trip_ns() == 0 ? "-" : Duration(session.round_trip_ns() / 1e9),
                 format.Bytes(session.inflight_peak_bytes())});
    }
    out += table.Render(2);
  }
  return out;
}

std::string EventLine(const v1::Event& event, const Format& format) {
  std::string type = v1::Event::Type_Name(event.type());
  if (type.empty()) type = absl::StrCat("EVENT_", int{event.type()});
  std::string line = absl::StrFormat(
      "%s  #%-6d %-21s",
      absl::FormatTime("%Y-%m-%d %H:%M:%E3S", absl::FromUnixNanos(static_cast<int64_t>(event.time_unix_ns())),
                       absl::LocalTimeZone()),
      event.sequence(), type);
  if (event.session_id() != 0) absl::StrAppend(&line, "  session ", event.session_id());
  if (!event.subject().empty()) absl::StrAppend(&line, "  ", Printable(event.subject()));
  if (!event.message().empty()) absl::StrAppend(&line, "  ", Printable(event.message()));
  if (!event.bytes().empty()) absl::StrAppend(&line, "  (", BytesByTier(event.bytes(), format), ")");
  return line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
}

}  // namespace dak::dakctl

// The daemon's answers as text for people. Thread safety: pure functions, but for the local time zone and account
// names.
#ifndef DAK_DAEMON_DAKCTL_VIEWS_H_
#define DAK_DAEMON_DAKCTL_VIEWS_H_

#include <string>

#include "daemon/dakctl/overview.h"
#include "daemon/dakctl/text.h"

namespace dak::dakctl {

std::string StatusView(const Overview& overview, const Format& format);
std::string PoolsView(const v1::ListPoolsResponse& pools, const Format& format);
std::string SessionsView(const v1::ListSessionsResponse& sessions, const Format& format);
std::string TensorsView(const v1::ListTensorsResponse& tensors, const Format& format);
std::string PublicationsView(const v1::ListPublicationsResponse& publications, const Format& format);
// `sessions` only gives the names.
std::string QuotasView(const v1::GetQuotasResponse& quotas, const v1::ListSessionsResponse& sessions,
                       const Format& format);
// "host, cxl"
std::string TiersText(const google::protobuf::RepeatedField<int>& tiers);
// "link 0 (host): 48.7 GB/s of 51.1 GB/s (95.3 %), windows 136 KiB of 180 KiB"
std::string LinkText(const v1::LinkState& link, const Format& format);
std::string CongestionView(const v1::GetCongestionResponse& congestion, const Format& format);
std::string ProfileView(const v1::Profile& profile, const Format& format);
std::string PlanView(const v1::Plan& plan, const Format& format);
// One line.
std::string EventLine(const v1::Event& event, const Format& format);

// A frame of `watch` on a terminal: lines without escape sequences, none wider than `columns`, at most `rows` of them.
std::string WatchFrame(const Overview& overview, const Format& format, int columns, int rows);
// The same as plain lines, each with the time in front, for files and pipes.
std::string WatchLines(const Overview& overview, const Format& format);

// "hbm", "host", "cxl"; "tier 9" for one that this dakctl doesn't know.
std::string TierText(v1::Tier tier);
// Bytes of one tier in a list, 0 if it isn't there.
template <typename Field>
uint64_t BytesOf(const Field& list, v1::Tier tier) {
  uint64_t bytes = 0;
  for (const v1::TierBytes& entry : list) {
    if (entry.tier() == tier) bytes += entry.bytes();
  }
  return bytes;
}
template <typename Field>
uint64_t TotalBytes(const Field& list) {
  uint64_t bytes = 0;
  for (const v1::TierBytes& entry : list) bytes += entry.bytes();
  return bytes;
}

}  // namespace dak::dakctl

#endif  // DAK_DAEMON_DAKCTL_VIEWS_H_

#include "daemon/dakctl/overview.h"

#include <algorithm>

#include "allocator/base/status_macros.h"

namespace dak::dakctl {

absl::StatusOr<Overview> AskOverview(const Client& client) {
  Overview all;
  DAK_ASSIGN_OR_RETURN(all.node, client.Call(client.node(), &v1::NodeService::Stub::GetNode, {}));
  DAK_ASSIGN_OR_RETURN(all.pools, client.Call(client.node(), &v1::NodeService::Stub::ListPools, {}));
  DAK_ASSIGN_OR_RETURN(all.sessions, client.Call(client.sessions(), &v1::SessionService::Stub::ListSessions, {}));
  DAK_ASSIGN_OR_RETURN(all.congestion, client.Call(client.node(), &v1::NodeService::Stub::GetCongestion, {}));
  return all;
}

absl::btree_map<uint64_t, Traffic> TrafficBySession(const v1::GetCongestionResponse& congestion) {
  absl::btree_map<uint64_t, Traffic> traffic;
  for (const v1::LinkState& link : congestion.links()) {
    for (const v1::SessionWindow& session : link.sessions()) {
      Traffic& sum = traffic[session.session_id()];
      sum.bytes_per_s += session.achieved_bytes_per_s();
      sum.window_bytes += session.window_bytes();
      sum.round_trip_ns = std::max<uint64_t>(sum.round_trip_ns, session.round_trip_ns());
      sum.violating |= session.violating();
    }
  }
  return traffic;
}

}  // namespace dak::dakctl

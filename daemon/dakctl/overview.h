// The whole node in one picture: what `status` and `watch` show.
#ifndef DAK_DAEMON_DAKCTL_OVERVIEW_H_
#define DAK_DAEMON_DAKCTL_OVERVIEW_H_

#include <cstdint>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "daemon/dakctl/client.h"

namespace dak::dakctl {

// Four answers, asked for one after the other: a session may be in one and not yet in the other.
struct Overview {
  v1::GetNodeResponse node;
  v1::ListPoolsResponse pools;
  v1::ListSessionsResponse sessions;
  v1::GetCongestionResponse congestion;
};
absl::StatusOr<Overview> AskOverview(const Client& client);

// A session's traffic, over all links.
struct Traffic {
  uint64_t bytes_per_s = 0;
  uint64_t window_bytes = 0;
  uint64_t round_trip_ns = 0;  // the longest
  bool violating = false;
};
absl::btree_map<uint64_t, Traffic> TrafficBySession(const v1::GetCongestionResponse& congestion);

}  // namespace dak::dakctl

#endif  // DAK_DAEMON_DAKCTL_OVERVIEW_H_

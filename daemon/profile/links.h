// The links of a node: what windows are divided on, one controller each.
//
// A link is a path between the device and one or several remote tiers. Number 0 is the one to the host; the cxl tier is
// read over it, too, unless the device says that it has one of its own (DeviceDescription::LinkOf), number 1. Each has
// rate, round trip, knee and cliff of its own. Values and pure functions.
#ifndef DAK_DAEMON_PROFILE_LINKS_H_
#define DAK_DAEMON_PROFILE_LINKS_H_

#include <cstdint>
#include <vector>

#include "allocator/base/tier.h"
#include "allocator/device/device.h"
#include "daemon/congestion/report.h"
#include "daemon/planner/planner.h"

namespace dak::daemon {

struct NodeLink {
  congestion::LinkProfile profile = {};
  uint64_t knee_bytes = 0;       // in flight; more buys latency only; 0: unknown
  std::vector<Tier> tiers = {};  // that are read over it
  // No hardware: clients model it, and must know what their neighbours have in flight.
  bool is_modelled = true;
};

// By number.
std::vector<NodeLink> LinksOf(const planner::Profile& profile, const DeviceDescription& device);

// Makes the profile's tiers have the device's links. What `profile` doesn't say of a link that only the device knows is
// taken from its model.
void MatchLinks(const DeviceDescription& device, planner::Profile* profile);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_PROFILE_LINKS_H_

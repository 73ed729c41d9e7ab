#include "daemon/profile/links.h"

#include <algorithm>
#include <string>

namespace dak::daemon {
namespace {

planner::RemoteTier* FindCxl(std::vector<planner::RemoteTier>& tiers) {
  const auto found =
      std::find_if(tiers.begin(), tiers.end(), [](const auto& tier) { return tier.name == TierName(Tier::kCxl); });
  return found == tiers.end() ? nullptr : &*found;
}

}  // namespace

void MatchLinks(const DeviceDescription& device, planner::Profile* profile) {
  for (planner::RemoteTier& tier : profile->remote_tiers) tier.own_link = false;
  if (!device.cxl_link.has_value()) return;
  planner::RemoteTier* cxl = FindCxl(profile->remote_tiers);
  if (cxl == nullptr) {
    cxl = &profile->remote_tiers.emplace_back();
    cxl->name = TierName(Tier::kCxl);
  }
  const LinkModel& model = *device.cxl_link;
  cxl->own_link = true;
  if (cxl->bytes_per_s == 0) cxl->bytes_per_s = static_cast<double>(model.bandwidth_bytes_per_s);
  if (cxl->round_trip_ns == 0) cxl->round_trip_ns = model.round_trip_ns;
  if (cxl->cliff_bytes == 0) cxl->cliff_bytes = model.cliff_bytes;
  if (cxl->knee_bytes == 0) {
    cxl->knee_bytes = static_cast<uint64_t>(cxl->bytes_per_s * static_cast<double>(cxl->round_trip_ns) / 1e9);
  }
}

std::vector<NodeLink> LinksOf(const planner::Profile& profile, const DeviceDescription& device) {
  std::vector<NodeLink> links(device.link_count());
  links[0] = {.profile = {.bandwidth_bytes_per_s = profile.link_bytes_per_s,
                          .round_trip_ns = profile.round_trip_ns,
                          .cliff_bytes = profile.cliff_bytes},
              .knee_bytes = profile.knee_bytes,
              .tiers = {}};
  for (const planner::RemoteTier& tier : profile.remote_tiers) {
    if (!tier.own_link || links.size() < 2) continue;
    links[1] = {.profile = {.bandwidth_bytes_per_s = tier.bytes_per_s,
                            .round_trip_ns = tier.round_trip_ns,
                            .cliff_bytes = tier.cliff_bytes},
                .knee_bytes = tier.knee_bytes,
                .tiers = {}};
  }
  for (NodeLink& link : links) link.is_modelled = device.kind == "emulated";
  for (const Tier tier : kAllTiers) {
    if (IsRemote(tier)) links[device.LinkOf(tier)].tiers.push_back(tier);
  }
  return links;
}

}  // namespace dak::daemon

#include "daemon/snapshot.h"

#include "daemon/rpc/node_service.h"

namespace dak::daemon {
namespace {

void AddPools(const ServiceContext& service, monitoring::Snapshot* snapshot) {
  const PlacementStats placement = NodePlacement(service);
  for (const Ledger::PoolUsage& usage : service.environment->ledger->Pools()) {
    const size_t index = TierIndex(usage.tier);
    snapshot->pools.push_back({.tier = usage.tier,
                               .capacity_bytes = usage.capacity_bytes,
                               .free_bytes = usage.free_bytes(),
                               .session_bytes = usage.session_bytes,
                               .published_bytes = usage.published_bytes,
                               .segment_count = placement.segment_count[index],
                               .unplaced_bytes = placement.unplaced_bytes[index]});
  }
}

monitoring::SessionSample SampleOf(const ServiceContext& service, const Session& session) {
  monitoring::SessionSample sample;
  sample.session_id = session.identity().id;
  sample.name = session.identity().name;
  sample.tensor_count = session.tensor_count();
  for (const Tier tier : kAllTiers) {
    const auto quota = service.environment->ledger->GetQuota(sample.session_id, tier);
    sample.limit_bytes[TierIndex(tier)] = quota.ok() ? quota->limit_bytes : kNoLimit;
    sample.used_bytes[TierIndex(tier)] = quota.ok() ? quota->used_bytes : 0;
  }
  if (const SessionPlanPtr plan = session.plan(); plan != nullptr) {
    sample.plan_version = plan->in_force.version;
    sample.plan_predicted_s = plan->in_force.plan.predicted_s;
  }
  return sample;
}

// A session on several links is one series: rates and windows add up.
void AddLink(const SessionLinkState& link, monitoring::SessionSample* sample) {
  sample->remote_bytes += link.remote_bytes;
  sample->remote_bytes_per_s += link.state.bytes_per_s;
  sample->window_bytes += link.state.window_bytes;
  sample->inflight_peak_bytes += link.state.inflight_peak_bytes;
  sample->round_trip_ns_sum += link.round_trip_ns_sum;
  sample->round_trips += link.round_trips;
  sample->violating = sample->violating || link.state.violating;
}

}  // namespace

monitoring::Snapshot TakeSnapshot(const ServiceContext& service) {
  monitoring::Snapshot snapshot;
  snapshot.version = service.version;
  snapshot.device_kind = service.device.kind();
  snapshot.device_name = service.device.name();
  snapshot.profile_source = service.profile.source;
  snapshot.profile_failures = service.profile.failures.size();
  snapshot.profile_measured_unix_s = service.profile.measured_unix_s;
  snapshot.publication_count = service.environment->publications->size();
  AddPools(service, &snapshot);
  absl::flat_hash_map<uint64_t, size_t> index;
  for (const SessionPtr& session : service.sessions->List()) {
    index[session->identity().id] = snapshot.sessions.size();
    snapshot.sessions.push_back(SampleOf(service, *session));
  }
  for (const LinkSnapshot& link : service.congestion->Snapshot()) {
    snapshot.links.push_back({.link = static_cast<uint32_t>(snapshot.links.size()),
                              .target_bytes = link.target_bytes,
                              .bandwidth_bytes_per_s = static_cast<uint64_t>(link.link.profile.bandwidth_bytes_per_s),
                              .migration_bytes_per_s = link.background_bytes_per_s,
                              .unexplained_bytes = link.unexplained_bytes});
    for (const SessionLinkState& state : link.sessions) {
      auto it = index.find(state.state.session_id);
      if (it != index.end()) AddLink(state, &snapshot.sessions[it->second]);
    }
  }
  return snapshot;
}

}  // namespace dak::daemon

#include "daemon/rpc/node_service.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "daemon/rpc/convert.h"
#include "daemon/rpc/watch_events.h"

namespace dak::daemon {
namespace {

void FillQuota(uint64_t session_id, Tier tier, const Ledger::Quota& quota, v1::SessionQuota* out) {
  out->set_session_id(session_id);
  out->set_tier(static_cast<v1::Tier>(tier));
  out->set_limit_bytes(quota.limit_bytes);
  out->set_used_bytes(quota.used_bytes);
  out->set_overage_bytes(quota.overage_bytes());
  out->set_revision(quota.revision);
}

absl::Status NoSession(uint64_t session_id) {
  return WithDetail(absl::NotFoundError(absl::StrCat("session_id: there is no session ", session_id)),
                    {.field = "session_id", .reason = "UNKNOWN_SESSION"});
}

}  // namespace

PlacementStats NodePlacement(const ServiceContext& service) {
  PlacementStats stats = service.environment->publications->Placement();
  for (const SessionPtr& session : service.sessions->List()) stats.Add(session->Placement());
  return stats;
}

grpc::Status NodeServiceImpl::GetNode(grpc::ServerContext* context, const v1::GetNodeRequest*,
                                      v1::GetNodeResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.NodeService/GetNode", [&](const Peer&) {
    response->set_daemon_version(service_->version);
    response->set_api_version(kApiVersion);
    *response->mutable_device() = service_->device;
    response->set_pid(static_cast<int32_t>(::getpid()));
    response->set_uptime_ns(MonotonicNs() - service_->started_ns);
    response->set_metrics_address(service_->metrics_address);
    return absl::OkStatus();
  });
}

grpc::Status NodeServiceImpl::ListPools(grpc::ServerContext* context, const v1::ListPoolsRequest*,
                                        v1::ListPoolsResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.NodeService/ListPools", [&](const Peer&) {
    const PlacementStats placement = NodePlacement(*service_);
    for (const Ledger::PoolUsage& usage : service_->environment->ledger->Pools()) {
      const size_t index = TierIndex(usage.tier);
      v1::PoolInfo* pool = response->add_pools();
      pool->set_tier(static_cast<v1::Tier>(usage.tier));
      pool->set_capacity_bytes(usage.capacity_bytes);
      pool->set_free_bytes(usage.free_bytes());
      pool->set_session_bytes(usage.session_bytes);
      pool->set_published_bytes(usage.published_bytes);
      pool->set_granule_bytes(kGranuleBytes);
      pool->set_segment_count(placement.segment_count[index]);
      pool->set_unplaced_bytes(placement.unplaced_bytes[index]);
      pool->set_largest_unplaced_bytes(placement.largest_unplaced_bytes[index]);
      pool->set_numa_node(service_->numa_nodes[index]);
    }
    return absl::OkStatus();
  });
}

grpc::Status NodeServiceImpl::GetCongestion(grpc::ServerContext* context, const v1::GetCongestionRequest*,
                                            v1::GetCongestionResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.NodeService/GetCongestion", [&](const Peer&) {
    uint32_t number = 0;
    for (const LinkSnapshot& snapshot : service_->congestion->Snapshot()) {
      v1::LinkState* link = response->add_links();
      link->set_link(number++);
      link->set_bandwidth_bytes_per_s(static_cast<uint64_t>(snapshot.link.profile.bandwidth_bytes_per_s));
      link->set_base_round_trip_ns(snapshot.link.profile.round_trip_ns);
      link->set_target_bytes(snapshot.target_bytes);
      for (const Tier tier : snapshot.link.tiers) link->add_tiers(static_cast<v1::Tier>(tier));
      for (const SessionLinkState& from : snapshot.sessions) {
        v1::SessionWindow* window = link->add_sessions();
        window->set_session_id(from.state.session_id);
        window->set_name(from.name);
        window->set_weight(from.state.weight);
        window->set_active(from.state.active);
        window->set_window_bytes(from.state.window_bytes);
        window->set_achieved_bytes_per_s(static_cast<uint64_t>(from.state.bytes_per_s));
        window->set_round_trip_ns(static_cast<uint64_t>(from.state.round_trip_ns));
        window->set_inflight_peak_bytes(from.state.inflight_peak_bytes);
        window->set_violating(from.state.violating);
      }
    }
    return absl::OkStatus();
  });
}

grpc::Status NodeServiceImpl::GetQuotas(grpc::ServerContext* context, const v1::GetQuotasRequest* request,
                                        v1::GetQuotasResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.NodeService/GetQuotas", [&](const Peer&) -> absl::Status {
    Ledger& ledger = *service_->environment->ledger;
    std::vector<SessionPtr> sessions;
    if (request->session_id() == 0) {
      sessions = service_->sessions->List();
    } else {
      sessions.push_back(service_->sessions->Find(request->session_id()));
      if (sessions[0] == nullptr) return NoSession(request->session_id());
    }
    for (const SessionPtr& session : sessions) {
      for (const Ledger::PoolUsage& pool : ledger.Pools()) {
        const auto quota = ledger.GetQuota(session->identity().id, pool.tier);
        if (quota.ok()) FillQuota(session->identity().id, pool.tier, *quota, response->add_quotas());
      }
    }
    return absl::OkStatus();
  });
}

absl::Status NodeServiceImpl::Set(const Peer& caller, const v1::SetQuotaRequest& request,
                                  v1::SetQuotaResponse* response) {
  DAK_ASSIGN_OR_RETURN(const Tier tier, TierFrom("tier", request.tier()));
  const SessionPtr session = service_->sessions->Find(request.session_id());
  if (session == nullptr) return NoSession(request.session_id());
  const SessionIdentity& identity = session->identity();
  if (caller.uid != 0 && caller.uid != identity.uid) {
    return WithDetail(absl::PermissionDeniedError("session_id: it is another user's session"),
                      {.field = "session_id", .reason = "NOT_OWNER"});
  }
  absl::StatusOr<Ledger::Quota> quota =
      service_->environment->ledger->SetQuota(identity.id, tier, request.limit_bytes(), request.expected_revision());
  if (!quota.ok()) {
    ErrorDetail detail = DetailOf(quota.status());
    if (detail.field.empty()) {
      detail.field = quota.status().code() == absl::StatusCode::kAborted ? "expected_revision" : "tier";
    }
    return WithDetail(quota.status(), detail);
  }
  FillQuota(identity.id, tier, *quota, response->mutable_quota());
  service_->environment->events->Append(
      v1::Event::QUOTA_CHANGED, identity.id, identity.name,
      absl::StrCat(TierName(tier), ": ", quota->limit_bytes, " bytes, revision ", quota->revision));
  service_->planning->Refresh();
  return absl::OkStatus();
}

grpc::Status NodeServiceImpl::SetQuota(grpc::ServerContext* context, const v1::SetQuotaRequest* request,
                                       v1::SetQuotaResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.NodeService/SetQuota",
                    [&](const Peer& caller) { return Set(caller, *request, response); });
}

grpc::Status NodeServiceImpl::WatchEvents(grpc::ServerContext* context, const v1::WatchEventsRequest* request,
                                          grpc::ServerWriter<v1::Event>* writer) {
  return StreamEvents(*service_, *context, *request, writer);
}

}  // namespace dak::daemon

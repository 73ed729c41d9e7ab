#include "daemon/rpc/session_service.h"

#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "daemon/rpc/convert.h"
#include "daemon/session/layout.h"

namespace dak::daemon {

absl::StatusOr<TierArray> SessionServiceImpl::QuotasFrom(const v1::OpenSessionRequest& request) const {
  TierArray quotas = service_->default_quota_bytes;
  if (request.quotas_size() > static_cast<int>(kTierCount)) {
    return InvalidField("quotas", absl::StrCat("has ", request.quotas_size(), " entries"), "at most one a tier");
  }
  std::array<bool, kTierCount> seen{};
  const std::vector<Ledger::PoolUsage> pools = service_->environment->ledger->Pools();
  for (int i = 0; i < request.quotas_size(); ++i) {
    const std::string field = absl::StrCat("quotas[", i, "].tier");
    DAK_ASSIGN_OR_RETURN(const Tier tier, TierFrom(field, request.quotas(i).tier()));
    if (seen[TierIndex(tier)]) return InvalidField(field, "is named twice", "each tier once", "DUPLICATE");
    seen[TierIndex(tier)] = true;
    if (std::none_of(pools.begin(), pools.end(), [tier](const auto& pool) { return pool.tier == tier; })) {
      return WithDetail(absl::FailedPreconditionError(absl::StrCat(field, ": this node has no ", TierName(tier))),
                        {.field = field, .reason = "TIER_ABSENT"});
    }
    quotas[TierIndex(tier)] = request.quotas(i).bytes();
  }
  return quotas;
}

absl::Status SessionServiceImpl::Open(const Peer& caller, const v1::OpenSessionRequest& request,
                                      v1::OpenSessionResponse* response) {
  if (request.api_version() != kApiVersion) {
    return WithDetail(
        absl::FailedPreconditionError(absl::StrCat("api_version: ", request.api_version(),
                                                   " isn't spoken here, this daemon speaks ", kApiVersion)),
        {.field = "api_version", .reason = "VERSION_MISMATCH", .limit = absl::StrCat(kApiVersion)});
  }
  DAK_RETURN_IF_ERROR(ValidateName("name", request.name()));
  if (request.weight() > kMaxWeight) {
    return InvalidField("weight", absl::StrCat(request.weight(), " is out of range"),
                        absl::StrCat("1 to ", kMaxWeight, ", or 0 for ", kDefaultWeight));
  }
  OpenRequest open = {.connection_ticket = request.connection_ticket(),
                      .name = request.name(),
                      .weight = request.weight() == 0 ? kDefaultWeight : request.weight(),
                      .quota_bytes = {}};
  DAK_ASSIGN_OR_RETURN(open.quota_bytes, QuotasFrom(request));
  DAK_ASSIGN_OR_RETURN(const OpenResult opened, service_->sessions->Open(open, caller));
  response->set_session_id(opened.session->identity().id);
  response->set_session_token(opened.session->identity().token);
  response->set_daemon_version(service_->version);
  *response->mutable_device() = service_->device;
  response->set_control_ticket(opened.control_ticket);
  response->set_lease_ns(service_->sessions->lease_ns());
  for (const Ledger::PoolUsage& pool : service_->environment->ledger->Pools()) {
    v1::TierBytes* quota = response->add_quotas();
    quota->set_tier(static_cast<v1::Tier>(pool.tier));
    quota->set_bytes(open.quota_bytes[TierIndex(pool.tier)]);
  }
  return absl::OkStatus();
}

grpc::Status SessionServiceImpl::OpenSession(grpc::ServerContext* context, const v1::OpenSessionRequest* request,
                                             v1::OpenSessionResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.SessionService/OpenSession",
                    [&](const Peer& caller) { return Open(caller, *request, response); });
}

grpc::Status SessionServiceImpl::KeepSession(grpc::ServerContext* context, const v1::KeepSessionRequest* request,
                                             v1::KeepSessionResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.SessionService/KeepSession", [&](const Peer& caller) -> absl::Status {
    DAK_ASSIGN_OR_RETURN(const SessionPtr session, service_->sessions->Authenticate(request->session_token(), caller));
    const SessionPlanPtr plan = session->plan();
    response->set_plan_version(plan == nullptr ? 0 : plan->in_force.version);
    response->set_window_bytes(session->pages().ReadWindows());
    return absl::OkStatus();
  });
}

grpc::Status SessionServiceImpl::CloseSession(grpc::ServerContext* context, const v1::CloseSessionRequest* request,
                                              v1::CloseSessionResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.SessionService/CloseSession", [&](const Peer& caller) -> absl::Status {
    DAK_ASSIGN_OR_RETURN(const SessionPtr session, service_->sessions->Authenticate(request->session_token(), caller));
    FillTierBytes(service_->sessions->Close(session), false, response->mutable_freed());
    return absl::OkStatus();
  });
}

void SessionServiceImpl::FillSession(const Session& session, v1::SessionInfo* info) const {
  const SessionIdentity& identity = session.identity();
  info->set_session_id(identity.id);
  info->set_name(identity.name);
  info->set_pid(identity.pid);
  info->set_uid(identity.uid);
  info->set_weight(identity.weight);
  for (const Ledger::PoolUsage& pool : service_->environment->ledger->Pools()) {
    const absl::StatusOr<Ledger::Quota> quota = service_->environment->ledger->GetQuota(identity.id, pool.tier);
    if (!quota.ok()) continue;  // it ended since it was listed
    v1::TierBytes* limit = info->add_quotas();
    limit->set_tier(static_cast<v1::Tier>(pool.tier));
    limit->set_bytes(quota->limit_bytes);
    v1::TierBytes* used = info->add_used();
    used->set_tier(static_cast<v1::Tier>(pool.tier));
    used->set_bytes(quota->used_bytes);
  }
  info->set_tensor_count(session.tensor_count());
  info->set_window_bytes(session.pages().ReadWindows());
  const SessionPlanPtr plan = session.plan();
  info->set_plan_version(plan == nullptr ? 0 : plan->in_force.version);
  info->set_age_ns(MonotonicNs() - identity.opened_ns);
}

grpc::Status SessionServiceImpl::ListSessions(grpc::ServerContext* context, const v1::ListSessionsRequest*,
                                              v1::ListSessionsResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.SessionService/ListSessions", [&](const Peer&) {
    absl::flat_hash_map<uint64_t, uint64_t> remote_bytes;
    for (const LinkSnapshot& link : service_->congestion->Snapshot()) {
      for (const SessionLinkState& session : link.sessions) {
        remote_bytes[session.state.session_id] += session.remote_bytes;
      }
    }
    for (const SessionPtr& session : service_->sessions->List()) {
      v1::SessionInfo* info = response->add_sessions();
      FillSession(*session, info);
      info->set_remote_bytes(remote_bytes[session->identity().id]);
    }
    return absl::OkStatus();
  });
}

}  // namespace dak::daemon

#include "daemon/rpc/plan_service.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "daemon/rpc/convert.h"
#include "daemon/session/layout.h"

namespace dak::daemon {
namespace {

absl::StatusOr<planner::Operation> OperationFrom(absl::string_view field, const v1::Operation& message) {
  DAK_RETURN_IF_ERROR(ValidateName(absl::StrCat(field, ".name"), message.name()));
  if (message.bytes() > kMaxOperationBytes) {
    return InvalidField(absl::StrCat(field, ".bytes"), absl::StrCat(message.bytes(), " is out of range"),
                        absl::StrCat("at most ", kMaxOperationBytes));
  }
  if (!std::isfinite(message.flops()) || message.flops() < 0) {
    return InvalidField(absl::StrCat(field, ".flops"), absl::StrCat(message.flops(), " is out of range"),
                        "0 or more, finite");
  }
  const bool any = message.min_ratio() == 0 && message.max_ratio() == 0;
  const double max_ratio = any ? 1 : message.max_ratio();
  if (!(message.min_ratio() >= 0 && message.min_ratio() <= 1)) {
    return InvalidField(absl::StrCat(field, ".min_ratio"), absl::StrCat(message.min_ratio(), " is out of range"),
                        "0 to 1");
  }
  if (!(max_ratio >= message.min_ratio() && max_ratio <= 1)) {
    return InvalidField(absl::StrCat(field, ".max_ratio"), absl::StrCat(max_ratio, " is out of range"),
                        "min_ratio to 1");
  }
  if (message.stored_bytes() > kMaxOperationBytes) {
    return InvalidField(absl::StrCat(field, ".stored_bytes"), absl::StrCat(message.stored_bytes(), " is out of range"),
                        absl::StrCat("at most ", kMaxOperationBytes));
  }
  if (!v1::Operation::Kind_IsValid(message.kind())) {
    return InvalidField(absl::StrCat(field, ".kind"), absl::StrCat(static_cast<int>(message.kind()), " is no kind"),
                        "WEIGHTS or KV_CACHE");
  }
  // A cache isn't read by the matrix products that rates by batch are of.
  return planner::Operation{.name = message.name(),
                            .bytes = message.bytes(),
                            .stored_bytes = message.stored_bytes(),
                            .flops = message.flops(),
                            .min_ratio = message.min_ratio(),
                            .max_ratio = max_ratio,
                            .batch = message.kind() == v1::Operation::WEIGHTS ? message.batch() : 0};
}

// In single bytes where the operation has no rows.
absl::StatusOr<planner::RowSplit> SplitFrom(absl::string_view field, const v1::Operation& message) {
  const uint64_t stored_bytes = message.stored_bytes() > 0 ? message.stored_bytes() : message.bytes();
  if (message.rows() == 0) return planner::RowSplit{.rows = stored_bytes, .tile_rows = 1, .row_bytes = 1};
  if (stored_bytes == 0 || stored_bytes % message.rows() != 0) {
    return InvalidField(absl::StrCat(field, ".rows"), absl::StrCat(message.rows(), " is no divisor"),
                        absl::StrCat("a divisor of the bytes stored, ", stored_bytes));
  }
  if (message.tile_rows() > kMaxTileRows) {
    return InvalidField(absl::StrCat(field, ".tile_rows"), absl::StrCat(message.tile_rows(), " is out of range"),
                        absl::StrCat("at most ", kMaxTileRows));
  }
  return planner::RowSplit{.rows = message.rows(),
                           .tile_rows = message.tile_rows() > 0 ? message.tile_rows() : kDefaultTileRows,
                           .row_bytes = stored_bytes / message.rows()};
}

void FillLinks(const ServiceContext& service, v1::Profile* out) {
  for (const LinkSnapshot& snapshot : service.congestion->Snapshot()) {
    const NodeLink& from = snapshot.link;
    v1::LinkProfile* link = out->add_links();
    link->set_link(static_cast<uint32_t>(out->links_size()) - 1);
    link->set_bytes_per_s(from.profile.bandwidth_bytes_per_s);
    link->set_round_trip_ns(from.profile.round_trip_ns);
    link->set_knee_bytes(from.knee_bytes);
    link->set_cliff_bytes(from.profile.cliff_bytes);
    for (const Tier tier : from.tiers) {
      link->add_tiers(static_cast<v1::Tier>(tier));
      for (const planner::RemoteTier& known : service.planning->profile().remote_tiers) {
        if (known.name != TierName(tier) || known.own_link || known.bytes_per_s == 0) continue;
        v1::TierRate* rate = link->add_rates();
        rate->set_tier(static_cast<v1::Tier>(tier));
        rate->set_bytes_per_s(known.bytes_per_s);
        rate->set_round_trip_ns(known.round_trip_ns);
        rate->set_knee_bytes(known.knee_bytes);
      }
    }
  }
}

void FillProfile(const NodeProfile& node, v1::Profile* out) {
  const planner::Profile& profile = node.profile;
  out->set_hbm_bytes_per_s(profile.hbm_bytes_per_s);
  out->set_link_bytes_per_s(profile.link_bytes_per_s);
  out->set_copy_engine_bytes_per_s(profile.copy_engine_bytes_per_s);
  out->set_copy_to_host_bytes_per_s(profile.copy_to_host_bytes_per_s);
  out->set_round_trip_ns(profile.round_trip_ns);
  out->set_knee_bytes(profile.knee_bytes);
  out->set_cliff_bytes(profile.cliff_bytes);
  out->set_flops_per_s(profile.flops_per_s);
  for (const planner::BatchRate& rate : profile.batch_rates) {
    v1::BatchRate* to = out->add_batch_rates();
    to->set_batch(rate.batch);
    to->set_hbm_bytes_per_s(rate.hbm_bytes_per_s);
    to->set_flops_per_s(rate.flops_per_s);
    to->set_operation_s(rate.operation_s);
    to->set_link_bytes_per_s(rate.link_bytes_per_s);
    to->set_remote_s(rate.remote_s);
  }
  out->set_source(node.source);
  out->set_from_cache(node.from_cache);
  out->set_measured_unix_s(node.measured_unix_s);
  const auto now_s = static_cast<uint64_t>(std::time(nullptr));
  // A clock that was set back makes nothing younger than now.
  out->set_age_s(node.measured_unix_s == 0 ? 0 : now_s - std::min(now_s, node.measured_unix_s));
  out->set_measuring_s(node.measuring_s);
}

absl::Status NoPlan(uint64_t session_id, bool session_exists) {
  if (!session_exists) {
    return WithDetail(absl::NotFoundError(absl::StrCat("session_id: there is no session ", session_id)),
                      {.field = "session_id", .reason = "UNKNOWN_SESSION"});
  }
  return WithDetail(absl::NotFoundError(absl::StrCat("session_id: session ", session_id, " has no plan")),
                    {.field = "session_id", .reason = "NO_PLAN"});
}

}  // namespace

absl::Status PlanServiceImpl::Plan(const Peer& caller, const v1::PlanPassRequest& request, v1::Plan* response) {
  SessionPtr session;
  if (!request.session_token().empty()) {
    DAK_ASSIGN_OR_RETURN(session, service_->sessions->Authenticate(request.session_token(), caller));
  }
  if (request.operations_size() < 1 || request.operations_size() > static_cast<int>(kMaxOperations)) {
    return InvalidField("operations", absl::StrCat("has ", request.operations_size(), " entries"),
                        absl::StrCat("1 to ", kMaxOperations));
  }
  planner::PassDescription description;
  planner::Pass& pass = description.pass;
  std::vector<bool> has_rows;
  pass.hbm_budget_bytes = request.hbm_budget_bytes();
  pass.operations.reserve(static_cast<size_t>(request.operations_size()));
  for (int i = 0; i < request.operations_size(); ++i) {
    const std::string field = absl::StrCat("operations[", i, "]");
    DAK_ASSIGN_OR_RETURN(planner::Operation operation, OperationFrom(field, request.operations(i)));
    DAK_ASSIGN_OR_RETURN(const planner::RowSplit split, SplitFrom(field, request.operations(i)));
    description.splits.push_back(split);
    has_rows.push_back(request.operations(i).rows() > 0);
    pass.operations.push_back(std::move(operation));
  }
  if (session == nullptr) {
    DAK_ASSIGN_OR_RETURN(const planner::PassPlan planned, planner::Plan(service_->profile.profile, pass));
    std::vector<std::string> names;
    for (const planner::Operation& operation : pass.operations) names.push_back(operation.name);
    FillPlan(names, planned, response);
    return absl::OkStatus();
  }
  DAK_ASSIGN_OR_RETURN(const SessionPlanPtr plan,
                       service_->planning->Describe(session, std::move(description), std::move(has_rows)));
  FillPlan(*plan, service_->planning->profile(), response);
  return absl::OkStatus();
}

grpc::Status PlanServiceImpl::PlanPass(grpc::ServerContext* context, const v1::PlanPassRequest* request,
                                       v1::Plan* response) {
  return HandleCall(*service_, *context, "dak.v1.PlanService/PlanPass",
                    [&](const Peer& caller) { return Plan(caller, *request, response); });
}

grpc::Status PlanServiceImpl::GetPlan(grpc::ServerContext* context, const v1::GetPlanRequest* request,
                                      v1::Plan* response) {
  return HandleCall(*service_, *context, "dak.v1.PlanService/GetPlan", [&](const Peer&) {
    const SessionPtr session = service_->sessions->Find(request->session_id());
    const SessionPlanPtr plan = session == nullptr ? nullptr : session->plan();
    if (plan == nullptr) return NoPlan(request->session_id(), session != nullptr);
    FillPlan(*plan, service_->planning->profile(), response);
    return absl::OkStatus();
  });
}

grpc::Status PlanServiceImpl::GetProfile(grpc::ServerContext* context, const v1::GetProfileRequest*,
                                         v1::Profile* response) {
  return HandleCall(*service_, *context, "dak.v1.PlanService/GetProfile", [&](const Peer&) {
    FillProfile(service_->profile, response);
    FillLinks(*service_, response);
    return absl::OkStatus();
  });
}

}  // namespace dak::daemon

// Commands that ask once and show the answer.
#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "daemon/dakctl/commands.h"
#include "daemon/dakctl/json.h"
#include "daemon/dakctl/views.h"

namespace dak::dakctl {
namespace {

constexpr uint32_t kPageSize = 1000;  // tensor.proto's bound

template <typename Response, typename View>
absl::Status Show(const absl::StatusOr<Response>& response, const Options& options, const View& view,
                  std::ostream& out) {
  if (!response.ok()) return response.status();
  out << (options.json ? ToJson(*response) : view(*response, Format{options.exact_bytes}));
  return absl::OkStatus();
}

// All pages as one answer.
absl::StatusOr<v1::ListTensorsResponse> AllTensors(const Client& client, uint64_t session_id) {
  v1::ListTensorsResponse all;
  v1::ListTensorsRequest request;
  request.set_session_id(session_id);
  request.set_page_size(kPageSize);
  do {
    DAK_ASSIGN_OR_RETURN(v1::ListTensorsResponse page,
                         client.Call(client.tensors(), &v1::TensorService::Stub::ListTensors, request));
    if (page.next_page_token() != 0 && page.next_page_token() <= request.page_token()) {
      return absl::InternalError("dakd's pages of tensors don't end: next_page_token doesn't grow");
    }
    request.set_page_token(page.next_page_token());
    all.mutable_tensors()->MergeFrom(page.tensors());
  } while (request.page_token() != 0);
  return all;
}

absl::Status ShowQuotas(const Client& client, const Options& options, std::ostream& out) {
  v1::GetQuotasRequest request;
  request.set_session_id(options.session_id);
  const auto quotas = client.Call(client.node(), &v1::NodeService::Stub::GetQuotas, request);
  if (!quotas.ok() || options.json)
    return Show(
        quotas, options, [](auto&&...) { return std::string(); }, out);
  DAK_ASSIGN_OR_RETURN(const auto sessions,
                       client.Call(client.sessions(), &v1::SessionService::Stub::ListSessions, {}));
  out << QuotasView(*quotas, sessions, Format{options.exact_bytes});
  return absl::OkStatus();
}

absl::Status SetQuota(const Client& client, const Options& options, std::ostream& out) {
  v1::SetQuotaRequest request;
  request.set_session_id(options.session_id);
  request.set_tier(options.tier);
  request.set_limit_bytes(options.limit_bytes);
  request.set_expected_revision(options.expected_revision);
  const auto view = [](const v1::SetQuotaResponse& response, const Format& format) {
    const v1::SessionQuota& quota = response.quota();
    std::string text = absl::StrCat("session ", quota.session_id(), ": ", TierText(quota.tier()), " limit ",
                                    format.Limit(quota.limit_bytes()), ", used ", format.Bytes(quota.used_bytes()),
                                    " (revision ", quota.revision(), ")\n");
    if (quota.overage_bytes() > 0) {
      absl::StrAppend(&text, "it holds ", format.Bytes(quota.overage_bytes()),
                      " more than that: it keeps them, but may allocate nothing there until it is under\n");
    }
    return text;
  };
  return Show(client.Call(client.node(), &v1::NodeService::Stub::SetQuota, request), options, view, out);
}

absl::Status Withdraw(const Client& client, const Options& options, std::ostream& out) {
  v1::WithdrawPublicationRequest request;
  request.set_publication(options.publication);
  const auto view = [&](const v1::WithdrawPublicationResponse& response, const Format&) {
    const uint32_t attached = response.still_attached();
    if (attached == 0) return absl::StrCat(Printable(options.publication), ": withdrawn, and its memory is free\n");
    return absl::StrCat(Printable(options.publication), ": withdrawn; ", attached,
                        attached == 1 ? " session is" : " sessions are",
                        " still attached, and its memory goes with the last\n");
  };
  return Show(client.Call(client.tensors(), &v1::TensorService::Stub::WithdrawPublication, request), options, view,
              out);
}

}  // namespace

absl::Status RunQuery(const Client& client, const Options& options, std::ostream& out) {
  switch (options.command) {
    case Command::kStatus:
      return Show(AskOverview(client), options, StatusView, out);
    case Command::kPools:
      return Show(client.Call(client.node(), &v1::NodeService::Stub::ListPools, {}), options, PoolsView, out);
    case Command::kSessions:
      return Show(client.Call(client.sessions(), &v1::SessionService::Stub::ListSessions, {}), options, SessionsView,
                  out);
    case Command::kTensors:
      return Show(AllTensors(client, options.session_id), options, TensorsView, out);
    case Command::kPublications:
      return Show(client.Call(client.tensors(), &v1::TensorService::Stub::ListPublications, {}), options,
                  PublicationsView, out);
    case Command::kCongestion:
      return Show(client.Call(client.node(), &v1::NodeService::Stub::GetCongestion, {}), options, CongestionView, out);
    case Command::kProfile:
      return Show(client.Call(client.plans(), &v1::PlanService::Stub::GetProfile, {}), options, ProfileView, out);
    case Command::kPlans: {
      v1::GetPlanRequest request;
      request.set_session_id(options.session_id);
      return Show(client.Call(client.plans(), &v1::PlanService::Stub::GetPlan, request), options, PlanView, out);
    }
    case Command::kQuotas:
      return options.set_quota ? SetQuota(client, options, out) : ShowQuotas(client, options, out);
    case Command::kWithdraw:
      return Withdraw(client, options, out);
    default:
      return absl::InternalError("not a query");
  }
}

}  // namespace dak::dakctl

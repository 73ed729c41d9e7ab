#include "daemon/rpc/tensor_service.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "daemon/rpc/convert.h"
#include "daemon/session/layout.h"

namespace dak::daemon {
namespace {

absl::Status ValidateCount(const char* field, int count) {
  if (count >= 1 && count <= static_cast<int>(kMaxTensorsPerRequest)) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("has ", count, " entries"), absl::StrCat("1 to ", kMaxTensorsPerRequest));
}

}  // namespace

absl::Status TensorServiceImpl::Allocate(const Peer& caller, const v1::AllocateTensorsRequest& request,
                                         v1::AllocateTensorsResponse* response) {
  DAK_ASSIGN_OR_RETURN(const SessionPtr session, service_->sessions->Authenticate(request.session_token(), caller));
  const std::string group = request.group().empty() ? "default" : request.group();
  DAK_RETURN_IF_ERROR(ValidateName("group", group));
  DAK_RETURN_IF_ERROR(ValidateCount("tensors", request.tensors_size()));
  std::vector<TensorSpec> specs;
  specs.reserve(static_cast<size_t>(request.tensors_size()));
  for (int i = 0; i < request.tensors_size(); ++i) {
    DAK_ASSIGN_OR_RETURN(TensorSpec spec, SpecFrom(absl::StrCat("tensors[", i, "]"), request.tensors(i)));
    specs.push_back(std::move(spec));
  }
  DAK_ASSIGN_OR_RETURN(AllocateResult result, session->Allocate(group, specs));
  if (request.deliver_handles()) service_->sessions->Deliver(session, &result.grants);
  for (const TensorView& view : result.tensors) FillTensor(view, response->add_tensors());
  for (const Grant& grant : result.grants) FillGrant(grant, response->add_segments());
  return absl::OkStatus();
}

grpc::Status TensorServiceImpl::AllocateTensors(grpc::ServerContext* context, const v1::AllocateTensorsRequest* request,
                                                v1::AllocateTensorsResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.TensorService/AllocateTensors",
                    [&](const Peer& caller) { return Allocate(caller, *request, response); });
}

absl::Status TensorServiceImpl::Free(const Peer& caller, const v1::FreeTensorsRequest& request,
                                     v1::FreeTensorsResponse* response) {
  DAK_ASSIGN_OR_RETURN(const SessionPtr session, service_->sessions->Authenticate(request.session_token(), caller));
  DAK_RETURN_IF_ERROR(ValidateCount("tensor_ids", request.tensor_ids_size()));
  const std::vector<uint64_t> ids(request.tensor_ids().begin(), request.tensor_ids().end());
  DAK_ASSIGN_OR_RETURN(const FreeResult result, session->Free(ids));
  for (const uint64_t id : result.segment_ids) response->add_released_segment_ids(id);
  FillTierBytes(result.bytes, false, response->mutable_released());
  return absl::OkStatus();
}

grpc::Status TensorServiceImpl::FreeTensors(grpc::ServerContext* context, const v1::FreeTensorsRequest* request,
                                            v1::FreeTensorsResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.TensorService/FreeTensors",
                    [&](const Peer& caller) { return Free(caller, *request, response); });
}

absl::Status TensorServiceImpl::Publish(const Peer& caller, const v1::PublishGroupRequest& request,
                                        v1::PublishGroupResponse* response) {
  DAK_ASSIGN_OR_RETURN(const SessionPtr session, service_->sessions->Authenticate(request.session_token(), caller));
  const std::string group = request.group().empty() ? "default" : request.group();
  DAK_RETURN_IF_ERROR(ValidateName("group", group));
  DAK_RETURN_IF_ERROR(ValidateName("publication", request.publication()));
  DAK_RETURN_IF_ERROR(ValidateFingerprint("fingerprint", request.fingerprint()));
  DAK_ASSIGN_OR_RETURN(const PublishResult result,
                       session->Publish(group, request.publication(), request.fingerprint()));
  response->set_tensor_count(result.tensor_count);
  FillTierBytes(result.bytes, false, response->mutable_bytes());
  return absl::OkStatus();
}

grpc::Status TensorServiceImpl::PublishGroup(grpc::ServerContext* context, const v1::PublishGroupRequest* request,
                                             v1::PublishGroupResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.TensorService/PublishGroup",
                    [&](const Peer& caller) { return Publish(caller, *request, response); });
}

absl::Status TensorServiceImpl::Attach(const Peer& caller, const v1::AttachPublicationRequest& request,
                                       v1::AttachPublicationResponse* response) {
  DAK_ASSIGN_OR_RETURN(const SessionPtr session, service_->sessions->Authenticate(request.session_token(), caller));
  DAK_RETURN_IF_ERROR(ValidateName("publication", request.publication()));
  if (!request.fingerprint().empty()) {
    DAK_RETURN_IF_ERROR(ValidateFingerprint("fingerprint", request.fingerprint()));
  }
  DAK_ASSIGN_OR_RETURN(const AttachResult result, session->Attach(request.publication(), request.fingerprint()));
  for (const TensorView& view : result.tensors) FillTensor(view, response->add_tensors());
  for (const Grant& grant : result.grants) FillGrant(grant, response->add_segments());
  response->set_fingerprint(result.fingerprint);
  return absl::OkStatus();
}

grpc::Status TensorServiceImpl::AttachPublication(grpc::ServerContext* context,
                                                  const v1::AttachPublicationRequest* request,
                                                  v1::AttachPublicationResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.TensorService/AttachPublication",
                    [&](const Peer& caller) { return Attach(caller, *request, response); });
}

grpc::Status TensorServiceImpl::DetachPublication(grpc::ServerContext* context,
                                                  const v1::DetachPublicationRequest* request,
                                                  v1::DetachPublicationResponse*) {
  return HandleCall(*service_, *context, "dak.v1.TensorService/DetachPublication",
                    [&](const Peer& caller) -> absl::Status {
                      DAK_ASSIGN_OR_RETURN(const SessionPtr session,
                                           service_->sessions->Authenticate(request->session_token(), caller));
                      DAK_RETURN_IF_ERROR(ValidateName("publication", request->publication()));
                      return session->Detach(request->publication());
                    });
}

grpc::Status TensorServiceImpl::WithdrawPublication(grpc::ServerContext* context,
                                                    const v1::WithdrawPublicationRequest* request,
                                                    v1::WithdrawPublicationResponse* response) {
  return HandleCall(
      *service_, *context, "dak.v1.TensorService/WithdrawPublication", [&](const Peer& caller) -> absl::Status {
        DAK_RETURN_IF_ERROR(ValidateName("publication", request->publication()));
        DAK_ASSIGN_OR_RETURN(const uint32_t still_attached,
                             service_->environment->publications->Withdraw(request->publication(), caller.uid));
        response->set_still_attached(still_attached);
        return absl::OkStatus();
      });
}

absl::Status TensorServiceImpl::List(const v1::ListTensorsRequest& request, v1::ListTensorsResponse* response) {
  if (request.page_size() > kMaxPageSize) {
    return InvalidField("page_size", absl::StrCat(request.page_size(), " is out of range"),
                        absl::StrCat("1 to ", kMaxPageSize, ", or 0 for ", kDefaultPageSize));
  }
  const size_t page_size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  std::vector<TensorView> views;
  if (request.session_id() != 0) {
    const SessionPtr session = service_->sessions->Find(request.session_id());
    if (session == nullptr) {
      return WithDetail(absl::NotFoundError(absl::StrCat("session_id: there is no session ", request.session_id())),
                        {.field = "session_id", .reason = "UNKNOWN_SESSION"});
    }
    session->CollectTensors(request.page_token(), page_size + 1, &views);
  } else {
    for (const SessionPtr& session : service_->sessions->List()) {
      session->CollectTensors(request.page_token(), page_size + 1, &views);
    }
    service_->environment->publications->CollectTensors(request.page_token(), page_size + 1, &views);
  }
  std::sort(views.begin(), views.end(),
            [](const TensorView& a, const TensorView& b) { return a.tensor.id < b.tensor.id; });
  for (size_t i = 0; i < std::min(page_size, views.size()); ++i) FillTensor(views[i], response->add_tensors());
  if (views.size() > page_size) response->set_next_page_token(views[page_size].tensor.id);
  return absl::OkStatus();
}

grpc::Status TensorServiceImpl::ListTensors(grpc::ServerContext* context, const v1::ListTensorsRequest* request,
                                            v1::ListTensorsResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.TensorService/ListTensors",
                    [&](const Peer&) { return List(*request, response); });
}

grpc::Status TensorServiceImpl::ListPublications(grpc::ServerContext* context, const v1::ListPublicationsRequest*,
                                                 v1::ListPublicationsResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.TensorService/ListPublications", [&](const Peer&) {
    for (const PublicationSummary& summary : service_->environment->publications->List()) {
      FillPublication(summary, response->add_publications());
    }
    return absl::OkStatus();
  });
}

}  // namespace dak::daemon

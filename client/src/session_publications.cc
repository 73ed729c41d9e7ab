// Publishing and attaching.
//
// dakd is asked first and the mappings are sealed after it agreed: a seal can't be undone, and what is likely to fail
// (a name that is taken, a daemon that has gone) fails in the call. Between the two, for microseconds, the publisher
// could still write to what others may attach; it could do so on purpose at any time before (docs/client.md).
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/rpc_status.h"
#include "client/src/session.h"

namespace dak::client {
namespace {

absl::Status UnknownPublication(const std::string& publication) {
  return WithDetail(absl::NotFoundError(absl::StrCat("this session has no publication ", publication)),
                    Reason("publication", "NOT_ATTACHED"));
}

}  // namespace

std::vector<Tensor*> Session::OwnTensorsOf(const std::string& group) {
  std::vector<Tensor*> found;
  for (const auto& [key, tensor] : tensors_) {
    if (tensor->group() == group && !tensor->read_only()) found.push_back(tensor.get());
  }
  return found;
}

absl::Status Session::CheckGroupName(const std::string& group) const {
  const auto it = publications_.find(group);
  if (it == publications_.end() || !it->second->attached) return absl::OkStatus();
  return WithDetail(absl::AlreadyExistsError(absl::StrCat("group: ", group, " names a publication attached here")),
                    Reason("group", "ALREADY_ATTACHED"));
}

absl::Status Session::CheckPublicationName(const std::string& publication) const {
  if (publications_.count(publication) != 0) {
    return WithDetail(absl::AlreadyExistsError(absl::StrCat("this session has publication ", publication, " already")),
                      Reason("publication", "ALREADY_ATTACHED"));
  }
  for (const auto& [key, tensor] : by_name_) {
    if (key.first != publication) continue;
    return WithDetail(absl::AlreadyExistsError(absl::StrCat("this session has a group of its own named ", publication)),
                      Reason("publication", "GROUP_EXISTS"));
  }
  return absl::OkStatus();
}

absl::Status Session::Publish(const std::string& group, const std::string& publication,
                              const std::string& fingerprint) {
  absl::MutexLock control(&control_mutex_);
  DAK_RETURN_IF_ERROR(Settle());
  const std::vector<Tensor*> tensors = OwnTensorsOf(group);
  if (tensors.empty()) {
    return WithDetail(absl::NotFoundError(absl::StrCat("this session has no unpublished tensors in group ", group)),
                      Reason("group", "UNKNOWN_GROUP"));
  }
  for (const Tensor* tensor : tensors) DAK_RETURN_IF_ERROR(tensor->CheckMapped());
  v1::PublishGroupRequest request;
  request.set_session_token(opened_.session_token());
  request.set_group(group);
  request.set_publication(publication);
  request.set_fingerprint(fingerprint);
  v1::PublishGroupResponse response;
  const absl::Status published =
      Call(&v1::TensorService::Stub::PublishGroup, request, &response, timeout(), /*changes=*/true);
  if (published.ok()) return Seal(group, publication);
  if (books_uncertain_) publish_in_doubt_ = {group, publication};
  return published;
}

absl::Status Session::Seal(const std::string& group, const std::string& publication) {
  const std::vector<Tensor*> tensors = OwnTensorsOf(group);
  absl::MutexLock lock(&mutex_);
  absl::Status first_failure;
  for (Tensor* tensor : tensors) {
    tensor->SetReadOnly();
    for (const Part& part : tensor->parts()) {
      MappedSegment& segment = segments_[part.segment_id];
      if (segment.mapping == nullptr) continue;
      const absl::Status sealed = segment.mapping->MakeReadOnly();
      if (sealed.ok()) continue;
      // What others read mustn't stay writable here: better unreachable.
      first_failure.Update(sealed);
      for (Tensor* other : tensors) {
        for (const Part& sharing : other->parts()) {
          if (sharing.segment_id == part.segment_id) other->SetUnmapped();
        }
      }
      segment.mapping.reset();
    }
  }
  publications_[publication] = std::make_unique<Publication>(Publication{.tensors = tensors});
  return Prefixed(absl::StrCat(publication, " is published, but tensors of it had to be unmapped here"), first_failure);
}

absl::StatusOr<absl::Span<Tensor* const>> Session::Attach(const std::string& publication,
                                                          const std::string& fingerprint) {
  absl::MutexLock control(&control_mutex_);
  DAK_RETURN_IF_ERROR(Settle());
  DAK_RETURN_IF_ERROR(CheckPublicationName(publication));
  v1::AttachPublicationRequest request;
  request.set_session_token(opened_.session_token());
  request.set_publication(publication);
  request.set_fingerprint(fingerprint);
  v1::AttachPublicationResponse response;
  const absl::Status attached =
      Call(&v1::TensorService::Stub::AttachPublication, request, &response, allocate_timeout(), /*changes=*/true);
  if (!attached.ok()) {
    if (books_uncertain_) attach_in_doubt_ = publication;
    return attached;
  }
  for (v1::Tensor& tensor : *response.mutable_tensors()) tensor.set_group(publication);
  absl::StatusOr<Batch> batch = MapBatch(response.tensors(), response.segments(), Access::kReadOnly);
  if (!batch.ok()) {
    if (!DetachRemotely(publication).ok()) {
      books_uncertain_ = true;
      attach_in_doubt_ = publication;
    }
    return Prefixed(absl::StrCat(publication, " couldn't be mapped and was detached"), batch.status());
  }
  std::vector<Tensor*> tensors = Adopt(*std::move(batch));
  absl::MutexLock lock(&mutex_);
  std::unique_ptr<Publication>& entry = publications_[publication];
  entry = std::make_unique<Publication>();
  entry->tensors = std::move(tensors);
  entry->attached = true;
  return absl::MakeConstSpan(entry->tensors);
}

absl::Status Session::DetachRemotely(const std::string& publication) {
  v1::DetachPublicationRequest request;
  request.set_session_token(opened_.session_token());
  request.set_publication(publication);
  v1::DetachPublicationResponse response;
  return Call(&v1::TensorService::Stub::DetachPublication, request, &response, timeout(), /*changes=*/true);
}

absl::Status Session::Detach(const std::string& publication) {
  absl::MutexLock control(&control_mutex_);
  DAK_RETURN_IF_ERROR(Settle());
  const auto it = publications_.find(publication);
  if (it == publications_.end()) return UnknownPublication(publication);
  if (connection_->PeerIsGone()) return DaemonGone();
  Publication& entry = *it->second;
  const bool again = std::exchange(entry.detaching, true);
  Forget(std::exchange(entry.tensors, {}));
  const absl::Status detached = DetachRemotely(publication);
  const bool done = detached.ok() || connection_->PeerIsGone() || (again && !AnswerMayBeLost(detached));
  if (!done) return Prefixed("unmapped here, but dakd didn't detach; detach again", detached);
  absl::MutexLock lock(&mutex_);
  publications_.erase(it);
  return absl::OkStatus();
}

absl::Status Session::Withdraw(const std::string& publication) {
  absl::MutexLock control(&control_mutex_);
  v1::WithdrawPublicationRequest request;
  request.set_publication(publication);
  v1::WithdrawPublicationResponse response;
  return Call(&v1::TensorService::Stub::WithdrawPublication, request, &response, timeout(), /*changes=*/false);
}

}  // namespace dak::client

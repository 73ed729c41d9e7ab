// Session::Publish, Attach and Detach.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/layout.h"
#include "daemon/session/session.h"
#include "daemon/session/session_operation.h"

namespace dak::daemon {

absl::Status Session::CheckPublish(const std::string& group) const {
  DAK_RETURN_IF_ERROR(CheckInHbm());
  if (move_ != nullptr && move_->group->name == group) {
    return WithDetail(absl::FailedPreconditionError(absl::StrCat("group: tensors of ", group, " are being moved")),
                      {.field = "group", .reason = "MOVE_PENDING"});
  }
  if (auto sealed = sealed_groups_.find(group); sealed != sealed_groups_.end()) {
    return WithDetail(
        absl::FailedPreconditionError(absl::StrCat("group: ", group, " is published as ", sealed->second)),
        {.field = "group", .reason = "GROUP_PUBLISHED"});
  }
  const auto it = groups_.find(group);
  if (it == groups_.end()) {
    return WithDetail(absl::NotFoundError(absl::StrCat("group: the session has no tensors in ", group)),
                      {.field = "group", .reason = "UNKNOWN_GROUP"});
  }
  const uint64_t limit = environment_->limits.max_tensors_per_publication;
  if (it->second->tensor_ids.size() > limit) {
    return WithDetail(absl::FailedPreconditionError(
                          absl::StrCat("group: ", group, " has ", it->second->tensor_ids.size(), " tensors")),
                      {.field = "group", .reason = "TOO_MANY_TENSORS", .limit = absl::StrCat("at most ", limit)});
  }
  return absl::OkStatus();
}

absl::StatusOr<PublishResult> Session::Publish(const std::string& group, const std::string& publication_name,
                                               const std::string& fingerprint) {
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  TierArray bytes{};
  {
    absl::MutexLock lock(&mutex_);
    DAK_RETURN_IF_ERROR(CheckPublish(group));
    if (attached_.contains(publication_name)) {
      return WithDetail(absl::AlreadyExistsError("publication: the session is attached to one of this name"),
                        {.field = "publication", .reason = "ALREADY_ATTACHED"});
    }
    bytes = groups_[group]->SegmentBytes();
  }
  DAK_ASSIGN_OR_RETURN(PublicationPtr publication,
                       environment_->publications->Reserve(publication_name, fingerprint, identity_.uid));
  for (const Tier tier : kAllTiers) {
    if (bytes[TierIndex(tier)] == 0) continue;
    // The segments' bytes are committed, so this fails only if the books are wrong: then nothing may be published.
    absl::Status moved = environment_->ledger->Publish(identity_.id, tier, bytes[TierIndex(tier)]);
    if (!moved.ok()) {
      environment_->publications->Abandon(publication);
      return absl::InternalError(absl::StrCat("the ledger refused to publish: ", moved.message()));
    }
  }
  PublishResult result = {.tensor_count = 0, .bytes = bytes};
  {
    absl::MutexLock lock(&mutex_);
    std::unique_ptr<Group> sealed = std::move(groups_[group]);
    groups_.erase(group);
    std::vector<Tensor> tensors;
    tensors.reserve(sealed->tensor_ids.size());
    for (const auto& [name, id] : sealed->tensor_ids) {
      auto it = tensors_.find(id);
      tensors.push_back(std::move(it->second.tensor));
      tensors_.erase(it);
    }
    std::sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) { return a.id < b.id; });
    // What is sealed must not be handed out writable any more.
    for (const Arena& arena : sealed->arenas) {
      for (const OwnedSegment* segment : arena.Segments()) tickets_.RevokeSegment(segment->id);
    }
    result.tensor_count = tensors.size();
    environment_->publications->Commit(publication, std::move(*sealed), std::move(tensors), identity_.id);
    attached_.emplace(publication_name, publication);
    sealed_groups_.emplace(group, publication_name);
  }
  environment_->events->Append(v1::Event::GROUP_PUBLISHED, identity_.id, publication_name,
                               absl::StrCat("group ", group, ", ", result.tensor_count, " tensors"), &bytes);
  return result;
}

absl::StatusOr<AttachResult> Session::Attach(const std::string& publication_name, const std::string& fingerprint) {
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  {
    absl::MutexLock lock(&mutex_);
    if (attached_.contains(publication_name)) {
      return WithDetail(
          absl::AlreadyExistsError(absl::StrCat("publication: attached to ", publication_name, " already")),
          {.field = "publication", .reason = "ALREADY_ATTACHED"});
    }
  }
  DAK_ASSIGN_OR_RETURN(PublicationPtr publication,
                       environment_->publications->Attach(publication_name, fingerprint, identity_.id));
  absl::StatusOr<AttachResult> result = GrantPublication(*publication);
  if (!result.ok()) {
    environment_->publications->Detach(publication, identity_.id);
    return result;
  }
  {
    absl::MutexLock lock(&mutex_);
    attached_.emplace(publication_name, publication);
  }
  environment_->events->Append(v1::Event::PUBLICATION_ATTACHED, identity_.id, publication_name, "",
                               &publication->bytes);
  return result;
}

absl::StatusOr<AttachResult> Session::GrantPublication(const Publication& publication) {
  AttachResult result;
  result.fingerprint = publication.fingerprint;
  result.tensors.reserve(publication.tensors.size());
  for (const Tensor& tensor : publication.tensors) {
    DAK_ASSIGN_OR_RETURN(TensorView view, ViewWithMaps(*environment_->device, tensor, publication.name, 0));
    result.tensors.push_back(std::move(view));
  }
  std::vector<std::vector<HandleGrant>> handles;
  for (const Arena& arena : publication.group.arenas) {
    for (const OwnedSegment* segment : arena.Segments()) {
      DAK_ASSIGN_OR_RETURN(ExportedHandle handle, environment_->device->Export(*segment->memory, Access::kReadOnly));
      std::vector<HandleGrant>& one = handles.emplace_back();
      one.push_back({.purpose = HandleGrant::Purpose::kSegment,
                     .segment_id = segment->id,
                     .tier = handle.tier,
                     .kind = handle.kind,
                     .bytes = handle.bytes,
                     .read_only = true,
                     .fd = std::move(handle.fd)});
    }
  }
  absl::MutexLock lock(&mutex_);
  DAK_RETURN_IF_ERROR(CheckTickets(handles.size()));
  for (std::vector<HandleGrant>& one : handles) {
    const HandleGrant& handle = one[0];
    Grant grant = {.segment_id = handle.segment_id,
                   .tier = handle.tier,
                   .bytes = handle.bytes,
                   .kind = handle.kind,
                   .read_only = true,
                   .ticket = {}};
    grant.ticket = tickets_.Add(std::move(one));
    result.grants.push_back(std::move(grant));
  }
  return result;
}

absl::Status Session::Detach(const std::string& publication_name) {
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  PublicationPtr publication;
  {
    absl::MutexLock lock(&mutex_);
    auto it = attached_.find(publication_name);
    if (it == attached_.end()) {
      return WithDetail(absl::NotFoundError(absl::StrCat("publication: not attached to ", publication_name)),
                        {.field = "publication", .reason = "NOT_ATTACHED"});
    }
    publication = std::move(it->second);
    attached_.erase(it);
    for (auto sealed = sealed_groups_.begin(); sealed != sealed_groups_.end();) {
      if (sealed->second == publication_name) {
        sealed_groups_.erase(sealed++);
      } else {
        ++sealed;
      }
    }
    for (const Arena& arena : publication->group.arenas) {
      for (const OwnedSegment* segment : arena.Segments()) tickets_.RevokeSegment(segment->id);
    }
  }
  environment_->events->Append(v1::Event::PUBLICATION_DETACHED, identity_.id, publication_name, "");
  environment_->publications->Detach(publication, identity_.id);
  return absl::OkStatus();
}

}  // namespace dak::daemon

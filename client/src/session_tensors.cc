// Allocating and freeing: what is granted is mapped at once, what is freed is unmapped before dakd is told.
#include <sys/mman.h>

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/rpc_status.h"
#include "client/src/session.h"

namespace dak::client {
namespace {

constexpr size_t kMaxTensorsPerFree = 1024;

}  // namespace

void Session::KeepFromChildren(const Mapping& mapping, HandleKind kind) {
  if (kind == HandleKind::kMemfd && mapping.host_pointer() != nullptr) {
    madvise(mapping.host_pointer(), mapping.bytes(), MADV_DONTFORK);
  }
}

absl::StatusOr<std::vector<ReceivedHandle>> Session::FetchHandles(
    const google::protobuf::RepeatedPtrField<v1::SegmentGrant>& grants) {
  std::vector<std::string> tickets;
  std::vector<uint64_t> delivered;
  for (const v1::SegmentGrant& grant : grants) {
    if (grant.delivered()) {
      delivered.push_back(grant.segment_id());
    } else {
      tickets.push_back(grant.ticket());
    }
  }
  if (!delivered.empty() && !tickets.empty()) return absl::InternalError("dakd delivered some of a call's segments");
  if (!delivered.empty()) return connection_->TakeDelivered(delivered, timeout());
  return connection_->Redeem(tickets, timeout());
}

absl::StatusOr<Session::SegmentTable> Session::MapGrants(
    const google::protobuf::RepeatedPtrField<v1::SegmentGrant>& grants, Access access) {
  DAK_ASSIGN_OR_RETURN(std::vector<ReceivedHandle> handles, FetchHandles(grants));
  if (handles.size() != static_cast<size_t>(grants.size())) {
    return absl::InternalError(
        absl::StrCat("dakd sent ", handles.size(), " descriptors for ", grants.size(), " segments"));
  }
  SegmentTable mapped;
  for (int i = 0; i < grants.size(); ++i) {
    const v1::SegmentGrant& grant = grants.Get(i);
    ReceivedHandle& handle = handles[i];
    const auto tier = static_cast<Tier>(grant.tier());
    if (handle.info.segment_id() != grant.segment_id() || !v1::Tier_IsValid(grant.tier()) || grant.tier() == 0 ||
        segments_.count(grant.segment_id()) != 0) {
      return absl::InternalError(absl::StrCat("dakd's grant of segment ", grant.segment_id(), " contradicts itself"));
    }
    const auto kind = static_cast<HandleKind>(grant.kind());
    const Access wanted = grant.read_only() ? Access::kReadOnly : access;
    auto mapping =
        device_->Map({.fd = std::move(handle.fd), .kind = kind, .tier = tier, .bytes = grant.bytes()}, wanted);
    if (!mapping.ok()) {
      return Prefixed(
          absl::StrCat("mapping segment ", grant.segment_id(), " (", grant.bytes(), " bytes of ", TierName(tier), ")"),
          mapping.status());
    }
    KeepFromChildren(**mapping, kind);
    mapped[grant.segment_id()].mapping = *std::move(mapping);
  }
  return mapped;
}

absl::StatusOr<Session::Batch> Session::MapBatch(const google::protobuf::RepeatedPtrField<v1::Tensor>& tensors,
                                                 const google::protobuf::RepeatedPtrField<v1::SegmentGrant>& grants,
                                                 Access access) {
  Batch batch;
  DAK_ASSIGN_OR_RETURN(batch.segments, MapGrants(grants, access));
  const auto mapping_of = [&](uint64_t segment_id) -> Mapping* {
    for (SegmentTable* table : {&batch.segments, &segments_}) {
      if (auto it = table->find(segment_id); it != table->end()) return it->second.mapping.get();
    }
    return nullptr;
  };
  for (const v1::Tensor& proto : tensors) {
    DAK_ASSIGN_OR_RETURN(std::unique_ptr<Tensor> tensor, Tensor::Make(this, *device_, proto, mapping_of));
    // Memory of a segment that was there before has been used by this session's earlier tensors.
    const bool reused = std::any_of(tensor->parts().begin(), tensor->parts().end(),
                                    [&](const Part& part) { return batch.segments.count(part.segment_id) == 0; });
    if (access == Access::kReadWrite && reused) DAK_RETURN_IF_ERROR(tensor->Clear(*device_));
    if (access == Access::kReadOnly) tensor->SetReadOnly();
    batch.tensors.push_back(std::move(tensor));
  }
  return batch;
}

std::vector<Tensor*> Session::Adopt(Batch batch) {
  absl::MutexLock lock(&mutex_);
  segments_.merge(batch.segments);
  std::vector<Tensor*> adopted;
  for (std::unique_ptr<Tensor>& tensor : batch.tensors) {
    for (const Part& part : tensor->parts()) ++segments_[part.segment_id].tensor_count;
    by_name_[{tensor->group(), tensor->name()}] = tensor.get();
    adopted.push_back(tensor.get());
    tensors_[tensor.get()] = std::move(tensor);
  }
  return adopted;
}

absl::StatusOr<std::vector<Tensor*>> Session::Allocate(v1::AllocateTensorsRequest request) {
  absl::MutexLock control(&control_mutex_);
  DAK_RETURN_IF_ERROR(Settle());
  DAK_RETURN_IF_ERROR(CheckGroupName(request.group()));
  request.set_session_token(opened_.session_token());
  request.set_deliver_handles(true);
  v1::AllocateTensorsResponse response;
  DAK_RETURN_IF_ERROR(
      Call(&v1::TensorService::Stub::AllocateTensors, request, &response, allocate_timeout(), /*changes=*/true));
  absl::StatusOr<Batch> batch = response.tensors_size() == request.tensors_size()
                                    ? MapBatch(response.tensors(), response.segments(), Access::kReadWrite)
                                    : absl::InternalError("dakd didn't answer with the tensors asked for");
  if (batch.ok()) return Adopt(*std::move(batch));
  std::vector<uint64_t> ids;
  for (const v1::Tensor& tensor : response.tensors()) ids.push_back(tensor.tensor_id());
  connection_->DropDelivered();  // the driver keeps memory that anybody has a descriptor of
  // If this fails too, Settle gives the tensors back later.
  if (!FreeRemotely(ids).ok()) books_uncertain_ = true;
  if (connection_->PeerIsGone()) return DaemonGone();
  return Prefixed("the tensors were allocated, couldn't be mapped, and were given back", batch.status());
}

absl::Status Session::FreeRemotely(absl::Span<const uint64_t> tensor_ids) {
  if (tensor_ids.empty()) return absl::OkStatus();
  v1::FreeTensorsRequest request;
  request.set_session_token(opened_.session_token());
  for (uint64_t id : tensor_ids) request.add_tensor_ids(id);
  v1::FreeTensorsResponse response;
  return Call(&v1::TensorService::Stub::FreeTensors, request, &response, timeout(), /*changes=*/true);
}

// Everything that dakd would refuse is refused here, since memory is unmapped before dakd is asked.
absl::Status Session::CheckFreeable(absl::Span<Tensor* const> tensors) {
  if (tensors.empty() || tensors.size() > kMaxTensorsPerFree) {
    return InvalidField("count", absl::StrCat(tensors.size(), " is out of range"),
                        absl::StrCat("1 to ", kMaxTensorsPerFree));
  }
  absl::flat_hash_set<const Tensor*> seen;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string field = absl::StrCat("tensors[", i, "]");
    if (tensors_.count(tensors[i]) == 0) {
      return InvalidField(field, "is no tensor of this session", "a live tensor of this session", "UNKNOWN_TENSOR");
    }
    if (!seen.insert(tensors[i]).second) {
      return InvalidField(field, "is there twice", "each tensor once", "DUPLICATE");
    }
    if (tensors[i]->read_only()) {
      return WithDetail(absl::FailedPreconditionError(absl::StrCat(field, ": tensor ", tensors[i]->name(),
                                                                   " is published: detach or withdraw it instead")),
                        Reason(field, "READ_ONLY"));
    }
    DAK_RETURN_IF_ERROR(CheckNotMoving(*tensors[i], field));
  }
  return absl::OkStatus();
}

absl::Status Session::Free(absl::Span<Tensor* const> tensors) {
  absl::MutexLock control(&control_mutex_);
  DAK_RETURN_IF_ERROR(Settle());
  DAK_RETURN_IF_ERROR(CheckFreeable(tensors));
  if (connection_->PeerIsGone()) return DaemonGone();
  std::vector<uint64_t> ids;
  for (const Tensor* tensor : tensors) {
    if (!tensor->freed_remotely()) ids.push_back(tensor->id());
  }
  UnmapEmptied(tensors);
  const absl::Status freed = FreeRemotely(ids);
  // With the daemon gone the session's memory is gone too, and its mappings here are: that is what was asked.
  if (freed.ok() || connection_->PeerIsGone()) {
    Forget(tensors);
    return absl::OkStatus();
  }
  return Prefixed("the tensors' memory is unmapped, but dakd didn't take it back; free them again", freed);
}

void Session::UnmapEmptied(absl::Span<Tensor* const> tensors) {
  std::map<uint64_t, uint64_t> leaving;  // segment: parts
  for (const Tensor* tensor : tensors) {
    for (const Part& part : tensor->parts()) ++leaving[part.segment_id];
  }
  absl::MutexLock lock(&mutex_);
  for (Tensor* tensor : tensors) {
    for (const Part& part : tensor->parts()) {
      MappedSegment& segment = segments_[part.segment_id];
      if (leaving[part.segment_id] != segment.tensor_count) continue;
      tensor->SetUnmapped();
      segment.mapping.reset();
    }
  }
}

void Session::Forget(absl::Span<Tensor* const> tensors) {
  absl::MutexLock lock(&mutex_);
  for (Tensor* tensor : tensors) {
    for (const Part& part : tensor->parts()) {
      auto segment = segments_.find(part.segment_id);
      if (--segment->second.tensor_count == 0) segments_.erase(segment);
    }
    by_name_.erase({tensor->group(), tensor->name()});
    tensors_.erase(tensor);
  }
}

absl::StatusOr<Tensor*> Session::Find(const std::string& group, const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  const auto it = by_name_.find({group, name});
  if (it != by_name_.end()) return it->second;
  return WithDetail(absl::NotFoundError(absl::StrCat("this session has no tensor ", name, " in group ", group)),
                    Reason("name", "UNKNOWN_TENSOR"));
}

}  // namespace dak::client

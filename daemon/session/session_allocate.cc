// Session::Allocate and Session::Free: reserve, act, roll back.
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/layout.h"
#include "daemon/session/session.h"
#include "daemon/session/session_batch.h"
#include "daemon/session/session_operation.h"

namespace dak::daemon {
namespace {

uint64_t WholeGranules(uint64_t bytes) { return (bytes + kGranuleBytes - 1) / kGranuleBytes * kGranuleBytes; }

// What the ledger refused, with the field of the request that asked for it. `first` is the first tensor in the tier.
absl::Status NameField(const absl::Status& refused, const char* field, size_t first) {
  ErrorDetail detail = DetailOf(refused);
  detail.field = detail.reason == "TIER_ABSENT" ? absl::StrCat(field, "[", first, "].remote_tier") : field;
  return WithDetail(absl::Status(refused.code(), absl::StrCat(detail.field, ": ", refused.message())), detail);
}

}  // namespace

absl::StatusOr<AllocateResult> Session::Allocate(const std::string& group, absl::Span<const TensorSpec> specs) {
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  absl::StatusOr<AllocateResult> result = AllocateInTurn(group, specs);
  if (!result.ok()) {
    const std::string reason = DetailOf(result.status()).reason;
    environment_->events->Append(v1::Event::ALLOCATION_REFUSED, identity_.id, group, result.status().message());
    environment_->metrics->CountRefusedAllocation(reason.empty() ? "OTHER" : reason);
    return result;
  }
  TierArray bytes{};
  for (const Grant& grant : result->grants) bytes[TierIndex(grant.tier)] += grant.bytes;
  environment_->events->Append(v1::Event::TENSORS_ALLOCATED, identity_.id, group,
                               absl::StrCat(result->tensors.size(), " tensors"), &bytes);
  return result;
}

absl::StatusOr<AllocateResult> Session::AllocateInTurn(const std::string& group, absl::Span<const TensorSpec> specs) {
  Batch batch;
  batch.views.resize(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    batch.views[i].tensor = LayOut(specs[i]);
    batch.views[i].group = group;
    batch.views[i].session_id = identity_.id;
  }
  {
    absl::MutexLock lock(&mutex_);
    DAK_RETURN_IF_ERROR(CheckAllocation(group, specs));
    auto& slot = groups_[group];
    batch.group_is_new = slot == nullptr;
    if (batch.group_is_new) slot = std::make_unique<Group>();
    slot->name = group;
    batch.group = slot.get();
    PlaceInHeldSegments(batch);
  }
  if (absl::Status status = MakeAndEncode(batch); !status.ok()) {
    RollBack(batch);
    return status;
  }
  absl::MutexLock lock(&mutex_);
  return Commit(batch);
}

absl::Status Session::MakeAndEncode(Batch& batch) {
  DAK_RETURN_IF_ERROR(CreateSegments(batch));
  {
    absl::MutexLock lock(&mutex_);
    PlaceInNewSegments(batch);
  }
  for (TensorView& view : batch.views) {
    for (const TensorPart& part : view.tensor.parts) {
      DAK_ASSIGN_OR_RETURN(std::unique_ptr<TensorMap> map, EncodePart(*environment_->device, view.tensor, part));
      view.maps.push_back(std::move(map));
    }
  }
  return absl::OkStatus();
}

absl::Status Session::CheckTickets(size_t more) const {
  const uint64_t limit = environment_->limits.max_tickets_per_session;
  if (tickets_.size() + more <= limit) return absl::OkStatus();
  return WithDetail(absl::ResourceExhaustedError("the session has too many tickets that it hasn't redeemed"),
                    {.reason = "TOO_MANY_TICKETS", .limit = absl::StrCat("at most ", limit)});
}

absl::Status Session::CheckAllocation(const std::string& group, absl::Span<const TensorSpec> specs) const {
  const Limits& limits = environment_->limits;
  DAK_RETURN_IF_ERROR(CheckInHbm());
  if (auto sealed = sealed_groups_.find(group); sealed != sealed_groups_.end()) {
    return WithDetail(
        absl::FailedPreconditionError(absl::StrCat("group: ", group, " is published as ", sealed->second)),
        {.field = "group", .reason = "GROUP_PUBLISHED"});
  }
  if (tensors_.size() + specs.size() > limits.max_tensors_per_session) {
    return WithDetail(absl::ResourceExhaustedError("tensors: the session has too many"),
                      {.field = "tensors",
                       .reason = "TOO_MANY_TENSORS",
                       .limit = absl::StrCat("at most ", limits.max_tensors_per_session, " a session")});
  }
  DAK_RETURN_IF_ERROR(CheckTickets(kTierCount));
  const auto held = groups_.find(group);
  if (held == groups_.end() && groups_.size() >= limits.max_groups_per_session) {
    return WithDetail(absl::ResourceExhaustedError("group: the session has too many"),
                      {.field = "group",
                       .reason = "TOO_MANY_GROUPS",
                       .limit = absl::StrCat("at most ", limits.max_groups_per_session, " a session")});
  }
  absl::flat_hash_set<absl::string_view> names;
  for (size_t i = 0; i < specs.size(); ++i) {
    const bool taken = held != groups_.end() && held->second->tensor_ids.contains(specs[i].name);
    if (taken || !names.insert(specs[i].name).second) {
      const std::string field = absl::StrCat("tensors[", i, "].name");
      return WithDetail(
          absl::AlreadyExistsError(absl::StrCat(field, ": ", specs[i].name, " is taken in group ", group)),
          {.field = field, .reason = "NAME_TAKEN"});
    }
  }
  return absl::OkStatus();
}

void Session::PlaceInHeldSegments(Batch& batch) {
  for (size_t i = 0; i < batch.views.size(); ++i) {
    for (size_t j = 0; j < batch.views[i].tensor.parts.size(); ++j) {
      TensorPart& part = batch.part({i, j});
      if (part.segment_id != 0) continue;  // stays where it is
      const bool placed = batch.group->arena(part.tier).Place(part);
      (placed ? batch.placed : batch.unplaced).push_back({i, j});
    }
  }
}

absl::Status Session::CreateSegments(Batch& batch) {
  TierArray needed_bytes{};
  for (const PartIndex index : batch.unplaced) {
    const TensorPart& part = batch.part(index);
    needed_bytes[TierIndex(part.tier)] += BlocksOf(part.bytes) * kBlockBytes;
  }
  // All reservations first: a request that doesn't fit shouldn't make memory only to destroy it.
  for (const Tier tier : kAllTiers) {
    const uint64_t bytes = WholeGranules(needed_bytes[TierIndex(tier)]);
    if (bytes == 0) continue;
    absl::StatusOr<Reservation> reservation = environment_->ledger->Reserve(identity_.id, tier, bytes);
    if (!reservation.ok()) return NameField(reservation.status(), batch.field, batch.FirstOf(tier));
    batch.segments[TierIndex(tier)].emplace().reservation = *std::move(reservation);
  }
  for (const Tier tier : kAllTiers) {
    auto& made = batch.segments[TierIndex(tier)];
    if (!made.has_value()) continue;
    DAK_ASSIGN_OR_RETURN(made->segment.memory, environment_->device->CreateSegment(tier, made->reservation.bytes()));
    made->segment.id = environment_->next_segment_id.fetch_add(1);
    DAK_ASSIGN_OR_RETURN(ExportedHandle handle,
                         environment_->device->Export(*made->segment.memory, Access::kReadWrite));
    made->fd = std::move(handle.fd);
    made->grant = {.segment_id = made->segment.id,
                   .tier = tier,
                   .bytes = handle.bytes,
                   .kind = handle.kind,
                   .read_only = false,
                   .ticket = {}};
  }
  return absl::OkStatus();
}

// Can't fail: what didn't fit into the held segments can't fit into what is left of them, so all of it goes into the
// new ones, which were made for the sum.
void Session::PlaceInNewSegments(Batch& batch) {
  for (const Tier tier : kAllTiers) {
    auto& made = batch.segments[TierIndex(tier)];
    if (made.has_value()) batch.group->arena(tier).AddSegment(std::move(made->segment));
  }
  for (const PartIndex index : batch.unplaced) {
    TensorPart& part = batch.part(index);
    batch.group->arena(part.tier).Place(part);
    batch.placed.push_back(index);
  }
  batch.unplaced.clear();
}

AllocateResult Session::Commit(Batch& batch) {
  AllocateResult result;
  for (TensorView& view : batch.views) {
    view.tensor.id = environment_->next_tensor_id.fetch_add(1);
    batch.group->tensor_ids.emplace(view.tensor.name, view.tensor.id);
    tensors_.emplace(view.tensor.id, HeldTensor{.tensor = view.tensor, .group = batch.group});
  }
  result.grants = GrantSegments(batch);
  result.tensors = std::move(batch.views);
  return result;
}

std::vector<Grant> Session::GrantSegments(Batch& batch) {
  std::vector<Grant> grants;
  for (auto& made : batch.segments) {
    if (!made.has_value()) continue;
    made->reservation.Commit();
    std::vector<HandleGrant> handles;
    handles.push_back({.purpose = HandleGrant::Purpose::kSegment,
                       .segment_id = made->grant.segment_id,
                       .tier = made->grant.tier,
                       .kind = made->grant.kind,
                       .bytes = made->grant.bytes,
                       .read_only = false,
                       .fd = std::move(made->fd)});
    made->grant.ticket = tickets_.Add(std::move(handles));
    grants.push_back(std::move(made->grant));
  }
  return grants;
}

void Session::RollBack(Batch& batch) {
  std::vector<OwnedSegment> emptied;
  {
    absl::MutexLock lock(&mutex_);
    for (const PartIndex index : batch.placed) {
      const TensorPart& part = batch.part(index);
      std::optional<OwnedSegment> segment = batch.group->arena(part.tier).Free(part);
      if (segment.has_value()) emptied.push_back(*std::move(segment));
    }
    if (batch.group_is_new) groups_.erase(batch.views[0].group);
  }
  emptied.clear();
  for (auto& made : batch.segments) made.reset();
}

absl::Status Session::CheckFree(absl::Span<const uint64_t> tensor_ids) const {
  DAK_RETURN_IF_ERROR(CheckInHbm());
  absl::flat_hash_set<uint64_t> seen;
  for (size_t i = 0; i < tensor_ids.size(); ++i) {
    const uint64_t id = tensor_ids[i];
    const std::string field = absl::StrCat("tensor_ids[", i, "]");
    if (!seen.insert(id).second) return InvalidField(field, "is named twice", "each tensor once", "DUPLICATE");
    if (InPendingMove(id)) {
      return WithDetail(absl::FailedPreconditionError(absl::StrCat(field, ": tensor ", id, " is being moved")),
                        {.field = field, .reason = "MOVE_PENDING"});
    }
    if (tensors_.contains(id)) continue;
    for (const auto& [name, publication] : attached_) {
      if (publication->FindTensor(id) == nullptr) continue;
      return WithDetail(absl::FailedPreconditionError(absl::StrCat(field, ": tensor ", id, " is published as ", name)),
                        {.field = field, .reason = "GROUP_PUBLISHED"});
    }
    return WithDetail(absl::NotFoundError(absl::StrCat(field, ": the session has no tensor ", id)),
                      {.field = field, .reason = "UNKNOWN_TENSOR"});
  }
  return absl::OkStatus();
}

absl::StatusOr<FreeResult> Session::GiveBack(std::vector<OwnedSegment> emptied) {
  FreeResult result;
  {
    absl::MutexLock lock(&mutex_);
    for (const OwnedSegment& segment : emptied) {
      result.segment_ids.push_back(segment.id);
      tickets_.RevokeSegment(segment.id);
    }
  }
  result.bytes = BytesOf(emptied);
  emptied.clear();
  for (const Tier tier : kAllTiers) {
    const uint64_t bytes = result.bytes[TierIndex(tier)];
    if (bytes > 0) DAK_RETURN_IF_ERROR(environment_->ledger->Release(identity_.id, tier, bytes));
  }
  return result;
}

absl::StatusOr<FreeResult> Session::Free(absl::Span<const uint64_t> tensor_ids) {
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  std::vector<OwnedSegment> emptied;
  std::string group_name;
  {
    absl::MutexLock lock(&mutex_);
    DAK_RETURN_IF_ERROR(CheckFree(tensor_ids));
    for (const uint64_t id : tensor_ids) {
      auto it = tensors_.find(id);
      Group& group = *it->second.group;
      group_name = group.name;
      for (const TensorPart& part : it->second.tensor.parts) {
        std::optional<OwnedSegment> segment = group.arena(part.tier).Free(part);
        if (segment.has_value()) emptied.push_back(*std::move(segment));
      }
      group.tensor_ids.erase(it->second.tensor.name);
      tensors_.erase(it);
      if (group.tensor_ids.empty()) groups_.erase(group_name);
    }
  }
  DAK_ASSIGN_OR_RETURN(const FreeResult result, GiveBack(std::move(emptied)));
  environment_->events->Append(v1::Event::TENSORS_FREED, identity_.id, group_name,
                               absl::StrCat(tensor_ids.size(), " tensors"), &result.bytes);
  return result;
}

}  // namespace dak::daemon

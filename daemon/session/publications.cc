#include "daemon/session/publications.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/clock.h"

namespace dak::daemon {
namespace {

bool IdLess(const Tensor& tensor, uint64_t id) { return tensor.id < id; }

absl::Status NoSuchPublication(const std::string& name) {
  return WithDetail(absl::NotFoundError(absl::StrCat("publication: there is none with the name ", name)),
                    {.field = "publication", .reason = "UNKNOWN_PUBLICATION"});
}

}  // namespace

const Tensor* Publication::FindTensor(uint64_t tensor_id) const {
  auto it = std::lower_bound(tensors.begin(), tensors.end(), tensor_id, IdLess);
  return it != tensors.end() && it->id == tensor_id ? &*it : nullptr;
}

Publications::~Publications() {
  std::vector<PublicationPtr> all;
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [name, entry] : named_) {
      if (entry.ready) all.push_back(entry.publication);
    }
    for (auto& [key, entry] : withdrawn_) all.push_back(entry.publication);
    named_.clear();
    withdrawn_.clear();
  }
  for (PublicationPtr& publication : all) Free(std::move(publication));
}

absl::StatusOr<PublicationPtr> Publications::Reserve(const std::string& name, const std::string& fingerprint,
                                                     uint32_t owner_uid) {
  absl::MutexLock lock(&mutex_);
  if (named_.contains(name)) {
    return WithDetail(absl::AlreadyExistsError(absl::StrCat("publication: the name ", name, " is taken")),
                      {.field = "publication", .reason = "NAME_TAKEN"});
  }
  if (named_.size() + withdrawn_.size() >= max_publications_) {
    return WithDetail(absl::ResourceExhaustedError("too many publications"),
                      {.reason = "TOO_MANY_PUBLICATIONS", .limit = absl::StrCat("at most ", max_publications_)});
  }
  auto publication = std::make_shared<Publication>();
  publication->name = name;
  publication->fingerprint = fingerprint;
  publication->owner_uid = owner_uid;
  publication->created_ns = MonotonicNs();
  named_[name].publication = publication;
  return publication;
}

void Publications::Abandon(const PublicationPtr& publication) {
  absl::MutexLock lock(&mutex_);
  named_.erase(publication->name);
}

void Publications::Commit(const PublicationPtr& publication, Group group, std::vector<Tensor> tensors,
                          uint64_t session_id) {
  absl::MutexLock lock(&mutex_);
  publication->group = std::move(group);
  publication->tensors = std::move(tensors);
  publication->bytes = publication->group.SegmentBytes();
  Entry& entry = named_[publication->name];
  entry.attached.insert(session_id);
  entry.ready = true;
}

absl::StatusOr<Publications::Entry*> Publications::FindReady(const std::string& name) {
  auto it = named_.find(name);
  if (it == named_.end() || !it->second.ready) return NoSuchPublication(name);
  return &it->second;
}

absl::StatusOr<PublicationPtr> Publications::Attach(const std::string& name, const std::string& fingerprint,
                                                    uint64_t session_id) {
  absl::MutexLock lock(&mutex_);
  DAK_ASSIGN_OR_RETURN(Entry * entry, FindReady(name));
  const std::string& held = entry->publication->fingerprint;
  if (!fingerprint.empty() && fingerprint != held) {
    return WithDetail(absl::FailedPreconditionError(
                          absl::StrCat("fingerprint: ", fingerprint, " isn't that of ", name, ", which is ", held)),
                      {.field = "fingerprint", .reason = "FINGERPRINT_MISMATCH", .limit = held});
  }
  entry->attached.insert(session_id);
  return entry->publication;
}

void Publications::Detach(const PublicationPtr& publication, uint64_t session_id) {
  {
    absl::MutexLock lock(&mutex_);
    auto named = named_.find(publication->name);
    if (named != named_.end() && named->second.publication == publication) {
      named->second.attached.erase(session_id);
      return;
    }
    auto it = withdrawn_.find(publication.get());
    if (it == withdrawn_.end()) return;
    it->second.attached.erase(session_id);
    if (!it->second.attached.empty()) return;
    withdrawn_.erase(it);
  }
  Free(publication);
}

absl::StatusOr<uint32_t> Publications::Withdraw(const std::string& name, uint32_t uid) {
  PublicationPtr publication;
  uint32_t still_attached = 0;
  {
    absl::MutexLock lock(&mutex_);
    DAK_ASSIGN_OR_RETURN(Entry * entry, FindReady(name));
    publication = entry->publication;
    if (uid != 0 && uid != publication->owner_uid) {
      return WithDetail(absl::PermissionDeniedError("publication: it was published by another user"),
                        {.field = "publication", .reason = "NOT_OWNER"});
    }
    still_attached = static_cast<uint32_t>(entry->attached.size());
    if (still_attached > 0) withdrawn_.emplace(publication.get(), std::move(*entry));
    named_.erase(name);
  }
  events_->Append(v1::Event::PUBLICATION_WITHDRAWN, 0, name, absl::StrCat(still_attached, " sessions still attached"));
  if (still_attached == 0) Free(std::move(publication));
  return still_attached;
}

void Publications::Free(PublicationPtr publication) {
  // Memory first, books second: what is reported free is free.
  publication->group.TakeAllSegments().clear();
  for (const Tier tier : kAllTiers) {
    const uint64_t bytes = publication->bytes[TierIndex(tier)];
    if (bytes > 0) ledger_->ReleasePublished(tier, bytes).IgnoreError();  // published by this very publication
  }
  events_->Append(v1::Event::PUBLICATION_FREED, 0, publication->name, "", &publication->bytes);
}

std::vector<PublicationSummary> Publications::List() const {
  absl::MutexLock lock(&mutex_);
  const uint64_t now_ns = MonotonicNs();
  std::vector<PublicationSummary> all;
  auto add = [&](const Entry& entry, bool withdrawn) {
    const Publication& publication = *entry.publication;
    all.push_back({.name = publication.name,
                   .fingerprint = publication.fingerprint,
                   .owner_uid = publication.owner_uid,
                   .tensor_count = publication.tensors.size(),
                   .bytes = publication.bytes,
                   .attached_sessions = static_cast<uint32_t>(entry.attached.size()),
                   .withdrawn = withdrawn,
                   .age_ns = now_ns - publication.created_ns});
  };
  for (const auto& [name, entry] : named_) {
    if (entry.ready) add(entry, false);
  }
  for (const auto& [key, entry] : withdrawn_) add(entry, true);
  return all;
}

void Publications::CollectTensors(uint64_t first_id, size_t count, std::vector<TensorView>* out) const {
  absl::MutexLock lock(&mutex_);
  auto collect = [&](const Entry& entry) {
    const std::vector<Tensor>& tensors = entry.publication->tensors;
    auto it = std::lower_bound(tensors.begin(), tensors.end(), first_id, IdLess);
    for (size_t taken = 0; it != tensors.end() && taken < count; ++it, ++taken) {
      out->push_back({.tensor = *it, .group = entry.publication->name, .session_id = 0, .maps = {}});
    }
  };
  for (const auto& [name, entry] : named_) collect(entry);
  for (const auto& [key, entry] : withdrawn_) collect(entry);
}

PlacementStats Publications::Placement() const {
  absl::MutexLock lock(&mutex_);
  PlacementStats stats;
  for (const auto& [name, entry] : named_) stats.Add(entry.publication->group);
  for (const auto& [key, entry] : withdrawn_) stats.Add(entry.publication->group);
  return stats;
}

size_t Publications::size() const {
  absl::MutexLock lock(&mutex_);
  size_t ready = withdrawn_.size();
  for (const auto& [name, entry] : named_) ready += entry.ready ? 1 : 0;
  return ready;
}

}  // namespace dak::daemon

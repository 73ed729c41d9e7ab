#include "daemon/session/session.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/session_operation.h"

namespace dak::daemon {

Session::Session(SessionEnvironment* environment, SessionIdentity identity, std::shared_ptr<SessionPages> pages,
                 ClosedCallback on_closed)
    : environment_(environment),
      identity_(std::move(identity)),
      pages_(std::move(pages)),
      on_closed_(std::move(on_closed)),
      touched_ns_(identity_.opened_ns) {}

absl::Status Session::ClosingError() const {
  return WithDetail(absl::UnauthenticatedError("session_token: the session has ended"),
                    {.field = "session_token", .reason = "UNKNOWN_SESSION"});
}

absl::Status Session::BeginOperation() {
  absl::MutexLock lock(&mutex_);
  auto my_turn = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closing_ || !operating_; };
  mutex_.Await(absl::Condition(&my_turn));
  if (closing_) return ClosingError();
  operating_ = true;
  return absl::OkStatus();
}

void Session::EndOperation() {
  bool tear_down = false;
  {
    absl::MutexLock lock(&mutex_);
    operating_ = false;
    tear_down = closing_;
  }
  if (tear_down) TearDown();
}

void Session::Close() {
  {
    absl::MutexLock lock(&mutex_);
    if (closing_) return;
    closing_ = true;
    if (operating_) return;
  }
  TearDown();
}

// Runs once: closing_ keeps every operation out, and only the one that was under way, or Close, gets here.
void Session::TearDown() {
  absl::flat_hash_map<std::string, std::unique_ptr<Group>> groups;
  absl::flat_hash_map<std::string, PublicationPtr> attached;
  TicketBook tickets;
  {
    absl::MutexLock lock(&mutex_);
    groups.swap(groups_);
    attached.swap(attached_);
    std::swap(tickets, tickets_);
    tensors_.clear();
    sealed_groups_.clear();
    move_.reset();
  }
  tickets.Clear();
  for (auto& [name, group] : groups) group->TakeAllSegments().clear();
  for (auto& [name, publication] : attached) environment_->publications->Detach(publication, identity_.id);
  const absl::StatusOr<TierArray> freed = environment_->ledger->CloseSession(identity_.id);
  on_closed_(*this, freed.ok() ? *freed : TierArray{});
  absl::MutexLock lock(&mutex_);
  if (freed.ok()) freed_bytes_ = *freed;
  torn_down_ = true;
}

TierArray Session::AwaitClosed() const {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&torn_down_));
  return freed_bytes_;
}

bool Session::closing() const {
  absl::MutexLock lock(&mutex_);
  return closing_;
}

absl::Status Session::CheckOpen() const {
  absl::MutexLock lock(&mutex_);
  return closing_ ? ClosingError() : absl::OkStatus();
}

std::string Session::AddTicket(std::vector<HandleGrant> handles) {
  absl::MutexLock lock(&mutex_);
  return tickets_.Add(std::move(handles));
}

absl::StatusOr<std::vector<HandleGrant>> Session::Redeem(absl::Span<const std::string> tickets) {
  absl::MutexLock lock(&mutex_);
  if (closing_) return ClosingError();
  return tickets_.Redeem(tickets);
}

void Session::Deliver(std::vector<Grant>* grants, const std::function<bool(absl::Span<const HandleGrant>)>& send) {
  std::vector<std::string> tickets;
  for (const Grant& grant : *grants) tickets.push_back(grant.ticket);
  absl::MutexLock lock(&mutex_);
  if (tickets.empty() || closing_) return;
  absl::StatusOr<std::vector<HandleGrant>> handles = tickets_.Redeem(tickets);
  if (!handles.ok()) return;  // freed meanwhile: the tickets are void, as they should be
  const bool sent = send(*handles);
  for (size_t i = 0; i < grants->size(); ++i) {
    Grant& grant = (*grants)[i];
    grant.delivered = sent;
    if (sent) {
      grant.ticket.clear();
    } else {
      std::vector<HandleGrant> handle;
      handle.push_back(std::move((*handles)[i]));
      grant.ticket = tickets_.Add(std::move(handle));
    }
  }
}

void Session::SetPlan(SessionPlanPtr plan) {
  absl::MutexLock lock(&mutex_);
  plan_ = std::move(plan);
}

SessionPlanPtr Session::plan() const {
  absl::MutexLock lock(&mutex_);
  return plan_;
}

uint64_t Session::tensor_count() const {
  absl::MutexLock lock(&mutex_);
  return tensors_.size();
}

void Session::CollectTensors(uint64_t first_id, size_t count, std::vector<TensorView>* out) const {
  absl::MutexLock lock(&mutex_);
  auto it = tensors_.lower_bound(first_id);
  for (size_t taken = 0; it != tensors_.end() && taken < count; ++it, ++taken) {
    const HeldTensor& held = it->second;
    out->push_back({.tensor = held.tensor, .group = held.group->name, .session_id = identity_.id, .maps = {}});
    for (TensorPart& part : out->back().tensor.parts) {
      if (held.group->demoted && part.tier == Tier::kHbm) part.tier = kDemotedTier;
    }
  }
}

PlacementStats Session::Placement() const {
  absl::MutexLock lock(&mutex_);
  PlacementStats stats;
  for (const auto& [name, group] : groups_) stats.Add(*group);
  return stats;
}

}  // namespace dak::daemon

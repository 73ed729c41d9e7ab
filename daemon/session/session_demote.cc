// A session's way out of HBM and back, at the same addresses.
//
// The daemon makes a replacement for every segment and copies it; the client, which is suspended, puts the replacements
// behind its addresses; only when it says so does the daemon give the originals back. Until then the originals are in
// force, so whatever fails leaves the session where it was.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/clock.h"
#include "daemon/session/session.h"
#include "daemon/session/session_operation.h"

namespace dak::daemon {
namespace {

// A suspended client looks at its control page every few milliseconds.
constexpr uint64_t kTakeNs = 10'000'000'000;
constexpr absl::Duration kCheckInterval = absl::Milliseconds(20);

absl::Status Refused(const std::string& message, const char* reason) {
  return WithDetail(absl::FailedPreconditionError(message), {.field = "session_id", .reason = reason});
}

}  // namespace

struct Session::Migration {
  struct Replacement {
    OwnedSegment* segment = nullptr;  // in its arena
    std::unique_ptr<Segment> memory;  // the replacement; the original once it is adopted
    ExportedHandle handle;            // of the replacement
    ExportedHandle original;
  };
  bool demote = false;
  Tier from = Tier::kHbm;
  Tier to = Tier::kHbm;
  Reservation reservation;  // dies after the memory
  uint64_t bytes = 0;
  std::vector<Replacement> replacements;
  MigrationResult result;
};

Session::Residence Session::residence() const {
  absl::MutexLock lock(&mutex_);
  return residence_;
}

absl::Status Session::CheckInHbm() const {
  if (residence_ != Residence::kDemoted) return absl::OkStatus();
  return WithDetail(absl::FailedPreconditionError("the session is demoted: resume it first"), {.reason = "DEMOTED"});
}

absl::Status Session::Suspend() {
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  absl::MutexLock lock(&mutex_);
  if (move_ != nullptr) {
    return WithDetail(
        absl::FailedPreconditionError(absl::StrCat("move ", move_->id, " is neither committed nor aborted")),
        {.reason = "MOVE_PENDING"});
  }
  if (residence_ == Residence::kActive) residence_ = Residence::kSuspended;
  return absl::OkStatus();
}

absl::Status Session::CheckMigration(bool demote) const {
  const std::string who = absl::StrCat("session ", identity_.id);
  if (!demote) {
    if (residence_ == Residence::kDemoted) return absl::OkStatus();
    return Refused(absl::StrCat(who, " isn't demoted"), "NOT_DEMOTED");
  }
  if (residence_ == Residence::kSuspended) return absl::OkStatus();
  if (residence_ == Residence::kDemoted) return Refused(absl::StrCat(who, " is demoted already"), "ALREADY_DEMOTED");
  return Refused(absl::StrCat(who, " is busy: its process hasn't suspended it (dak_session_suspend)"), "NOT_SUSPENDED");
}

absl::Status Session::MakeReplacements(Migration& migration) {
  {
    // Segments stay where they are as long as this operation has its turn.
    absl::MutexLock lock(&mutex_);
    for (auto& [name, group] : groups_) {
      for (OwnedSegment* segment : group->arena(Tier::kHbm).MutableSegments()) {
        migration.bytes += segment->memory->bytes();
        migration.replacements.push_back({.segment = segment, .memory = nullptr, .handle = {}, .original = {}});
      }
    }
    DAK_RETURN_IF_ERROR(CheckTickets(migration.replacements.size()));
  }
  if (migration.bytes == 0) return absl::OkStatus();
  DAK_ASSIGN_OR_RETURN(migration.reservation,
                       environment_->ledger->Reserve(identity_.id, migration.to, migration.bytes));
  for (Migration::Replacement& replacement : migration.replacements) {
    DAK_ASSIGN_OR_RETURN(replacement.memory,
                         environment_->device->CreateSegment(migration.to, replacement.segment->memory->bytes()));
    DAK_ASSIGN_OR_RETURN(replacement.handle, environment_->device->Export(*replacement.memory, Access::kReadWrite));
    DAK_ASSIGN_OR_RETURN(replacement.original,
                         environment_->device->Export(*replacement.segment->memory, Access::kReadWrite));
  }
  return absl::OkStatus();
}

absl::Status Session::CopyToReplacements(Migration& migration, const std::function<absl::Status()>& check,
                                         const MigrationProgress& progress) {
  std::vector<CopyStep> steps;
  for (const Migration::Replacement& replacement : migration.replacements) {
    steps.push_back({.source = replacement.segment->memory.get(),
                     .source_offset_bytes = 0,
                     .target = replacement.memory.get(),
                     .target_offset_bytes = 0,
                     .bytes = replacement.memory->bytes()});
  }
  CopyHooks hooks = {.check = check, .progress = {}};
  if (progress != nullptr) hooks.progress = [&](uint64_t done_bytes) { progress(done_bytes, migration.bytes); };
  return CopyAll(*environment_->device, environment_->congestion, steps, hooks, &migration.result.copied);
}

absl::Status Session::Exchanged(Migration& migration, const std::function<absl::Status()>& check) {
  uint64_t exchange_id = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (closing_) return ClosingError();
    exchange_id = environment_->next_migration_id.fetch_add(1);
    PendingExchange& exchange = exchange_.emplace();
    exchange.id = exchange_id;
    for (Migration::Replacement& replacement : migration.replacements) {
      const uint64_t segment_id = replacement.segment->id;
      const ExportedHandle& handle = replacement.handle;
      exchange.grants.push_back({.segment_id = segment_id,
                                 .tier = handle.tier,
                                 .bytes = handle.bytes,
                                 .kind = handle.kind,
                                 .read_only = false,
                                 .ticket = {}});
      std::vector<HandleGrant> handles;
      for (ExportedHandle* memory : {&replacement.handle, &replacement.original}) {
        handles.push_back({.purpose = HandleGrant::Purpose::kSegment,
                           .segment_id = segment_id,
                           .tier = memory->tier,
                           .kind = memory->kind,
                           .bytes = memory->bytes,
                           .read_only = false,
                           .fd = std::move(memory->fd)});
      }
      // A ticket for the original that wasn't redeemed would hand out what is about to go.
      tickets_.RevokeSegment(segment_id);
      exchange.grants.back().ticket = tickets_.Add(std::move(handles));
    }
    pages_->WriteExchange(exchange_id);
  }
  const absl::Status outcome = AwaitClient(check);
  absl::MutexLock lock(&mutex_);
  exchange_.reset();
  for (const Migration::Replacement& replacement : migration.replacements) {
    tickets_.RevokeSegment(replacement.segment->id);
  }
  return outcome;
}

// Once the client has taken the exchange, either memory may be behind its addresses: only its word, or its end, tells.
absl::Status Session::AwaitClient(const std::function<absl::Status()>& check) {
  const uint64_t deadline_ns = MonotonicNs() + kTakeNs;
  const auto answered = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closing_ || exchange_->outcome.has_value();
  };
  while (true) {
    bool taken = false;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&answered), kCheckInterval);
      if (closing_) return ClosingError();
      if (exchange_->outcome.has_value()) return *exchange_->outcome;
      taken = exchange_->taken;
    }
    absl::Status status = taken ? CheckEnding() : check();
    if (status.ok() && !taken && MonotonicNs() > deadline_ns) {
      status = WithDetail(absl::DeadlineExceededError("the session's process doesn't answer"), {.reason = "NO_ANSWER"});
    }
    if (status.ok()) continue;
    absl::MutexLock lock(&mutex_);
    if (exchange_->taken && !taken) continue;
    exchange_->id = 0;  // withdrawn
    return status;
  }
}

void Session::AdoptReplacements(Migration& migration) {
  {
    absl::MutexLock lock(&mutex_);
    for (Migration::Replacement& replacement : migration.replacements) {
      std::swap(replacement.segment->memory, replacement.memory);
    }
    for (auto& [name, group] : groups_) group->demoted = migration.demote;
    residence_ = migration.demote ? Residence::kDemoted : Residence::kSuspended;
  }
  migration.result.segment_count = migration.replacements.size();
  migration.reservation.Commit();
  migration.replacements.clear();
  if (migration.bytes == 0) return;
  // The originals' bytes are committed, so this can't fail unless the books are wrong.
  environment_->ledger->Release(identity_.id, migration.from, migration.bytes).IgnoreError();
}

absl::StatusOr<MigrationResult> Session::MigrateInTurn(bool demote, const std::function<bool()>& cancelled,
                                                       const MigrationProgress& progress) {
  Migration migration;
  migration.demote = demote;
  migration.from = demote ? Tier::kHbm : kDemotedTier;
  migration.to = demote ? kDemotedTier : Tier::kHbm;
  const auto check = [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckEnding());
    if (cancelled()) return absl::CancelledError("the caller has gone");
    absl::MutexLock lock(&mutex_);
    if (!demote || !resuming_) return absl::OkStatus();
    return WithDetail(absl::AbortedError("the session's process resumed it"), {.reason = "RESUMED"});
  };
  const auto free_bytes = [this]() -> uint64_t {
    const absl::StatusOr<Device::TierInfo> hbm = environment_->device->GetTier(Tier::kHbm);
    return hbm.ok() ? hbm->free_bytes.value_or(0) : 0;
  };
  migration.result.hbm_free_before_bytes = free_bytes();
  absl::Status status = MakeReplacements(migration);
  if (status.ok()) status = CopyToReplacements(migration, check, progress);
  if (status.ok() && migration.bytes > 0) status = Exchanged(migration, check);
  const CopyStats& copied = migration.result.copied;
  const char* const kind = demote ? "demote" : "promote";
  environment_->metrics->CountMigratedBytes(copied.bytes);
  environment_->metrics->CountMigration(kind, status.ok() ? "done" : "failed", copied.duration_ns);
  if (!status.ok()) {
    environment_->events->Append(v1::Event::MIGRATION_FAILED, identity_.id, identity_.name,
                                 absl::StrCat(kind, ": ", status.message()));
    return status;
  }
  AdoptReplacements(migration);
  migration.result.hbm_free_after_bytes = free_bytes();
  TierArray bytes{};
  bytes[TierIndex(migration.to)] = migration.bytes;
  environment_->events->Append(demote ? v1::Event::SESSION_DEMOTED : v1::Event::SESSION_PROMOTED, identity_.id,
                               identity_.name,
                               absl::StrCat(migration.result.segment_count, " segments: ", Describe(copied)), &bytes);
  return migration.result;
}

absl::StatusOr<MigrationResult> Session::Demote(const std::function<bool()>& cancelled,
                                                const MigrationProgress& progress) {
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  {
    absl::MutexLock lock(&mutex_);
    DAK_RETURN_IF_ERROR(CheckMigration(/*demote=*/true));
  }
  return MigrateInTurn(/*demote=*/true, cancelled, progress);
}

absl::StatusOr<MigrationResult> Session::Promote(const std::function<bool()>& cancelled,
                                                 const MigrationProgress& progress) {
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  {
    absl::MutexLock lock(&mutex_);
    DAK_RETURN_IF_ERROR(CheckMigration(/*demote=*/false));
  }
  return MigrateInTurn(/*demote=*/false, cancelled, progress);
}

absl::StatusOr<MigrationResult> Session::Resume(const std::function<bool()>& cancelled) {
  {
    absl::MutexLock lock(&mutex_);
    resuming_ = true;
  }
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  bool demoted = false;
  {
    absl::MutexLock lock(&mutex_);
    resuming_ = false;
    demoted = residence_ == Residence::kDemoted;
  }
  MigrationResult result;
  if (demoted) {
    DAK_ASSIGN_OR_RETURN(result, MigrateInTurn(/*demote=*/false, cancelled, nullptr));
  }
  absl::MutexLock lock(&mutex_);
  residence_ = Residence::kActive;
  return result;
}

absl::StatusOr<Exchange> Session::TakeExchange() {
  absl::MutexLock lock(&mutex_);
  if (!exchange_.has_value() || exchange_->id == 0 || exchange_->taken) {
    return WithDetail(absl::NotFoundError("there is nothing to exchange"), {.reason = "NO_EXCHANGE"});
  }
  exchange_->taken = true;
  return Exchange{.id = exchange_->id, .grants = exchange_->grants};
}

absl::Status Session::FinishExchange(uint64_t exchange_id, const absl::Status& outcome) {
  absl::MutexLock lock(&mutex_);
  if (!exchange_.has_value() || exchange_->id != exchange_id || !exchange_->taken || exchange_->outcome.has_value()) {
    return WithDetail(absl::NotFoundError(absl::StrCat("exchange_id: there is no exchange ", exchange_id)),
                      {.field = "exchange_id", .reason = "NO_EXCHANGE"});
  }
  exchange_->outcome = outcome;
  return absl::OkStatus();
}

}  // namespace dak::daemon

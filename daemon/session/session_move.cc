// Session::PrepareMove, CommitMove and AbortMove: tensors go to another split of their rows.
//
// The new places are in the group's arenas from Prepare on, beside the old ones, so that whatever ends the session
// frees both. What tells them apart is `move_`: commit frees the old places, abort the new.
#include <algorithm>
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

bool SamePlace(const TensorPart& a, const TensorPart& b) {
  return a.segment_id == b.segment_id && a.arena_offset == b.arena_offset;
}

bool IsIn(const TensorPart& part, const Tensor& tensor) {
  return std::any_of(tensor.parts.begin(), tensor.parts.end(),
                     [&](const TensorPart& other) { return SamePlace(part, other); });
}

Tier RemoteTierOf(const Tensor& tensor) {
  for (const TensorPart& part : tensor.parts) {
    if (IsRemote(part.tier)) return part.tier;
  }
  return Tier::kHost;
}

// The tensor as the move wants it. Parts whose rows and tier don't change keep their place; the others have none yet.
Tensor Resplit(const Tensor& now, const TensorMoveSpec& move) {
  Tensor next = LayOut({.name = now.name,
                        .element = now.element,
                        .rows = now.rows,
                        .cols = now.cols,
                        .remote_tier = move.remote_tier.value_or(RemoteTierOf(now)),
                        .offload_ratio = move.offload_ratio,
                        .tile_rows = move.tile_rows,
                        .box_rows = now.box_rows,
                        .box_cols = now.box_cols});
  next.id = now.id;
  for (TensorPart& part : next.parts) {
    for (const TensorPart& old : now.parts) {
      if (old.tier == part.tier && old.first_row == part.first_row && old.rows == part.rows) part = old;
    }
  }
  return next;
}

// Calls visit(old part, new part, first row, rows) for all rows under `end_row` that change their place.
template <typename Visit>
void ForMovedRows(const Tensor& now, const Tensor& next, uint64_t end_row, const Visit& visit) {
  for (const TensorPart& to : next.parts) {
    if (IsIn(to, now)) continue;
    for (const TensorPart& from : now.parts) {
      const uint64_t begin = std::max(from.first_row, to.first_row);
      const uint64_t end = std::min({from.first_row + from.rows, to.first_row + to.rows, end_row});
      if (begin < end) visit(from, to, begin, end - begin);
    }
  }
}

uint64_t EndOfStable(const TensorMoveSpec& move, const Tensor& tensor) {
  return move.written ? move.stable_rows : tensor.rows;
}

absl::Status MoveError(absl::Status status, size_t index, const char* field, const char* reason) {
  const std::string path = absl::StrCat("moves[", index, "].", field);
  return WithDetail(absl::Status(status.code(), absl::StrCat(path, ": ", status.message())),
                    {.field = path, .reason = reason});
}

}  // namespace

bool Session::InPendingMove(uint64_t tensor_id) const {
  return move_ != nullptr && std::any_of(move_->tensors.begin(), move_->tensors.end(),
                                         [tensor_id](const Tensor& tensor) { return tensor.id == tensor_id; });
}

absl::Status Session::PlanMove(absl::Span<const TensorMoveSpec> moves, Batch& batch) {
  DAK_RETURN_IF_ERROR(CheckInHbm());
  if (move_ != nullptr) {
    return WithDetail(
        absl::FailedPreconditionError(absl::StrCat("move ", move_->id, " is neither committed nor aborted")),
        {.reason = "MOVE_PENDING", .limit = "one at a time"});
  }
  DAK_RETURN_IF_ERROR(CheckTickets(kTierCount));
  absl::flat_hash_set<uint64_t> seen;
  uint64_t link_bytes = 0;
  for (size_t i = 0; i < moves.size(); ++i) {
    const TensorMoveSpec& move = moves[i];
    const auto held = tensors_.find(move.tensor_id);
    if (held == tensors_.end()) {
      return MoveError(absl::NotFoundError(absl::StrCat("the session has no unpublished tensor ", move.tensor_id)), i,
                       "tensor_id", "UNKNOWN_TENSOR");
    }
    if (!seen.insert(move.tensor_id).second) {
      return MoveError(absl::InvalidArgumentError("is named twice"), i, "tensor_id", "DUPLICATE");
    }
    if (batch.group == nullptr) batch.group = held->second.group;
    if (batch.group != held->second.group) {
      return MoveError(absl::InvalidArgumentError("is of another group than the first"), i, "tensor_id", "OTHER_GROUP");
    }
    const Tensor& now = held->second.tensor;
    if (move.written && move.stable_rows > now.rows) {
      return MoveError(absl::InvalidArgumentError(absl::StrCat(move.stable_rows, " is over the ", now.rows, " rows")),
                       i, "stable_rows", "OUT_OF_RANGE");
    }
    TensorView& view = batch.views.emplace_back();
    view.tensor = Resplit(now, move);
    view.group = batch.group->name;
    view.session_id = identity_.id;
    const uint64_t row_bytes = now.cols * ElementBytes(now.element);
    ForMovedRows(now, view.tensor, now.rows,
                 [&](const TensorPart& from, const TensorPart& to, uint64_t, uint64_t rows) {
                   if (IsRemote(from.tier) != IsRemote(to.tier)) link_bytes += rows * row_bytes;
                 });
  }
  const uint64_t limit = environment_->limits.max_move_bytes;
  if (link_bytes <= limit) return absl::OkStatus();
  return WithDetail(absl::FailedPreconditionError(absl::StrCat("moves: ", link_bytes, " bytes would cross the link")),
                    {.field = "moves", .reason = "MOVE_TOO_LARGE", .limit = absl::StrCat("at most ", limit, " bytes")});
}

std::vector<CopyStep> Session::MoveSteps(absl::Span<const TensorMoveSpec> moves, Batch& batch) const {
  std::vector<CopyStep> steps;
  for (size_t i = 0; i < moves.size(); ++i) {
    const Tensor& next = batch.views[i].tensor;
    const Tensor& now = tensors_.find(next.id)->second.tensor;
    const uint64_t row_bytes = now.cols * ElementBytes(now.element);
    ForMovedRows(now, next, EndOfStable(moves[i], now),
                 [&](const TensorPart& from, const TensorPart& to, uint64_t first_row, uint64_t rows) {
                   steps.push_back({.source = batch.group->arena(from.tier).SegmentOf(from).memory.get(),
                                    .source_offset_bytes = from.offset_bytes + (first_row - from.first_row) * row_bytes,
                                    .target = batch.group->arena(to.tier).SegmentOf(to).memory.get(),
                                    .target_offset_bytes = to.offset_bytes + (first_row - to.first_row) * row_bytes,
                                    .bytes = rows * row_bytes});
                 });
  }
  return steps;
}

absl::Status Session::CheckEnding() const {
  if (environment_->stopping) return absl::UnavailableError("the daemon is shutting down");
  return closing() ? ClosingError() : absl::OkStatus();
}

absl::Status Session::CopyMove(absl::Span<const TensorMoveSpec> moves, Batch& batch,
                               const std::function<bool()>& cancelled, CopyStats* stats) {
  std::vector<CopyStep> steps;
  {
    // Segments stay where they are as long as this operation has its turn.
    absl::MutexLock lock(&mutex_);
    steps = MoveSteps(moves, batch);
  }
  const auto check = [&]() -> absl::Status {
    DAK_RETURN_IF_ERROR(CheckEnding());
    return cancelled() ? absl::CancelledError("the caller has gone") : absl::OkStatus();
  };
  return CopyAll(*environment_->device, environment_->congestion, steps, {.check = check, .progress = {}}, stats);
}

absl::StatusOr<MoveResult> Session::PrepareMove(absl::Span<const TensorMoveSpec> moves,
                                                const std::function<bool()>& cancelled) {
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  Batch batch;
  batch.field = "moves";
  {
    absl::MutexLock lock(&mutex_);
    DAK_RETURN_IF_ERROR(PlanMove(moves, batch));
    PlaceInHeldSegments(batch);
  }
  const std::string group = batch.group->name;
  MoveResult result;
  absl::Status status = MakeAndEncode(batch);
  if (status.ok()) status = CopyMove(moves, batch, cancelled, &result.copied);
  environment_->metrics->CountMigratedBytes(result.copied.bytes);
  if (!status.ok()) {
    RollBack(batch);
    environment_->metrics->CountMigration("move", "failed", result.copied.duration_ns);
    environment_->events->Append(v1::Event::MIGRATION_FAILED, identity_.id, group,
                                 absl::StrCat("move: ", status.message()));
    return status;
  }
  {
    absl::MutexLock lock(&mutex_);
    result.move_id = environment_->next_migration_id.fetch_add(1);
    move_ = std::make_unique<PendingMove>();
    move_->id = result.move_id;
    move_->group = batch.group;
    for (const TensorView& view : batch.views) move_->tensors.push_back(view.tensor);
    result.grants = GrantSegments(batch);
    result.tensors = std::move(batch.views);
  }
  environment_->metrics->CountMigration("move", "prepared", result.copied.duration_ns);
  environment_->events->Append(
      v1::Event::MOVE_PREPARED, identity_.id, group,
      absl::StrCat("move ", result.move_id, ", ", moves.size(), " tensors: ", Describe(result.copied)));
  return result;
}

void Session::FreeParts(Group& group, const Tensor& from, const Tensor& keep, std::vector<OwnedSegment>* emptied) {
  for (const TensorPart& part : from.parts) {
    if (IsIn(part, keep)) continue;
    std::optional<OwnedSegment> segment = group.arena(part.tier).Free(part);
    if (segment.has_value()) emptied->push_back(*std::move(segment));
  }
}

absl::StatusOr<FreeResult> Session::EndMove(uint64_t move_id, bool commit) {
  Operation operation(this);
  if (!operation.status().ok()) return operation.status();
  std::vector<OwnedSegment> emptied;
  std::string group;
  {
    absl::MutexLock lock(&mutex_);
    if (commit && move_id == committed_move_) return FreeResult{};  // its answer was lost
    if (move_ == nullptr || (move_id != 0 && move_id != move_->id)) {
      return WithDetail(absl::NotFoundError(absl::StrCat("move_id: there is no move ", move_id)),
                        {.field = "move_id", .reason = "UNKNOWN_MOVE"});
    }
    group = move_->group->name;
    move_id = move_->id;
    for (Tensor& next : move_->tensors) {
      Tensor& now = tensors_.find(next.id)->second.tensor;
      FreeParts(*move_->group, commit ? now : next, commit ? next : now, &emptied);
      if (commit) now = std::move(next);
    }
    if (commit) committed_move_ = move_id;
    move_.reset();
  }
  DAK_ASSIGN_OR_RETURN(FreeResult result, GiveBack(std::move(emptied)));
  environment_->metrics->CountMigration("move", commit ? "done" : "aborted", 0);
  environment_->events->Append(commit ? v1::Event::MOVE_COMMITTED : v1::Event::MOVE_ABORTED, identity_.id, group,
                               absl::StrCat("move ", move_id), &result.bytes);
  return result;
}

absl::StatusOr<FreeResult> Session::CommitMove(uint64_t move_id) { return EndMove(move_id, /*commit=*/true); }

absl::StatusOr<FreeResult> Session::AbortMove(uint64_t move_id) { return EndMove(move_id, /*commit=*/false); }

}  // namespace dak::daemon

// Moving tensors to another split of their rows while the session runs.
//
// dakd copies and grants (PrepareMove), possibly for seconds, while operations go on reading the old parts. The switch
// is local: rows that were written meanwhile are copied here, descriptors change, old segments are unmapped, and dakd
// hears of it last. So there is no moment at which a lost answer could leave tensors in two places: what this process
// reads is always the one or the other, and dakd keeps both until it knows.
#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/rpc_status.h"
#include "client/src/session.h"

namespace dak::client {
namespace {

constexpr size_t kMaxMoves = 1024;
constexpr uint64_t kTileRows = 64;  // what tile_rows 0 means

absl::Status NoMove() {
  return WithDetail(absl::FailedPreconditionError("no move is prepared"), Reason("", "NO_MOVE"));
}

MoveStatus StatusOf(const v1::PrepareMoveResponse& response) {
  MoveStatus status{.tensor_count = static_cast<uint64_t>(response.tensors_size()), .copy_ns = response.copy_ns()};
  for (const v1::CopiedBytes& copied : response.copied()) {
    const bool from_hbm = copied.from() == v1::TIER_HBM;
    const bool to_hbm = copied.to() == v1::TIER_HBM;
    uint64_t& bytes = from_hbm == to_hbm ? status.within_tier_bytes
                      : from_hbm         ? status.hbm_to_remote_bytes
                                         : status.remote_to_hbm_bytes;
    bytes += copied.bytes();
  }
  return status;
}

// True if `ratio` gives the tensor the rows that it has in remote tiers now.
bool HasRatio(const Tensor& tensor, double ratio) {
  uint64_t remote_rows = 0;
  for (const Part& part : tensor.parts()) remote_rows += IsRemote(part.tier) ? part.rows : 0;
  const double asked = ratio * static_cast<double>(tensor.rows());
  if (asked <= 0) return remote_rows == 0;
  return static_cast<double>(remote_rows) >= asked &&
         (remote_rows <= kTileRows || static_cast<double>(remote_rows - kTileRows) < asked);
}

}  // namespace

absl::Status Session::CheckMoves(absl::Span<const MoveSpec> moves) const {
  if (pending_move_ != nullptr) {
    return WithDetail(absl::FailedPreconditionError("a move is prepared: commit or abort it first"),
                      Reason("", "MOVE_PENDING"));
  }
  if (moves.empty() || moves.size() > kMaxMoves) {
    return InvalidField("count", absl::StrCat(moves.size(), " is out of range"), absl::StrCat("1 to ", kMaxMoves));
  }
  for (size_t i = 0; i < moves.size(); ++i) {
    const std::string field = absl::StrCat("moves[", i, "].tensor");
    if (tensors_.count(moves[i].tensor) == 0) {
      return InvalidField(field, "is no tensor of this session", "a live tensor of this session", "UNKNOWN_TENSOR");
    }
    if (moves[i].tensor->read_only()) {
      return WithDetail(absl::FailedPreconditionError(absl::StrCat(field, ": tensor ", moves[i].tensor->name(),
                                                                   " is published, and stays where it is")),
                        Reason(field, "READ_ONLY"));
    }
    DAK_RETURN_IF_ERROR(moves[i].tensor->CheckMapped());
  }
  return absl::OkStatus();
}

absl::StatusOr<MoveStatus> Session::PrepareMove(absl::Span<const MoveSpec> moves) {
  absl::MutexLock control(&control_mutex_);
  DAK_RETURN_IF_ERROR(Settle());
  return PrepareMoveLocked(moves);
}

absl::StatusOr<MoveStatus> Session::PrepareMoveLocked(absl::Span<const MoveSpec> moves) {
  DAK_RETURN_IF_ERROR(CheckMoves(moves));
  v1::PrepareMoveRequest request;
  request.set_session_token(opened_.session_token());
  for (const MoveSpec& move : moves) {
    v1::TensorMove* const wire = request.add_moves();
    wire->set_tensor_id(move.tensor->id());
    wire->set_offload_ratio(move.offload_ratio);
    wire->set_remote_tier(static_cast<v1::Tier>(move.remote_tier));
    wire->set_tile_rows(move.tile_rows);
    wire->set_written(move.written);
    wire->set_stable_rows(move.stable_rows);
  }
  v1::PrepareMoveResponse response;
  const absl::Status prepared =
      Call(&v1::MigrationService::Stub::PrepareMove, request, &response, move_timeout(), /*changes=*/true);
  if (!prepared.ok()) {
    move_in_doubt_ = books_uncertain_;
    return prepared;
  }
  const absl::Status adopted = AdoptMove(moves, response);
  if (adopted.ok()) return StatusOf(response);
  // If this fails too, Settle gives the new places back later.
  if (!AbortRemotely(response.move_id()).ok()) books_uncertain_ = move_in_doubt_ = true;
  return Prefixed("the tensors' new places couldn't be mapped and were given back", adopted);
}

absl::Status Session::AdoptMove(absl::Span<const MoveSpec> moves, const v1::PrepareMoveResponse& response) {
  if (static_cast<size_t>(response.tensors_size()) != moves.size()) {
    return absl::InternalError("dakd didn't answer with the tensors asked for");
  }
  auto pending = std::make_unique<PendingMove>();
  pending->id = response.move_id();
  DAK_ASSIGN_OR_RETURN(SegmentTable mapped, MapGrants(response.segments(), Access::kReadWrite));
  const auto mapping_of = [&](uint64_t segment_id) -> Mapping* {
    for (SegmentTable* table : {&mapped, &segments_}) {
      if (auto it = table->find(segment_id); it != table->end()) return it->second.mapping.get();
    }
    return nullptr;
  };
  for (size_t i = 0; i < moves.size(); ++i) {
    const v1::Tensor& wire = response.tensors(static_cast<int>(i));
    Tensor& now = *moves[i].tensor;
    if (wire.tensor_id() != now.id() || wire.rows() != now.rows() || wire.cols() != now.cols()) {
      return absl::InternalError(absl::StrCat("dakd answered with tensor ", wire.tensor_id(), " for ", now.id()));
    }
    DAK_ASSIGN_OR_RETURN(std::unique_ptr<Tensor> next, Tensor::Make(this, *device_, wire, mapping_of));
    pending->tensors.push_back(
        {.now = &now, .next = std::move(next), .stable_rows = moves[i].written ? moves[i].stable_rows : now.rows()});
  }
  absl::MutexLock lock(&mutex_);
  segments_.merge(mapped);
  for (const MovingTensor& moving : pending->tensors) CountParts(*moving.next, 1);
  pending_move_ = std::move(pending);
  return absl::OkStatus();
}

// Segments that nothing is in any more are unmapped.
void Session::CountParts(const Tensor& tensor, int change) {
  for (const Part& part : tensor.parts()) {
    const auto segment = segments_.find(part.segment_id);
    segment->second.tensor_count += static_cast<uint64_t>(change);
    if (segment->second.tensor_count == 0) segments_.erase(segment);
  }
}

// Rows that were written since the move was prepared. Nobody writes them now.
absl::Status Session::CopyWrittenRows(const MovingTensor& moving) {
  const uint64_t row_bytes = moving.now->cols() * ElementBytes(moving.now->element());
  for (const Part& to : moving.next->parts()) {
    for (const Part& from : moving.now->parts()) {
      if (from.address() == to.address()) continue;  // stays
      const uint64_t begin = std::max({from.first_row, to.first_row, moving.stable_rows});
      const uint64_t end = std::min(from.first_row + from.rows, to.first_row + to.rows);
      if (begin >= end) continue;
      DAK_RETURN_IF_ERROR(device_->Copy(*from.mapping, from.offset_bytes + (begin - from.first_row) * row_bytes,
                                        *to.mapping, to.offset_bytes + (begin - to.first_row) * row_bytes,
                                        (end - begin) * row_bytes));
    }
  }
  return absl::OkStatus();
}

absl::Status Session::CommitMove() {
  absl::MutexLock control(&control_mutex_);
  DAK_RETURN_IF_ERROR(Settle());
  if (pending_move_ == nullptr) return NoMove();
  {
    // No launch and no copy of this library is in the middle of anything while descriptors change.
    absl::MutexLock launch(&launch_mutex_);
    absl::WriterMutexLock use(&use_mutex_);
    DAK_RETURN_IF_ERROR(device_->Synchronize());
    for (const MovingTensor& moving : pending_move_->tensors) DAK_RETURN_IF_ERROR(CopyWrittenRows(moving));
    absl::MutexLock lock(&mutex_);
    for (MovingTensor& moving : pending_move_->tensors) {
      moving.now->SwapParts(*moving.next);
      CountParts(*moving.next, -1);
    }
  }
  const uint64_t move_id = pending_move_->id;
  pending_move_.reset();
  const absl::Status committed = CommitRemotely(move_id);
  // With the daemon gone its books are, too; here the tensors have moved.
  if (committed.ok() || connection_->PeerIsGone()) return absl::OkStatus();
  commit_in_doubt_ = move_id;
  books_uncertain_ = true;
  return Prefixed("the tensors have moved, but dakd didn't take their old places back; the next call tries again",
                  committed);
}

absl::Status Session::AbortMove() {
  absl::MutexLock control(&control_mutex_);
  DAK_RETURN_IF_ERROR(Settle());
  if (pending_move_ == nullptr) return NoMove();
  DropPendingMove();
  const absl::Status aborted = AbortRemotely(0);
  if (aborted.ok() || connection_->PeerIsGone()) return absl::OkStatus();
  books_uncertain_ = move_in_doubt_ = true;
  return Prefixed("the new places are unmapped, but dakd didn't take them back; the next call tries again", aborted);
}

void Session::DropPendingMove() {
  const std::unique_ptr<PendingMove> dropped = std::move(pending_move_);
  absl::MutexLock lock(&mutex_);
  for (const MovingTensor& moving : dropped->tensors) CountParts(*moving.next, -1);
}

absl::Status Session::CommitRemotely(uint64_t move_id) {
  v1::CommitMoveRequest request;
  request.set_session_token(opened_.session_token());
  request.set_move_id(move_id);
  v1::CommitMoveResponse response;
  return Call(&v1::MigrationService::Stub::CommitMove, request, &response, timeout(), /*changes=*/true);
}

absl::Status Session::AbortRemotely(uint64_t move_id) {
  v1::AbortMoveRequest request;
  request.set_session_token(opened_.session_token());
  request.set_move_id(move_id);
  v1::AbortMoveResponse response;
  const absl::Status aborted =
      Call(&v1::MigrationService::Stub::AbortMove, request, &response, timeout(), /*changes=*/true);
  return absl::IsNotFound(aborted) ? absl::OkStatus() : aborted;  // there is none, which is what was asked
}

absl::Status Session::SettleMoves() {
  if (commit_in_doubt_.has_value()) {
    DAK_RETURN_IF_ERROR(CommitRemotely(*commit_in_doubt_));
    commit_in_doubt_.reset();
  }
  if (move_in_doubt_) {
    DAK_RETURN_IF_ERROR(AbortRemotely(0));
    move_in_doubt_ = false;
  }
  return absl::OkStatus();
}

absl::Status Session::CheckNotMoving(const Tensor& tensor, const std::string& field) const {
  if (pending_move_ == nullptr) return absl::OkStatus();
  for (const MovingTensor& moving : pending_move_->tensors) {
    if (moving.now != &tensor) continue;
    return WithDetail(absl::FailedPreconditionError(absl::StrCat(field, ": tensor ", tensor.name(), " is being moved")),
                      Reason(field, "MOVE_PENDING"));
  }
  return absl::OkStatus();
}

absl::StatusOr<MoveStatus> Session::PrepareMoveToPlan(const std::string& group) {
  absl::MutexLock control(&control_mutex_);
  DAK_RETURN_IF_ERROR(Settle());
  v1::GetPlanRequest request;
  request.set_session_id(opened_.session_id());
  v1::Plan plan;
  DAK_RETURN_IF_ERROR(Call(&v1::PlanService::Stub::GetPlan, request, &plan, timeout(), /*changes=*/false));
  std::vector<MoveSpec> moves;
  for (const v1::OperationPlan& operation : plan.operations()) {
    const auto found = by_name_.find({group, operation.name()});
    if (found == by_name_.end() || found->second->read_only() || moves.size() == kMaxMoves) continue;
    if (HasRatio(*found->second, operation.offload_ratio())) continue;
    moves.push_back({.tensor = found->second, .offload_ratio = operation.offload_ratio()});
  }
  if (moves.empty()) return MoveStatus{};
  return PrepareMoveLocked(moves);
}

}  // namespace dak::client

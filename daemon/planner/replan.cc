#include "daemon/planner/replan.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak::planner {
namespace {

// With fewer, a step could fail to make room for a tile and still promote it.
constexpr uint64_t kTilesPerStep = 4;

double SecondsAt(const Profile& profile, const PlacedOperation& placed, uint64_t remote_rows) {
  std::vector<double> tier_ratios(placed.tier + 1);
  if (placed.split.rows > 0) {
    tier_ratios[placed.tier] = static_cast<double>(remote_rows) / static_cast<double>(placed.split.rows);
  }
  return OperationSeconds(profile, placed.operation, tier_ratios);
}

uint64_t TileBytes(const RowSplit& split) { return std::min(split.tile_rows, split.rows) * split.row_bytes; }

absl::Status CheckOperation(const Profile& profile, const PlacedOperation& placed, uint64_t max_move_bytes,
                            const std::string& name) {
  const RowSplit& split = placed.split;
  if (placed.tier >= profile.remote_tiers.size()) {
    return InvalidField(name + "tier", absl::StrCat(placed.tier),
                        absl::StrCat("below ", profile.remote_tiers.size(), ", the profile's tiers"));
  }
  if (split.rows > 0 && (split.tile_rows == 0 || split.row_bytes == 0)) {
    return InvalidField(name + (split.tile_rows == 0 ? "split.tile_rows" : "split.row_bytes"), "0 is out of range",
                        "at least 1");
  }
  if (split.rows > 0 && split.rows > kMaxOperationBytes / split.row_bytes) {
    return InvalidField(name + "split.rows", absl::StrCat(split.rows, " rows of ", split.row_bytes, " bytes"),
                        absl::StrCat("at most ", kMaxOperationBytes, " bytes"));
  }
  for (const auto& [field, rows] :
       {std::pair("remote_rows", placed.remote_rows), {"target_rows", placed.target_rows}}) {
    if (rows > split.rows) {
      return InvalidField(name + field, absl::StrCat(rows), absl::StrCat("at most split.rows, here ", split.rows));
    }
  }
  if (kTilesPerStep * TileBytes(split) > max_move_bytes) {
    return InvalidField("policy.max_move_bytes", absl::StrCat(max_move_bytes),
                        absl::StrCat("at least ", kTilesPerStep, " tiles, here ", kTilesPerStep * TileBytes(split)));
  }
  return absl::OkStatus();
}

absl::Status CheckPolicy(const ReplanPolicy& policy) {
  if (!(policy.min_gain >= 0 && policy.min_gain <= 1)) {
    return InvalidField("policy.min_gain", absl::StrCat(policy.min_gain), "0 to 1");
  }
  if (!(policy.payback_s >= 0)) return InvalidField("policy.payback_s", absl::StrCat(policy.payback_s), "at least 0");
  if (!(policy.min_interval_s >= 0)) {
    return InvalidField("policy.min_interval_s", absl::StrCat(policy.min_interval_s), "at least 0");
  }
  return absl::OkStatus();
}

// What one operation still has to move.
struct Pending {
  size_t operation = 0;
  double seconds_per_byte = 0;  // what the pass gains (demotions: loses) by it
};

// Promotions as long as there is room, demotions to make it.
class MovePlanner {
 public:
  MovePlanner(const Profile& profile, absl::Span<const PlacedOperation> operations, int64_t room_bytes,
              uint64_t max_move_bytes)
      : operations_(operations),
        room_bytes_(room_bytes),
        left_bytes_(max_move_bytes),
        seconds_per_byte_(operations.size()) {
    for (size_t i = 0; i < operations.size(); ++i) {
      const PlacedOperation& placed = operations[i];
      remote_rows_.push_back(placed.remote_rows);
      if (placed.remote_rows == placed.target_rows) continue;
      const bool demote = placed.target_rows > placed.remote_rows;
      const double seconds =
          SecondsAt(profile, placed, placed.target_rows) - SecondsAt(profile, placed, placed.remote_rows);
      const double bytes = static_cast<double>(LeftBytes(i));
      seconds_per_byte_[i] = (demote ? seconds : -seconds) / bytes;
      (demote ? demotions_ : promotions_).push_back({i, seconds_per_byte_[i]});
    }
    // Worked off from the back: the cheapest demotion, the most gainful promotion.
    const auto less = [](const Pending& a, const Pending& b) { return a.seconds_per_byte < b.seconds_per_byte; };
    std::stable_sort(promotions_.begin(), promotions_.end(), less);
    std::stable_sort(demotions_.rbegin(), demotions_.rend(), less);
  }

  std::vector<RowMove> Plan() {
    while (Step()) {
    }
    DropUnusedRoom();
    return std::move(moves_);
  }
  const std::vector<uint64_t>& remote_rows() const { return remote_rows_; }

 private:
  bool Step() {
    if (room_bytes_ < 0) {
      const bool moved = Demote(static_cast<uint64_t>(-room_bytes_), left_bytes_);
      forced_moves_ = moves_.size();
      return moved;
    }
    if (promotions_.empty()) {
      // Nothing needs the room: only what makes the pass faster goes.
      return !demotions_.empty() && demotions_.back().seconds_per_byte <= 0 && Demote(kUnlimitedBytes, left_bytes_);
    }
    const size_t next = promotions_.back().operation;
    const uint64_t wanted = LeftBytes(next);
    const uint64_t room = static_cast<uint64_t>(room_bytes_);
    if (Promote(std::min({wanted, room, left_bytes_}))) return true;
    if (room >= FirstTileBytes(next)) return false;  // the step's bytes are used up
    // Half of what is left, since the promotion has to follow.
    return left_bytes_ / 2 >= FirstTileBytes(next) && Demote(wanted - room, left_bytes_ / 2);
  }

  uint64_t LeftRows(size_t i) const {
    const uint64_t target = operations_[i].target_rows;
    return remote_rows_[i] > target ? remote_rows_[i] - target : target - remote_rows_[i];
  }
  uint64_t LeftBytes(size_t i) const { return LeftRows(i) * operations_[i].split.row_bytes; }
  uint64_t FirstTileBytes(size_t i) const {
    return std::min(LeftRows(i), operations_[i].split.tile_rows) * operations_[i].split.row_bytes;
  }

  // The most rows within `bytes`: everything that is left, or whole tiles.
  uint64_t RowsWithin(size_t i, uint64_t bytes) const {
    const RowSplit& split = operations_[i].split;
    const uint64_t rows = std::min(LeftRows(i), bytes / split.row_bytes);
    return rows == LeftRows(i) ? rows : rows / split.tile_rows * split.tile_rows;
  }

  bool Promote(uint64_t most_bytes) {
    const size_t i = promotions_.back().operation;
    const uint64_t rows = RowsWithin(i, most_bytes);
    if (rows == 0) return false;
    Move(i, false, rows);
    if (LeftRows(i) == 0) promotions_.pop_back();
    return true;
  }

  // Room that no promotion took up, because the step's bytes ran out, would only cost.
  void DropUnusedRoom() {
    while (moves_.size() > forced_moves_ && moves_.back().to_remote) {
      const RowMove& last = moves_.back();
      if (seconds_per_byte_[last.operation] <= 0) return;
      remote_rows_[last.operation] -= last.rows;
      moves_.pop_back();
    }
  }

  // Enough for `wanted_bytes` of room if `most_bytes` and the operation allow.
  bool Demote(uint64_t wanted_bytes, uint64_t most_bytes) {
    if (demotions_.empty()) return false;
    const size_t i = demotions_.back().operation;
    const uint64_t tile = operations_[i].split.tile_rows * operations_[i].split.row_bytes;
    const uint64_t in_tiles = wanted_bytes > kMaxTotalBytes ? wanted_bytes : (wanted_bytes + tile - 1) / tile * tile;
    const uint64_t rows = RowsWithin(i, std::min(in_tiles, most_bytes));
    if (rows == 0) return false;
    Move(i, true, rows);
    if (LeftRows(i) == 0) demotions_.pop_back();
    return true;
  }

  void Move(size_t i, bool to_remote, uint64_t rows) {
    const RowSplit& split = operations_[i].split;
    const uint64_t boundary = split.rows - remote_rows_[i];
    const uint64_t bytes = rows * split.row_bytes;
    moves_.push_back({i, to_remote, to_remote ? boundary - rows : boundary, rows, bytes});
    remote_rows_[i] = to_remote ? remote_rows_[i] + rows : remote_rows_[i] - rows;
    room_bytes_ += to_remote ? static_cast<int64_t>(bytes) : -static_cast<int64_t>(bytes);
    left_bytes_ -= bytes;
  }

  absl::Span<const PlacedOperation> operations_;
  int64_t room_bytes_;
  uint64_t left_bytes_;
  std::vector<double> seconds_per_byte_;  // by operation, of what it has to move
  std::vector<uint64_t> remote_rows_;
  std::vector<Pending> promotions_;
  std::vector<Pending> demotions_;
  std::vector<RowMove> moves_;
  size_t forced_moves_ = 0;
};

struct Totals {
  uint64_t hbm_bytes = 0;
  uint64_t target_hbm_bytes = 0;
  uint64_t to_move_bytes = 0;
};

absl::StatusOr<Totals> CheckAndSum(const Profile& profile, absl::Span<const PlacedOperation> operations,
                                   uint64_t hbm_budget_bytes, const ReplanPolicy& policy) {
  Totals totals;
  for (size_t i = 0; i < operations.size(); ++i) {
    const PlacedOperation& placed = operations[i];
    const std::string name = absl::StrCat("operations[", i, "].");
    DAK_RETURN_IF_ERROR(CheckOperation(profile, placed, policy.max_move_bytes, name));
    const uint64_t row_bytes = placed.split.row_bytes;
    totals.hbm_bytes += (placed.split.rows - placed.remote_rows) * row_bytes;
    totals.target_hbm_bytes += (placed.split.rows - placed.target_rows) * row_bytes;
    if (totals.hbm_bytes > kMaxTotalBytes || totals.target_hbm_bytes > kMaxTotalBytes) {
      return InvalidField("operations", "too many bytes", absl::StrCat("at most ", kMaxTotalBytes));
    }
    totals.to_move_bytes += row_bytes * (std::max(placed.remote_rows, placed.target_rows) -
                                         std::min(placed.remote_rows, placed.target_rows));
  }
  if (totals.target_hbm_bytes > hbm_budget_bytes) {
    return InvalidField("hbm_budget_bytes", absl::StrCat(hbm_budget_bytes),
                        absl::StrCat("at least what the new plan keeps in HBM, ", totals.target_hbm_bytes));
  }
  return totals;
}

ReplanReason ReasonFor(const Profile& profile, const Totals& totals, uint64_t hbm_budget_bytes, double since_last_s,
                       const ReplanPolicy& policy, const ReplanDecision& decision) {
  if (totals.hbm_bytes > hbm_budget_bytes) return ReplanReason::kOverBudget;
  const double gain_s = decision.now_s - decision.target_s;
  if (gain_s <= 0 || gain_s < policy.min_gain * decision.now_s) return ReplanReason::kSmallGain;
  if (since_last_s < policy.min_interval_s) return ReplanReason::kTooSoon;
  const double copy_rate =
      profile.copy_engine_bytes_per_s > 0 ? profile.copy_engine_bytes_per_s : profile.link_bytes_per_s;
  // A second of passes after the move does what took now_s / target_s seconds before.
  const double gained_s = policy.payback_s * gain_s / decision.now_s;
  const double copies_s = static_cast<double>(totals.to_move_bytes) / copy_rate;
  return copies_s > gained_s ? ReplanReason::kTooDear : ReplanReason::kWorthIt;
}

}  // namespace

absl::StatusOr<ReplanDecision> DecideReplan(const Profile& profile, absl::Span<const PlacedOperation> operations,
                                            uint64_t hbm_budget_bytes, double since_last_s,
                                            const ReplanPolicy& policy) {
  DAK_RETURN_IF_ERROR(CheckPolicy(policy));
  DAK_ASSIGN_OR_RETURN(const Totals totals, CheckAndSum(profile, operations, hbm_budget_bytes, policy));
  ReplanDecision decision;
  for (const PlacedOperation& placed : operations) {
    decision.now_s += SecondsAt(profile, placed, placed.remote_rows);
    decision.target_s += SecondsAt(profile, placed, placed.target_rows);
  }
  decision.after_s = decision.now_s;
  decision.reason = ReasonFor(profile, totals, hbm_budget_bytes, since_last_s, policy, decision);
  if (decision.reason != ReplanReason::kOverBudget && decision.reason != ReplanReason::kWorthIt) return decision;
  const int64_t room_bytes =
      static_cast<int64_t>(std::min(hbm_budget_bytes, kMaxTotalBytes)) - static_cast<int64_t>(totals.hbm_bytes);
  MovePlanner planner(profile, operations, room_bytes, policy.max_move_bytes);
  decision.moves = planner.Plan();
  decision.after_s = 0;
  for (size_t i = 0; i < operations.size(); ++i) {
    decision.after_s += SecondsAt(profile, operations[i], planner.remote_rows()[i]);
  }
  for (const RowMove& move : decision.moves) decision.moved_bytes += move.bytes;
  return decision;
}

}  // namespace dak::planner

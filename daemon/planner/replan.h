// From the plan in force to a better one: whether to move, and what, in which order.
//
// Moving costs link time and flapping costs it again and again, so a session only moves when it must (more stays in HBM
// than its budget allows) or when the new plan saves enough: at least `min_gain` of the pass's time, and the copies pay
// for themselves within `payback_s`. A step moves at most `max_move_bytes`; what is left is decided anew next time, so
// a session ends within `min_gain` of its optimum. Moves come in an order in which HBM never holds more than the budget
// (or than it holds now, where that is more), each in whole tiles at the boundary between a matrix's two parts.
//
// Covers matrices with one remote tier each, as tensors have. Thread safety: pure functions. Errors: INVALID_ARGUMENT
// names the field ("operations[2].target_rows").
#ifndef DAK_DAEMON_PLANNER_REPLAN_H_
#define DAK_DAEMON_PLANNER_REPLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "daemon/planner/planner.h"

namespace dak::planner {

struct ReplanPolicy {
  double min_gain = 0.03;                     // of the pass's time; 0 to 1
  double payback_s = 10;                      // at least 0
  double min_interval_s = 1;                  // between steps that need not be; at least 0
  uint64_t max_move_bytes = kUnlimitedBytes;  // at least four tiles of every operation
};

struct PlacedOperation {
  Operation operation;
  RowSplit split;
  size_t tier = 0;           // its remote tier, by the profile's order
  uint64_t remote_rows = 0;  // now
  uint64_t target_rows = 0;  // remote in the new plan, as RoundToFastestTiles gives it
};

// Rows [first_row, first_row + rows) of one operation.
struct RowMove {
  size_t operation = 0;
  bool to_remote = false;
  uint64_t first_row = 0;
  uint64_t rows = 0;
  uint64_t bytes = 0;
};

enum class ReplanReason {
  kOverBudget,  // moves: HBM holds more than the budget
  kWorthIt,     // moves: the gain pays
  kSmallGain,   // stays: less than min_gain
  kTooDear,     // stays: the copies take longer to pay for themselves than payback_s
  kTooSoon,     // stays: min_interval_s hasn't passed
};

struct ReplanDecision {
  ReplanReason reason = ReplanReason::kSmallGain;
  std::vector<RowMove> moves;  // in order; empty if it stays
  uint64_t moved_bytes = 0;
  double now_s = 0;     // the pass's time at present,
  double after_s = 0;   // after these moves,
  double target_s = 0;  // and with the whole new plan
};

// `since_last_s`: since the session's last step; infinite if there was none. Copies run at the profile's copy-engine
// rate, or the link's where that is unknown.
absl::StatusOr<ReplanDecision> DecideReplan(const Profile& profile, absl::Span<const PlacedOperation> operations,
                                            uint64_t hbm_budget_bytes, double since_last_s, const ReplanPolicy& policy);

}  // namespace dak::planner

#endif  // DAK_DAEMON_PLANNER_REPLAN_H_

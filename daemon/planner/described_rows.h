// The rows of described passes: whether they can be, what they occupy, what becomes of them when tensors grow.
// Internal.
//
// Pure functions, thread-safe.
#ifndef DAK_DAEMON_PLANNER_DESCRIBED_ROWS_H_
#define DAK_DAEMON_PLANNER_DESCRIBED_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "daemon/planner/node_plan.h"

namespace dak::planner::internal {

using Rows = std::vector<uint64_t>;  // remote, by operation

// INVALID_ARGUMENT names "splits" or "operations[3].rows".
absl::Status CheckDescription(const PassDescription& description);

// The same tensors, which may have become longer or shorter.
bool SameTensors(const PassDescription& a, const PassDescription& b);

// What is remote of a tensor that has another length now: what was in HBM stays there, what is new is remote, in whole
// tiles and within the operation's bounds.
uint64_t RowsAfterGrowth(const RowSplit& before, const RowSplit& now, uint64_t remote_rows, const Operation& operation);

uint64_t HbmBytes(const PassDescription& description, const Rows& remote_rows);
uint64_t StoredBytes(const PassDescription& description);

}  // namespace dak::planner::internal

#endif  // DAK_DAEMON_PLANNER_DESCRIBED_ROWS_H_

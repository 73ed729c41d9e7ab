#include "daemon/planner/described_rows.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"

namespace dak::planner::internal {

absl::Status CheckDescription(const PassDescription& description) {
  if (description.splits.size() != description.pass.operations.size()) {
    return InvalidField("splits", absl::StrCat(description.splits.size(), " entries"),
                        absl::StrCat("one an operation: ", description.pass.operations.size()));
  }
  for (size_t i = 0; i < description.splits.size(); ++i) {
    const Operation& operation = description.pass.operations[i];
    const RowSplit& split = description.splits[i];
    const uint64_t stored = operation.stored_bytes == 0 ? operation.bytes : operation.stored_bytes;
    const bool whole =
        split.rows == 0 ? stored == 0 : stored % split.rows == 0 && stored / split.rows == split.row_bytes;
    if (whole) continue;
    return InvalidField(absl::StrCat("operations[", i, "].rows"), absl::StrCat(split.rows, " is no divisor"),
                        absl::StrCat("a divisor of the bytes stored, ", stored));
  }
  return absl::OkStatus();
}

bool SameTensors(const PassDescription& a, const PassDescription& b) {
  if (a.splits.size() != b.splits.size()) return false;
  for (size_t i = 0; i < a.splits.size(); ++i) {
    const RowSplit& one = a.splits[i];
    const RowSplit& other = b.splits[i];
    if (a.pass.operations[i].name != b.pass.operations[i].name || one.tile_rows != other.tile_rows ||
        one.row_bytes != other.row_bytes) {
      return false;
    }
  }
  return true;
}

uint64_t RowsAfterGrowth(const RowSplit& before, const RowSplit& now, uint64_t remote_rows,
                         const Operation& operation) {
  if (before.rows == now.rows) return remote_rows;
  const uint64_t local_rows = std::min(before.rows - remote_rows, now.rows);
  const auto whole = [&now](double rows) {
    const uint64_t tiles = (static_cast<uint64_t>(rows) + now.tile_rows - 1) / now.tile_rows;
    return std::min(now.rows, tiles * now.tile_rows);
  };
  const double rows = static_cast<double>(now.rows);
  const double most = std::max(operation.max_ratio * rows, operation.min_ratio * rows);
  return whole(std::clamp(static_cast<double>(now.rows - local_rows), operation.min_ratio * rows, most));
}

uint64_t HbmBytes(const PassDescription& description, const Rows& remote_rows) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < remote_rows.size(); ++i) {
    bytes += (description.splits[i].rows - remote_rows[i]) * description.splits[i].row_bytes;
  }
  return bytes;
}

uint64_t StoredBytes(const PassDescription& description) {
  return HbmBytes(description, Rows(description.splits.size(), 0));
}

}  // namespace dak::planner::internal

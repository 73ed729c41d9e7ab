#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "allocator/extent_allocator.h"
#include "allocator/extent_allocator_rep.h"

namespace dak {
namespace {

absl::Status Broken(absl::string_view what, uint64_t offset) {
  return absl::InternalError(absl::StrCat(what, " at ", offset));
}

}  // namespace

absl::Status ExtentAllocator::CheckInvariants() const {
  if (const char* fault = rep_->by_size.FindFault()) return absl::InternalError(absl::StrCat("by size: ", fault));
  uint64_t capacity = 0, free = 0, extents = 0, free_extents = 0;
  uint64_t previous_end = 0;
  for (const auto& [offset, range] : rep_->ranges) {
    if (offset != range->offset) return Broken("range is kept under another offset", offset);
    if (range->length == 0 || range->length > kMostRangeUnits || offset + range->length < offset) {
      return Broken("range is out of bounds", offset);
    }
    if (offset < previous_end) return Broken("range overlaps the one before", offset);
    previous_end = offset + range->length;
    if (const char* fault = range->starts.FindFault()) return Broken(fault, offset);
    if (range->starts.empty() || DistanceOf(range->starts.First().key()) != 0) {
      return Broken("no extent is at the start of the range", offset);
    }
    bool previous_free = false;
    for (auto extent = range->starts.First(); !extent.at_end(); extent = extent.Next()) {
      const uint64_t start = DistanceOf(extent.key());
      const uint64_t end = range->EndBefore(extent.Next());
      if (end <= start || end > range->length) return Broken("extent is empty or passes its range", offset + start);
      if (IsFree(extent.key())) {
        if (previous_free) return Broken("two free extents touch", offset + start);
        if (rep_->by_size.Find(MakeSizeKey(end - start, offset + start)).at_end()) {
          return Broken("free extent isn't in the order of sizes", offset + start);
        }
        free += end - start;
        ++free_extents;
      }
      previous_free = IsFree(extent.key());
    }
    capacity += range->length;
    extents += range->starts.size();
  }
  // Every free extent is in the order of sizes, so equal numbers mean that nothing else is.
  if (free_extents != rep_->by_size.size()) {
    return absl::InternalError("the order of sizes holds something that isn't free");
  }
  if (extents != rep_->extents) return absl::InternalError("the number of extents isn't the sum of the ranges'");
  if (capacity != rep_->capacity) return absl::InternalError("capacity isn't the sum of the ranges");
  if (free != rep_->free) return absl::InternalError("free isn't the sum of the free extents");
  return absl::OkStatus();
}

}  // namespace dak

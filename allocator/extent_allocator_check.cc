#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "allocator/extent_allocator.h"
#include "allocator/extent_allocator_rep.h"

namespace dak {
namespace {

absl::Status Broken(absl::string_view what, uint64_t offset) {
  return absl::InternalError(absl::StrCat(what, " at ", offset));
}

// What the walk over all ranges adds up.
struct Totals {
  uint64_t capacity = 0;
  uint64_t free = 0;
  uint64_t extents = 0;
  uint64_t free_extents = 0;
};

// Walks one range; `*extent` starts at what must be its first extent and ends after its last.
template <typename Position, typename SizeIndex>
absl::Status CheckRange(uint64_t range_offset, uint64_t range_length, const SizeIndex& by_size, Position* extent,
                        Totals* totals) {
  bool previous_free = false;
  for (uint64_t at = range_offset; at - range_offset < range_length; *extent = extent->Next()) {
    if (extent->at_end() || extent->key() > at) return Broken("range has a gap", at);
    if (extent->key() < at) return Broken("extent lies outside of all ranges", extent->key());
    const ExtentInfo info = extent->value();
    if (info.length == 0) return Broken("extent is empty", at);
    if (info.length > range_length - (at - range_offset)) return Broken("extent passes its range's end", at);
    if (info.is_first != (at == range_offset)) return Broken("wrong mark of a range's first extent", at);
    if (info.is_free) {
      if (previous_free) return Broken("two free extents touch", at);
      if (by_size.Find(MakeSizeKey(info.length, at)).at_end()) {
        return Broken("free extent isn't in the order of sizes", at);
      }
      totals->free += info.length;
      ++totals->free_extents;
    }
    ++totals->extents;
    previous_free = info.is_free;
    at += info.length;
  }
  totals->capacity += range_length;
  return absl::OkStatus();
}

}  // namespace

absl::Status ExtentAllocator::CheckInvariants() const {
  if (const char* fault = rep_->extents.FindFault()) return absl::InternalError(absl::StrCat("by offset: ", fault));
  if (const char* fault = rep_->by_size.FindFault()) return absl::InternalError(absl::StrCat("by size: ", fault));

  Totals totals;
  uint64_t previous_end = 0;
  auto extent = rep_->extents.First();
  for (const auto& [offset, length] : rep_->ranges) {
    if (length == 0 || length > kMostUnits || offset > kMostUnits - length) {
      return Broken("range is out of bounds", offset);
    }
    if (offset < previous_end) return Broken("range overlaps the one before", offset);
    DAK_RETURN_IF_ERROR(CheckRange(offset, length, rep_->by_size, &extent, &totals));
    previous_end = offset + length;
  }
  if (!extent.at_end()) return Broken("extent lies outside of all ranges", extent.key());
  // Every free extent is in the order of sizes, so equal numbers mean that nothing else is.
  if (totals.free_extents != rep_->by_size.size()) {
    return absl::InternalError("the order of sizes holds something that isn't free");
  }
  if (totals.capacity != rep_->capacity) return absl::InternalError("capacity isn't the sum of the ranges");
  if (totals.free != rep_->free) return absl::InternalError("free isn't the sum of the free extents");
  return absl::OkStatus();
}

}  // namespace dak

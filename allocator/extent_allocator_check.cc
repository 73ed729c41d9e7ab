#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "allocator/extent_allocator.h"
#include "allocator/extent_allocator_rep.h"

namespace dak {
namespace {

using internal::ExtentEntry;

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

absl::Status CheckRange(const ExtentAllocator::Stats& stats, uint64_t offset, uint64_t length,
                        const internal::ExtentTable& extents,
                        const absl::btree_set<std::pair<uint64_t, uint64_t>>& by_size, Totals* totals) {
  uint64_t at = offset;
  uint64_t previous_length = 0;
  bool previous_free = false;
  while (at - offset < length) {
    const ExtentEntry* extent = extents.Find(at);
    if (extent == nullptr) return Broken("range has a gap", at);
    if (extent->length > length - (at - offset)) return Broken("extent passes its range's end", at);
    if (extent->previous_length != previous_length) return Broken("wrong length of the extent before", at);
    if (extent->is_last != (at - offset + extent->length == length)) return Broken("wrong mark of the last extent", at);
    if (extent->is_free) {
      if (previous_free) return Broken("two free extents touch", at);
      if (!by_size.contains({extent->length, at})) return Broken("free extent isn't in the order of sizes", at);
      if (extent->length > stats.largest_free) return Broken("free extent is larger than the largest", at);
      totals->free += extent->length;
      ++totals->free_extents;
    }
    ++totals->extents;
    previous_free = extent->is_free;
    previous_length = extent->length;
    at += extent->length;
  }
  totals->capacity += length;
  return absl::OkStatus();
}

}  // namespace

absl::Status ExtentAllocator::CheckInvariants() const {
  Totals totals;
  uint64_t range_end = 0;
  const Stats now = stats();
  for (const auto& [offset, length] : rep_->ranges) {
    if (length == 0) return Broken("range is empty", offset);
    if (offset < range_end) return Broken("ranges overlap", offset);
    if (absl::Status status = CheckRange(now, offset, length, rep_->extents, rep_->by_size, &totals); !status.ok()) {
      return status;
    }
    range_end = offset + length;
  }
  std::optional<uint64_t> lost;
  uint64_t seen = 0;
  rep_->extents.ForEach([&](const ExtentEntry& extent) {
    ++seen;
    if (rep_->extents.Find(extent.offset) != &extent) lost = extent.offset;
  });
  if (lost.has_value()) return Broken("extent can't be found by its offset", *lost);
  if (seen != rep_->extents.size()) return absl::InternalError("the table's size isn't its number of extents");
  if (totals.extents != seen) return absl::InternalError("an extent lies outside all ranges");
  if (totals.free_extents != rep_->by_size.size()) {
    return absl::InternalError("the order of sizes holds something that isn't free");
  }
  if (totals.capacity != rep_->capacity) return absl::InternalError("capacity isn't the sum of the ranges");
  if (totals.free != rep_->free) return absl::InternalError("free isn't the sum of the free extents");
  if (now.live_extents != totals.extents - totals.free_extents || now.ranges != rep_->ranges.size()) {
    return absl::InternalError("stats don't add up");
  }
  return absl::OkStatus();
}

}  // namespace dak

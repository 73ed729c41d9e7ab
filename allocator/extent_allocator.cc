#include "allocator/extent_allocator.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/extent_allocator_rep.h"

namespace dak {

using internal::ExtentEntry;

ExtentAllocator::ExtentAllocator() : rep_(std::make_unique<Rep>()) {}
ExtentAllocator::~ExtentAllocator() = default;
ExtentAllocator::ExtentAllocator(ExtentAllocator&&) noexcept = default;
ExtentAllocator& ExtentAllocator::operator=(ExtentAllocator&&) noexcept = default;

absl::Status ExtentAllocator::AddRange(Extent range) {
  if (range.length == 0) return absl::InvalidArgumentError(absl::StrCat("range at ", range.offset, " is empty"));
  const uint64_t most = std::numeric_limits<uint64_t>::max();
  if (range.length > most - range.offset || range.length > most - rep_->capacity) {
    return absl::InvalidArgumentError(
        absl::StrCat("range at ", range.offset, " of ", range.length, " units overflows 64 bits"));
  }
  const auto next = rep_->ranges.lower_bound(range.offset);
  const bool meets_next = next != rep_->ranges.end() && next->first - range.offset < range.length;
  bool meets_previous = false;
  if (next != rep_->ranges.begin()) {
    const auto previous = std::prev(next);
    meets_previous = range.offset - previous->first < previous->second;
  }
  if (meets_next || meets_previous) {
    return absl::InvalidArgumentError(
        absl::StrCat("range at ", range.offset, " of ", range.length, " units overlaps one that is there"));
  }
  rep_->ranges.emplace(range.offset, range.length);
  rep_->extents.Insert({.offset = range.offset, .length = range.length, .is_free = true, .is_last = true});
  rep_->by_size.emplace(range.length, range.offset);
  rep_->capacity += range.length;
  rep_->free += range.length;
  return absl::OkStatus();
}

absl::Status ExtentAllocator::RemoveRange(uint64_t offset) {
  const auto range = rep_->ranges.find(offset);
  if (range == rep_->ranges.end()) return absl::NotFoundError(absl::StrCat("no range starts at ", offset));
  if (!RangeIsFree(offset)) {
    return absl::FailedPreconditionError(absl::StrCat("something in the range at ", offset, " is live"));
  }
  rep_->by_size.erase({range->second, offset});
  rep_->extents.Erase(offset);
  rep_->capacity -= range->second;
  rep_->free -= range->second;
  rep_->ranges.erase(range);
  return absl::OkStatus();
}

bool ExtentAllocator::RangeIsFree(uint64_t offset) const {
  const auto range = rep_->ranges.find(offset);
  if (range == rep_->ranges.end()) return false;
  const ExtentEntry* first = rep_->extents.Find(offset);
  return first->is_free && first->length == range->second;
}

absl::StatusOr<Extent> ExtentAllocator::Allocate(uint64_t length) {
  if (length == 0) return absl::InvalidArgumentError("an extent of 0 units was asked for");
  auto best = rep_->by_size.lower_bound({length, 0});
  if (best == rep_->by_size.end()) {
    const uint64_t largest = stats().largest_free;
    return absl::ResourceExhaustedError(absl::StrCat(length, " units don't fit: the largest free extent has ", largest,
                                                     ", ", length - largest, " too few"));
  }
  const auto [found_length, offset] = *best;
  const uint64_t rest_offset = offset + length;
  const uint64_t rest_length = found_length - length;
  // These look-ups miss the cache when there are many extents: let them overlap with the work on by_size.
  rep_->extents.Prefetch(offset);
  if (rest_length != 0) {
    rep_->extents.Prefetch(rest_offset);
    rep_->extents.Prefetch(offset + found_length);
  }
  rep_->by_size.erase(best);
  if (rest_length != 0) rep_->by_size.emplace(rest_length, rest_offset);

  ExtentEntry* extent = rep_->extents.Find(offset);
  extent->is_free = false;
  if (rest_length != 0) {
    extent->length = length;
    const bool was_last = std::exchange(extent->is_last, false);
    if (!was_last) rep_->extents.Find(offset + found_length)->previous_length = rest_length;
    rep_->extents.Insert({.offset = rest_offset,
                          .length = rest_length,
                          .previous_length = length,
                          .is_free = true,
                          .is_last = was_last});
  }
  rep_->free -= length;
  return Extent{offset, length};
}

absl::Status ExtentAllocator::Free(uint64_t offset) {
  ExtentEntry* extent = rep_->extents.Find(offset);
  if (extent == nullptr || extent->is_free) {
    return absl::NotFoundError(absl::StrCat("no live extent starts at ", offset));
  }
  const ExtentEntry freed = *extent;
  const uint64_t next_offset = offset + freed.length;
  const uint64_t previous_offset = offset - freed.previous_length;
  if (freed.previous_length != 0) rep_->extents.Prefetch(previous_offset);
  if (!freed.is_last) rep_->extents.Prefetch(next_offset);

  ExtentEntry merged = freed;
  merged.is_free = true;
  uint64_t absorbed_next = 0;
  bool absorbed_previous = false;
  if (freed.previous_length != 0) {
    const ExtentEntry* previous = rep_->extents.Find(previous_offset);
    if (previous->is_free) {
      absorbed_previous = true;
      merged.offset = previous_offset;
      merged.length += previous->length;
      merged.previous_length = previous->previous_length;
    }
  }
  if (!freed.is_last) {
    const ExtentEntry* next = rep_->extents.Find(next_offset);
    if (next->is_free) {
      absorbed_next = next->length;
      merged.length += next->length;
      merged.is_last = next->is_last;
    }
  }
  if (absorbed_previous || absorbed_next != 0) {
    if (!merged.is_last) rep_->extents.Prefetch(merged.offset + merged.length);
  }
  if (absorbed_previous) rep_->by_size.erase({freed.previous_length, previous_offset});
  if (absorbed_next != 0) rep_->by_size.erase({absorbed_next, next_offset});
  rep_->by_size.emplace(merged.length, merged.offset);

  *rep_->extents.Find(merged.offset) = merged;
  if (!merged.is_last) rep_->extents.Find(merged.offset + merged.length)->previous_length = merged.length;
  if (absorbed_previous) rep_->extents.Erase(offset);
  if (absorbed_next != 0) rep_->extents.Erase(next_offset);
  rep_->free += freed.length;
  return absl::OkStatus();
}

ExtentAllocator::Stats ExtentAllocator::stats() const {
  return {.capacity = rep_->capacity,
          .free = rep_->free,
          .largest_free = rep_->by_size.empty() ? 0 : rep_->by_size.rbegin()->first,
          .live_extents = rep_->extents.size() - rep_->by_size.size(),
          .free_extents = rep_->by_size.size(),
          .ranges = rep_->ranges.size()};
}

}  // namespace dak

#include "allocator/extent_allocator.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "allocator/extent_allocator_rep.h"

namespace dak {
namespace {

absl::Status BadRange(Extent range, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("range at ", range.offset, " of ", range.length, " units ", problem));
}

}  // namespace

ExtentAllocator::ExtentAllocator() : rep_(std::make_unique<Rep>()) {}
ExtentAllocator::~ExtentAllocator() = default;
ExtentAllocator::ExtentAllocator(ExtentAllocator&&) noexcept = default;
ExtentAllocator& ExtentAllocator::operator=(ExtentAllocator&&) noexcept = default;

absl::Status ExtentAllocator::AddRange(Extent range) {
  if (range.length == 0) return BadRange(range, "is empty");
  if (range.length > kMostUnits || range.offset > kMostUnits - range.length) {
    return BadRange(range, absl::StrCat("overflows: it must end at or before ", kMostUnits));
  }
  const auto next = rep_->ranges.lower_bound(range.offset);
  const bool meets_next = next != rep_->ranges.end() && next->first - range.offset < range.length;
  bool meets_previous = false;
  if (next != rep_->ranges.begin()) {
    const auto previous = std::prev(next);
    meets_previous = range.offset - previous->first < previous->second;
  }
  if (meets_next || meets_previous) return BadRange(range, "overlaps one that is there");
  rep_->ranges.emplace(range.offset, range.length);
  rep_->extents.Insert(range.offset, {.length = range.length, .is_free = 1, .is_first = 1});
  rep_->by_size.Insert(MakeSizeKey(range.length, range.offset), {});
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
  rep_->by_size.Erase(MakeSizeKey(range->second, offset));
  rep_->extents.Erase(offset);
  rep_->capacity -= range->second;
  rep_->free -= range->second;
  rep_->ranges.erase(range);
  return absl::OkStatus();
}

bool ExtentAllocator::RangeIsFree(uint64_t offset) const {
  const auto range = rep_->ranges.find(offset);
  if (range == rep_->ranges.end()) return false;
  const ExtentInfo& first = rep_->extents.Find(offset).value();
  return first.is_free && first.length == range->second;
}

absl::StatusOr<Extent> ExtentAllocator::Allocate(uint64_t length) {
  if (length == 0) return absl::InvalidArgumentError("an extent of 0 units was asked for");
  const auto best = rep_->by_size.LowerBound(MakeSizeKey(length, 0));
  if (best.at_end()) {
    const uint64_t largest = stats().largest_free;
    return absl::ResourceExhaustedError(absl::StrCat(length, " units don't fit: the largest free extent has ", largest,
                                                     ", ", length - largest, " too few"));
  }
  const SizeKey found = best.key();
  const uint64_t offset = OffsetOf(found);
  const uint64_t rest_length = LengthOf(found) - length;
  rep_->by_size.Erase(found);
  ExtentInfo& extent = rep_->extents.Find(offset).value();
  extent.length = length;
  extent.is_free = 0;
  if (rest_length != 0) {
    rep_->by_size.Insert(MakeSizeKey(rest_length, offset + length), {});
    rep_->extents.Insert(offset + length, {.length = rest_length, .is_free = 1, .is_first = 0});
  }
  rep_->free -= length;
  return Extent{offset, length};
}

absl::Status ExtentAllocator::Free(uint64_t offset) {
  const auto extent = offset > kMostUnits ? rep_->extents.End() : rep_->extents.Find(offset);
  if (extent.at_end() || extent.value().is_free) {
    return absl::NotFoundError(absl::StrCat("no live extent starts at ", offset));
  }
  const ExtentInfo freed = extent.value();
  const auto next = extent.Next();
  const auto previous = extent.Previous();
  const bool melts_next = !next.at_end() && next.value().is_free && !next.value().is_first;
  const bool melts_previous = !freed.is_first && previous.value().is_free;
  const uint64_t next_length = melts_next ? next.value().length : 0;
  const uint64_t previous_length = melts_previous ? previous.value().length : 0;
  const uint64_t length = previous_length + freed.length + next_length;

  ExtentInfo& melted = (melts_previous ? previous : extent).value();
  melted.length = length;
  melted.is_free = 1;
  if (melts_previous) {
    rep_->by_size.Erase(MakeSizeKey(previous_length, offset - previous_length));
    rep_->extents.Erase(offset);
  }
  if (melts_next) {
    rep_->by_size.Erase(MakeSizeKey(next_length, offset + freed.length));
    rep_->extents.Erase(offset + freed.length);
  }
  rep_->by_size.Insert(MakeSizeKey(length, offset - previous_length), {});
  rep_->free += freed.length;
  return absl::OkStatus();
}

ExtentAllocator::Stats ExtentAllocator::stats() const {
  return {.capacity = rep_->capacity,
          .free = rep_->free,
          .largest_free = rep_->by_size.empty() ? 0 : LengthOf(rep_->by_size.Last().key()),
          .live_extents = rep_->extents.size() - rep_->by_size.size(),
          .free_extents = rep_->by_size.size(),
          .ranges = rep_->ranges.size()};
}

}  // namespace dak

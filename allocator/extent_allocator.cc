#include "allocator/extent_allocator.h"

#include <iterator>
#include <limits>
#include <utility>

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

ExtentAllocator::Rep::Range* ExtentAllocator::Rep::RangeOf(uint64_t offset) const {
  const auto after = ranges.upper_bound(offset);
  if (after == ranges.begin()) return nullptr;
  Range* range = std::prev(after)->second.get();
  return offset - range->offset < range->length ? range : nullptr;
}

absl::Status ExtentAllocator::AddRange(Extent range) {
  if (range.length == 0) return BadRange(range, "is empty");
  if (range.length > kMostRangeUnits) return BadRange(range, absl::StrCat("is longer than ", kMostRangeUnits));
  const uint64_t most = std::numeric_limits<uint64_t>::max();
  if (range.length > most - range.offset) return BadRange(range, "ends past 64 bits");
  if (range.length > most - rep_->capacity) return BadRange(range, "makes the capacity overflow");
  const auto next = rep_->ranges.lower_bound(range.offset);
  const bool meets_next = next != rep_->ranges.end() && next->first - range.offset < range.length;
  if (meets_next || rep_->RangeOf(range.offset) != nullptr) return BadRange(range, "overlaps one that is there");

  auto added = std::make_unique<Rep::Range>();
  added->offset = range.offset;
  added->length = range.length;
  added->starts.Insert(MakeStartKey(0, /*is_free=*/true), {});
  rep_->ranges.emplace(range.offset, std::move(added));
  rep_->by_size.Insert(MakeSizeKey(range.length, range.offset), {});
  rep_->capacity += range.length;
  rep_->free += range.length;
  ++rep_->extents;
  return absl::OkStatus();
}

absl::Status ExtentAllocator::RemoveRange(uint64_t offset) {
  const auto range = rep_->ranges.find(offset);
  if (range == rep_->ranges.end()) return absl::NotFoundError(absl::StrCat("no range starts at ", offset));
  if (!RangeIsFree(offset)) {
    return absl::FailedPreconditionError(absl::StrCat("something in the range at ", offset, " is live"));
  }
  const uint64_t length = range->second->length;
  rep_->by_size.Erase(MakeSizeKey(length, offset));
  rep_->capacity -= length;
  rep_->free -= length;
  --rep_->extents;
  rep_->ranges.erase(range);
  return absl::OkStatus();
}

bool ExtentAllocator::RangeIsFree(uint64_t offset) const {
  const auto range = rep_->ranges.find(offset);
  if (range == rep_->ranges.end()) return false;
  const Rep::Starts& starts = range->second->starts;
  return starts.size() == 1 && IsFree(starts.First().key());
}

absl::StatusOr<Extent> ExtentAllocator::Allocate(uint64_t length) {
  if (length == 0) return absl::InvalidArgumentError("an extent of 0 units was asked for");
  const auto best = rep_->by_size.LowerBound(MakeSizeKey(length, 0));
  if (best.at_end()) {
    const uint64_t largest = stats().largest_free;
    return absl::ResourceExhaustedError(absl::StrCat(length, " units don't fit: the largest free extent has ", largest,
                                                     ", ", length - largest, " too few"));
  }
  const uint64_t offset = OffsetOf(best.key());
  const uint64_t rest_length = LengthOf(best.key()) - length;
  rep_->by_size.EraseAt(best);

  Rep::Range& range = *rep_->RangeOf(offset);
  const uint64_t start = offset - range.offset;
  const auto extent = range.starts.Find(MakeStartKey(start, /*is_free=*/true));
  extent.Retag(MakeStartKey(start, /*is_free=*/false));
  if (rest_length != 0) {
    rep_->by_size.Insert(MakeSizeKey(rest_length, offset + length), {});
    range.starts.InsertNear(extent, MakeStartKey(start + length, /*is_free=*/true), {});
    ++rep_->extents;
  }
  rep_->free -= length;
  return Extent{offset, length};
}

absl::Status ExtentAllocator::Free(uint64_t offset) {
  Rep::Range* const range = rep_->RangeOf(offset);
  const uint64_t start = range == nullptr ? 0 : offset - range->offset;
  const auto extent = range == nullptr ? Rep::Starts::Position() : range->starts.Find(MakeStartKey(start, false));
  if (extent.at_end()) return absl::NotFoundError(absl::StrCat("no live extent starts at ", offset));

  const auto next = extent.Next();
  const auto previous = extent.Previous();
  const uint64_t end = range->EndBefore(next);
  const bool melts_next = !next.at_end() && IsFree(next.key());
  const bool melts_previous = !previous.at_end() && IsFree(previous.key());
  const uint64_t melted_start = melts_previous ? DistanceOf(previous.key()) : start;
  const uint64_t melted_end = melts_next ? range->EndBefore(next.Next()) : end;

  extent.Retag(MakeStartKey(start, /*is_free=*/true));
  if (melts_next) {
    rep_->by_size.Erase(MakeSizeKey(melted_end - end, range->offset + end));
    --rep_->extents;
  }
  if (melts_previous) {
    rep_->by_size.Erase(MakeSizeKey(start - melted_start, range->offset + melted_start));
    --rep_->extents;
  }
  // Erasing one may move the other, which then is found by its key.
  if (melts_next) range->starts.EraseAt(next);
  if (melts_previous && melts_next) range->starts.Erase(MakeStartKey(start, /*is_free=*/true));
  if (melts_previous && !melts_next) range->starts.EraseAt(extent);
  rep_->by_size.Insert(MakeSizeKey(melted_end - melted_start, range->offset + melted_start), {});
  rep_->free += end - start;
  return absl::OkStatus();
}

ExtentAllocator::Stats ExtentAllocator::stats() const {
  return {.capacity = rep_->capacity,
          .free = rep_->free,
          .largest_free = rep_->by_size.empty() ? 0 : LengthOf(rep_->by_size.Last().key()),
          .live_extents = rep_->extents - rep_->by_size.size(),
          .free_extents = rep_->by_size.size(),
          .ranges = rep_->ranges.size()};
}

}  // namespace dak

#include "daemon/session/arena.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "daemon/session/limits.h"

namespace dak::daemon {

uint64_t BlocksOf(uint64_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes; }

TierArray BytesOf(const std::vector<OwnedSegment>& segments) {
  TierArray bytes{};
  for (const OwnedSegment& segment : segments) bytes[TierIndex(segment.memory->tier())] += segment.memory->bytes();
  return bytes;
}

bool Arena::Place(TensorPart& part) {
  if (segments_.empty()) return false;
  absl::StatusOr<Extent> extent = extents_.Allocate(BlocksOf(part.bytes));
  if (!extent.ok()) return false;
  const auto segment = std::prev(segments_.upper_bound(extent->offset));
  part.arena_offset = extent->offset;
  part.segment_id = segment->second.id;
  part.offset_bytes = (extent->offset - segment->first) * kBlockBytes;
  return true;
}

void Arena::AddSegment(OwnedSegment segment) {
  const uint64_t blocks = segment.memory->bytes() / kBlockBytes;
  segment_bytes_ += segment.memory->bytes();
  extents_.AddRange({.offset = next_base_, .length = blocks}).IgnoreError();  // bases never repeat
  segments_.emplace(next_base_, std::move(segment));
  next_base_ += blocks;
}

std::optional<OwnedSegment> Arena::Free(const TensorPart& part) {
  if (!extents_.Free(part.arena_offset).ok()) return std::nullopt;
  const auto it = std::prev(segments_.upper_bound(part.arena_offset));
  if (!extents_.RangeIsFree(it->first)) return std::nullopt;
  extents_.RemoveRange(it->first).IgnoreError();  // wholly free, as was just checked
  OwnedSegment segment = std::move(it->second);
  segment_bytes_ -= segment.memory->bytes();
  segments_.erase(it);
  return segment;
}

std::vector<OwnedSegment> Arena::TakeAll() {
  std::vector<OwnedSegment> taken;
  taken.reserve(segments_.size());
  for (auto& [base, segment] : segments_) taken.push_back(std::move(segment));
  segments_.clear();
  extents_ = ExtentAllocator();
  segment_bytes_ = 0;
  return taken;
}

std::vector<const OwnedSegment*> Arena::Segments() const {
  std::vector<const OwnedSegment*> all;
  all.reserve(segments_.size());
  for (const auto& [base, segment] : segments_) all.push_back(&segment);
  return all;
}

std::vector<OwnedSegment*> Arena::MutableSegments() {
  std::vector<OwnedSegment*> all;
  all.reserve(segments_.size());
  for (auto& [base, segment] : segments_) all.push_back(&segment);
  return all;
}

const OwnedSegment& Arena::SegmentOf(const TensorPart& part) const {
  return std::prev(segments_.upper_bound(part.arena_offset))->second;
}

TierArray Group::SegmentBytes() const {
  TierArray bytes{};
  for (size_t i = 0; i < kTierCount; ++i) bytes[i] = arenas[i].segment_bytes();
  return bytes;
}

std::vector<OwnedSegment> Group::TakeAllSegments() {
  std::vector<OwnedSegment> all;
  for (Arena& arena : arenas) {
    std::vector<OwnedSegment> taken = arena.TakeAll();
    all.insert(all.end(), std::make_move_iterator(taken.begin()), std::make_move_iterator(taken.end()));
  }
  return all;
}

void PlacementStats::Add(const Group& group) {
  for (size_t i = 0; i < kTierCount; ++i) {
    const ExtentAllocator::Stats stats = group.arenas[i].extents().stats();
    const size_t at = group.demoted && i == TierIndex(Tier::kHbm) ? TierIndex(kDemotedTier) : i;
    segment_count[at] += group.arenas[i].segment_count();
    unplaced_bytes[at] += stats.free * kBlockBytes;
    largest_unplaced_bytes[at] = std::max(largest_unplaced_bytes[at], stats.largest_free * kBlockBytes);
  }
}

void PlacementStats::Add(const PlacementStats& other) {
  for (size_t i = 0; i < kTierCount; ++i) {
    segment_count[i] += other.segment_count[i];
    unplaced_bytes[i] += other.unplaced_bytes[i];
    largest_unplaced_bytes[i] = std::max(largest_unplaced_bytes[i], other.largest_unplaced_bytes[i]);
  }
}

}  // namespace dak::daemon

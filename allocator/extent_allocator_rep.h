// What an ExtentAllocator is made of. Internal: only the allocator and the tests of its CheckInvariants include it.
//
// Each range is tiled without gaps by extents, free and live, so an extent is known by where it starts: it ends where
// the next one starts. A range keeps just these starts, with one bit for free, as sorted 32-bit numbers: about 7 bytes
// an extent. A million extents so stay in a cache of ordinary size, and an extent's neighbours are found beside it.
// The free extents of all ranges are also kept by (length, offset): the first that isn't below (length, 0) is the best
// fit, the last the largest.
// Invariant: no two free extents of one range touch. Thread safety: none.
#ifndef DAK_ALLOCATOR_EXTENT_ALLOCATOR_REP_H_
#define DAK_ALLOCATOR_EXTENT_ALLOCATOR_REP_H_

#include <cstdint>
#include <memory>

#include "absl/container/btree_map.h"
#include "allocator/extent_allocator.h"
#include "allocator/ordered_index.h"

namespace dak {

struct Nothing {};

// An extent of a range: twice its distance from the range's start, plus 1 if it is free.
using StartKey = uint32_t;
constexpr StartKey MakeStartKey(uint64_t distance, bool is_free) {
  return static_cast<StartKey>(distance) * 2 + (is_free ? 1 : 0);
}
constexpr uint64_t DistanceOf(StartKey key) { return key / 2; }
constexpr bool IsFree(StartKey key) { return key % 2 == 1; }

// A free extent: (length, offset), so that keys sort as the best fit wants them.
using SizeKey = unsigned __int128;
constexpr SizeKey MakeSizeKey(uint64_t length, uint64_t offset) { return SizeKey{length} << 64 | offset; }
constexpr uint64_t LengthOf(SizeKey key) { return static_cast<uint64_t>(key >> 64); }
constexpr uint64_t OffsetOf(SizeKey key) { return static_cast<uint64_t>(key); }

struct ExtentAllocator::Rep {
  using Starts = internal::OrderedIndex<StartKey, Nothing, 128, 64, /*kTagBits=*/1>;
  struct Range {
    uint64_t offset = 0;
    uint64_t length = 0;
    Starts starts;

    // Where the extent before `next` ends.
    uint64_t EndBefore(const Starts::Position& next) const { return next.at_end() ? length : DistanceOf(next.key()); }
  };

  // The range that `offset` lies in, or null.
  Range* RangeOf(uint64_t offset) const;

  absl::btree_map<uint64_t, std::unique_ptr<Range>> ranges;  // by offset
  internal::OrderedIndex<SizeKey, Nothing, 16, 16> by_size;
  uint64_t capacity = 0;
  uint64_t free = 0;
  uint64_t extents = 0;  // live and free
};

}  // namespace dak

#endif  // DAK_ALLOCATOR_EXTENT_ALLOCATOR_REP_H_

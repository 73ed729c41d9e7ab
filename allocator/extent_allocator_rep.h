// What an ExtentAllocator is made of. Internal: only the allocator and the tests of its CheckInvariants include it.
//
// Three structures over the same extents:
//   ranges   what was added, by offset; each range is tiled without gaps by extents, free and live;
//   extents  all of them, by offset: neighbours in memory are mostly neighbours in a leaf;
//   by_size  the free ones by (length, offset): the first that isn't below (length, 0) is the best fit, the last the
//            largest.
// Invariant: no two free extents of one range touch. Thread safety: none.
#ifndef DAK_ALLOCATOR_EXTENT_ALLOCATOR_REP_H_
#define DAK_ALLOCATOR_EXTENT_ALLOCATOR_REP_H_

#include <cstdint>

#include "absl/container/btree_map.h"
#include "allocator/extent_allocator.h"
#include "allocator/ordered_index.h"

namespace dak {

// What is known of the extent at an offset.
struct ExtentInfo {
  uint64_t length : 62;
  uint64_t is_free : 1;
  uint64_t is_first : 1;  // of its range: never merged with what lies before it
};
static_assert(sizeof(ExtentInfo) == 8);

// (length, offset), so that keys sort as the best fit wants them.
using SizeKey = unsigned __int128;
constexpr SizeKey MakeSizeKey(uint64_t length, uint64_t offset) { return SizeKey{length} << 64 | offset; }
constexpr uint64_t LengthOf(SizeKey key) { return static_cast<uint64_t>(key >> 64); }
constexpr uint64_t OffsetOf(SizeKey key) { return static_cast<uint64_t>(key); }

struct ExtentAllocator::Rep {
  struct Nothing {};

  absl::btree_map<uint64_t, uint64_t> ranges;  // offset to length
  internal::OrderedIndex<uint64_t, ExtentInfo, 16, 32> extents;
  internal::OrderedIndex<SizeKey, Nothing, 16, 16> by_size;
  uint64_t capacity = 0;
  uint64_t free = 0;
};

}  // namespace dak

#endif  // DAK_ALLOCATOR_EXTENT_ALLOCATOR_REP_H_

// What an ExtentAllocator is made of. Internal: only the allocator and the tests of its CheckInvariants include it.
//
// Three structures over the same extents:
//   ranges   what was added, by offset; each range is tiled without gaps by extents, free and live;
//   extents  all of them, by offset (extent_table.h);
//   by_size  the free ones by (length, offset): its first element not under (length, 0) is the best fit, its last the
//            largest free extent.
// Invariant: no two free extents of one range touch. Thread safety: none.
#ifndef DAK_ALLOCATOR_EXTENT_ALLOCATOR_REP_H_
#define DAK_ALLOCATOR_EXTENT_ALLOCATOR_REP_H_

#include <cstdint>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "allocator/extent_allocator.h"
#include "allocator/extent_table.h"

namespace dak {

struct ExtentAllocator::Rep {
  absl::btree_map<uint64_t, uint64_t> ranges;  // offset to length
  internal::ExtentTable extents;
  absl::btree_set<std::pair<uint64_t, uint64_t>> by_size;  // (length, offset)
  uint64_t capacity = 0;
  uint64_t free = 0;
};

}  // namespace dak

#endif  // DAK_ALLOCATOR_EXTENT_ALLOCATOR_REP_H_

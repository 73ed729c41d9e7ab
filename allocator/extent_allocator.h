// Best-fit placement of extents in a range of units, with coalescing.
//
// An ExtentAllocator hands out disjoint extents [offset, offset + length) of one or more disjoint ranges that its
// owner added. It holds no memory itself: units are whatever the owner says (pools count 2 MiB granules, arenas 4 KiB
// blocks). Allocation takes the smallest free extent that fits, the lowest offset among equals; a freed extent is
// merged with its free neighbours inside the same range, never across two ranges. Both are O(log n) in the number of
// extents.
//
// Thread safety: none; its owner locks.
// Errors: a status that changed nothing.
#ifndef DAK_ALLOCATOR_EXTENT_ALLOCATOR_H_
#define DAK_ALLOCATOR_EXTENT_ALLOCATOR_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dak {

struct Extent {
  uint64_t offset = 0;  // units
  uint64_t length = 0;  // units
  friend bool operator==(const Extent&, const Extent&) = default;
};

class ExtentAllocator {
 public:
  struct Stats {
    uint64_t capacity = 0;      // units in all ranges
    uint64_t free = 0;          // units
    uint64_t largest_free = 0;  // units
    uint64_t live_extents = 0;
    uint64_t free_extents = 0;
    uint64_t ranges = 0;
    // External fragmentation: 1 - largest_free / free; 0 where nothing is free.
    double fragmentation() const {
      return free == 0 ? 0.0 : 1.0 - static_cast<double>(largest_free) / static_cast<double>(free);
    }
  };

  // A range's longest length: 8 TiB of 4 KiB blocks. Any number of ranges may lie anywhere in 64 bits.
  static constexpr uint64_t kMostRangeUnits = (uint64_t{1} << 31) - 1;

  ExtentAllocator();
  ~ExtentAllocator();
  ExtentAllocator(ExtentAllocator&&) noexcept;
  ExtentAllocator& operator=(ExtentAllocator&&) noexcept;

  // Adds a free range. INVALID_ARGUMENT if it is empty, longer than kMostRangeUnits, ends past 64 bits or
  // overlaps one that is there.
  absl::Status AddRange(Extent range);
  // Removes a range that is wholly free. FAILED_PRECONDITION if something in it is live, NOT_FOUND if there is none.
  absl::Status RemoveRange(uint64_t offset);
  // True if the range that starts at `offset` has no live extent.
  bool RangeIsFree(uint64_t offset) const;

  // RESOURCE_EXHAUSTED (with the shortfall in units against the largest free extent, as text) if nothing fits.
  // INVALID_ARGUMENT for length 0.
  absl::StatusOr<Extent> Allocate(uint64_t length);
  // NOT_FOUND unless a live extent starts at `offset`.
  absl::Status Free(uint64_t offset);

  Stats stats() const;

  // Checks every invariant, in O(n log n): for tests. INTERNAL names the one that is broken.
  absl::Status CheckInvariants() const;

 private:
  friend class ExtentAllocatorPeer;  // tests of CheckInvariants
  struct Rep;
  std::unique_ptr<Rep> rep_;
};

}  // namespace dak

#endif  // DAK_ALLOCATOR_EXTENT_ALLOCATOR_H_

// The extents of an ExtentAllocator, found by their offset: an open-addressing hash table of 32-byte entries.
//
// The entries themselves sit in the table, so finding an extent costs one cache miss, and its neighbours in address
// order are two further look-ups (offset + length, offset - previous_length) that don't wait for each other. Entries
// never straddle a cache line. Collisions probe the next slots; erasing moves later entries back, so there are no
// tombstones and look-ups don't slow down with age. The table doubles at three quarters full and never shrinks: its
// size follows the most extents there ever were.
//
// Internal to the allocator. Thread safety: none. Pointers to entries hold until the next Insert or Erase.
#ifndef DAK_ALLOCATOR_EXTENT_TABLE_H_
#define DAK_ALLOCATOR_EXTENT_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace dak::internal {

struct alignas(32) ExtentEntry {
  uint64_t offset = 0;           // units
  uint64_t length = 0;           // units; 0: the slot is empty
  uint64_t previous_length = 0;  // of the extent before it in its range; 0: it is the range's first
  bool is_free = false;
  bool is_last = false;  // of its range
};
static_assert(sizeof(ExtentEntry) == 32);

class ExtentTable {
 public:
  ExtentTable();

  // Null if no extent starts at `offset`.
  ExtentEntry* Find(uint64_t offset) {
    for (size_t slot = HomeOf(offset);; slot = (slot + 1) & mask_) {
      if (slots_[slot].length == 0) return nullptr;
      if (slots_[slot].offset == offset) return &slots_[slot];
    }
  }
  const ExtentEntry* Find(uint64_t offset) const { return const_cast<ExtentTable*>(this)->Find(offset); }

  // Starts loading what Find(offset) will read.
  void Prefetch(uint64_t offset) const { __builtin_prefetch(&slots_[HomeOf(offset)], 1); }

  // Precondition: entry.length != 0 and no extent starts at entry.offset.
  void Insert(const ExtentEntry& entry);
  // Precondition: an extent starts at `offset`.
  void Erase(uint64_t offset);

  size_t size() const { return size_; }

  // Calls visit(entry) for each entry, in no order.
  template <typename Visitor>
  void ForEach(Visitor visit) const {
    for (size_t slot = 0; slot <= mask_; ++slot) {
      if (slots_[slot].length != 0) visit(slots_[slot]);
    }
  }

 private:
  struct Release {
    void operator()(ExtentEntry* slots) const;
  };
  using Slots = std::unique_ptr<ExtentEntry[], Release>;

  static Slots MakeSlots(size_t count);
  // Offsets tend to be multiples of something: multiply, and take the high bits.
  size_t HomeOf(uint64_t offset) const {
    const uint64_t mixed = (offset ^ (offset >> 32)) * 0x9e3779b97f4a7c15;
    return mixed >> shift_;
  }
  void Place(const ExtentEntry& entry);
  void Grow();

  Slots slots_;
  size_t mask_;  // slots - 1; a power of two less one
  int shift_;    // 64 - log2(slots)
  size_t size_ = 0;
};

}  // namespace dak::internal

#endif  // DAK_ALLOCATOR_EXTENT_TABLE_H_

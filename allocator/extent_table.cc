#include "allocator/extent_table.h"

#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <new>
#include <utility>

namespace dak::internal {
namespace {

constexpr size_t kFirstSlots = 64;
constexpr size_t kHugePageBytes = size_t{2} << 20;

}  // namespace

void ExtentTable::Release::operator()(ExtentEntry* slots) const { std::free(slots); }

ExtentTable::Slots ExtentTable::MakeSlots(size_t count) {
  const size_t bytes = count * sizeof(ExtentEntry);
  const bool huge = bytes >= kHugePageBytes;
  void* memory = std::aligned_alloc(huge ? kHugePageBytes : 64, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  // Look-ups are random: with 4 KiB pages most of them would also miss the TLB. Only advice, so failure is no matter.
  if (huge) (void)madvise(memory, bytes, MADV_HUGEPAGE);
  auto* slots = static_cast<ExtentEntry*>(memory);
  for (size_t i = 0; i < count; ++i) new (&slots[i]) ExtentEntry();
  return Slots(slots);
}

ExtentTable::ExtentTable()
    : slots_(MakeSlots(kFirstSlots)), mask_(kFirstSlots - 1), shift_(64 - std::countr_zero(kFirstSlots)) {}

void ExtentTable::Place(const ExtentEntry& entry) {
  size_t slot = HomeOf(entry.offset);
  while (slots_[slot].length != 0) slot = (slot + 1) & mask_;
  slots_[slot] = entry;
}

void ExtentTable::Insert(const ExtentEntry& entry) {
  if ((size_ + 1) * 4 > (mask_ + 1) * 3) Grow();
  Place(entry);
  ++size_;
}

void ExtentTable::Erase(uint64_t offset) {
  size_t hole = static_cast<size_t>(Find(offset) - slots_.get());
  // An entry may move back into the hole unless its home lies after the hole (cyclically): then a look-up from its
  // home wouldn't pass the hole.
  for (size_t slot = (hole + 1) & mask_; slots_[slot].length != 0; slot = (slot + 1) & mask_) {
    const size_t home = HomeOf(slots_[slot].offset);
    if (((slot - home) & mask_) >= ((slot - hole) & mask_)) {
      slots_[hole] = slots_[slot];
      hole = slot;
    }
  }
  slots_[hole] = ExtentEntry();
  --size_;
}

void ExtentTable::Grow() {
  const size_t old_count = mask_ + 1;
  Slots old = std::exchange(slots_, MakeSlots(old_count * 2));
  mask_ = old_count * 2 - 1;
  --shift_;
  for (size_t slot = 0; slot < old_count; ++slot) {
    if (old[slot].length != 0) Place(old[slot]);
  }
}

}  // namespace dak::internal

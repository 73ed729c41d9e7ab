// A node of an OrderedIndex: sorted keys and what belongs to each, in two arrays of one capacity.
//
// Keys past `count` are the largest key there is, so that searches need no count and take a fixed number of steps.
// Internal to the allocator.
#ifndef DAK_ALLOCATOR_INDEX_NODE_H_
#define DAK_ALLOCATOR_INDEX_NODE_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace dak::internal {

template <typename Key, typename Payload, int kCapacity>
struct alignas(64) IndexNode {
  static_assert(kCapacity >= 4 && (kCapacity & (kCapacity - 1)) == 0, "searches halve the capacity");
  static constexpr Key kNoKey = ~Key{0};
  static constexpr int kLeast = std::max(kCapacity / 4, 2);

  IndexNode() { std::fill(keys, keys + kCapacity, kNoKey); }

  // How many keys are below `key`.
  int CountBelow(const Key& key) const {
    const int below = Narrow([this, &key](int i) { return keys[i - 1] < key; });
    return below + (keys[below] < key ? 1 : 0);
  }
  // The last child whose separator isn't above `key`; the first child's separator counts as below all.
  int ChildFor(const Key& key) const {
    return Narrow([this, &key](int i) { return keys[i] <= key; });
  }
  void Prefetch() const {
    const auto* bytes = reinterpret_cast<const char*>(this);
    for (size_t at = 0; at < sizeof(*this); at += 64) __builtin_prefetch(bytes + at);
  }

  void InsertAt(int slot, const Key& key, const Payload& value) {
    std::copy_backward(keys + slot, keys + count, keys + count + 1);
    keys[slot] = key;
    if constexpr (kHasPayload) {
      std::copy_backward(payload + slot, payload + count, payload + count + 1);
      payload[slot] = value;
    }
    ++count;
  }
  void EraseAt(int slot) { CloseGap(slot, slot + 1); }
  // Moves the entries from `from` on to the front of `right`, which follows this node.
  void MoveTail(int from, IndexNode* right) {
    const int moved = count - from;
    std::copy_backward(right->keys, right->keys + right->count, right->keys + right->count + moved);
    std::copy(keys + from, keys + count, right->keys);
    if constexpr (kHasPayload) {
      std::copy_backward(right->payload, right->payload + right->count, right->payload + right->count + moved);
      std::copy(payload + from, payload + count, right->payload);
    }
    right->count += moved;
    CloseGap(from, count);
  }
  // Moves the first `moved` entries of `right` to the end of this node.
  void TakeHead(int moved, IndexNode* right) {
    std::copy(right->keys, right->keys + moved, keys + count);
    if constexpr (kHasPayload) std::copy(right->payload, right->payload + moved, payload + count);
    count += moved;
    right->CloseGap(0, moved);
  }
  // Evens out two neighbours; false if all went into this one. A melted node is at most three quarters full, so that
  // the next insertions don't split it again.
  bool Balance(IndexNode* right) {
    const int total = count + right->count;
    if (total <= kCapacity * 3 / 4) {
      TakeHead(right->count, right);
      return false;
    }
    const int half = total / 2;
    if (count > half) {
      MoveTail(half, right);
    } else {
      TakeHead(half - count, right);
    }
    return true;
  }

  Key keys[kCapacity];
  static constexpr bool kHasPayload = !std::is_empty_v<Payload>;
  Payload payload[kHasPayload ? kCapacity : 1];
  int count = 0;

 private:
  // Drops the entries in [from, to).
  void CloseGap(int from, int to) {
    std::copy(keys + to, keys + count, keys + from);
    if constexpr (kHasPayload) std::copy(payload + to, payload + count, payload + from);
    const int left = count - (to - from);
    std::fill(keys + left, keys + count, kNoKey);
    count = left;
  }
  // The largest i below kCapacity for which `holds(i)`, where it holds up to some i and not after; 0 if it never does.
  // Four-way: three comparisons that don't wait for each other cost little more than one.
  template <typename Predicate>
  static int Narrow(Predicate holds) {
    int found = 0;
    int step = kCapacity;
    if constexpr (kOddPower) {
      step /= 2;
      found += holds(step) ? step : 0;
    }
#pragma GCC unroll 4
    while (step > 1) {
      step /= 4;
      found += step * (int{holds(found + step)} + int{holds(found + 2 * step)} + int{holds(found + 3 * step)});
    }
    return found;
  }
  static constexpr bool kOddPower = std::countr_zero(static_cast<unsigned>(kCapacity)) % 2 == 1;
};

}  // namespace dak::internal

#endif  // DAK_ALLOCATOR_INDEX_NODE_H_

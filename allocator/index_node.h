// A node of an OrderedIndex: sorted keys and what belongs to each, in two arrays of one capacity.
//
// Keys past `count` are the largest key there is, so that searches need no count and take a fixed number of steps.
// Internal to the allocator.
#ifndef DAK_ALLOCATOR_INDEX_NODE_H_
#define DAK_ALLOCATOR_INDEX_NODE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace dak::internal {

template <typename Key, typename Payload, int kCapacity>
struct alignas(64) IndexNode {
  static_assert(kCapacity >= 4 && (kCapacity & (kCapacity - 1)) == 0, "searches halve the capacity");
  static constexpr Key kNoKey = ~Key{0};
  static constexpr int kLeast = std::max(kCapacity / 4, 2);

  IndexNode() { std::fill(keys, keys + kCapacity, kNoKey); }

  // How many keys are below `key`.
  int CountBelow(const Key& key) const {
    int below = 0;
    for (int half = kCapacity / 2; half >= 1; half /= 2) below += keys[below + half - 1] < key ? half : 0;
    return below + (keys[below] < key ? 1 : 0);
  }
  // The last child whose separator isn't above `key`; the first child's separator counts as below all.
  int ChildFor(const Key& key) const {
    int child = 0;
    for (int half = kCapacity / 2; half >= 1; half /= 2) child += keys[child + half] <= key ? half : 0;
    return child;
  }
  void Prefetch() const {
    const auto* bytes = reinterpret_cast<const char*>(this);
    for (size_t at = 0; at < sizeof(*this); at += 64) __builtin_prefetch(bytes + at);
  }

  void InsertAt(int slot, const Key& key, const Payload& value) {
    std::copy_backward(keys + slot, keys + count, keys + count + 1);
    std::copy_backward(payload + slot, payload + count, payload + count + 1);
    keys[slot] = key;
    payload[slot] = value;
    ++count;
  }
  void EraseAt(int slot) {
    std::copy(keys + slot + 1, keys + count, keys + slot);
    std::copy(payload + slot + 1, payload + count, payload + slot);
    --count;
    keys[count] = kNoKey;
  }
  // Moves the entries from `from` on to the front of `right`, which follows this node.
  void MoveTail(int from, IndexNode* right) {
    const int moved = count - from;
    std::copy_backward(right->keys, right->keys + right->count, right->keys + right->count + moved);
    std::copy_backward(right->payload, right->payload + right->count, right->payload + right->count + moved);
    std::copy(keys + from, keys + count, right->keys);
    std::copy(payload + from, payload + count, right->payload);
    std::fill(keys + from, keys + count, kNoKey);
    right->count += moved;
    count = from;
  }
  // Moves the first `moved` entries of `right` to the end of this node.
  void TakeHead(int moved, IndexNode* right) {
    std::copy(right->keys, right->keys + moved, keys + count);
    std::copy(right->payload, right->payload + moved, payload + count);
    std::copy(right->keys + moved, right->keys + right->count, right->keys);
    std::copy(right->payload + moved, right->payload + right->count, right->payload);
    std::fill(right->keys + right->count - moved, right->keys + right->count, kNoKey);
    right->count -= moved;
    count += moved;
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
  Payload payload[kCapacity];
  int count = 0;
};

}  // namespace dak::internal

#endif  // DAK_ALLOCATOR_INDEX_NODE_H_

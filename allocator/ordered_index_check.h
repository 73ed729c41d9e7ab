// OrderedIndex::FindFault: walks the whole tree. Included by ordered_index.h.
#ifndef DAK_ALLOCATOR_ORDERED_INDEX_CHECK_H_
#define DAK_ALLOCATOR_ORDERED_INDEX_CHECK_H_

#include <cstddef>

#include "allocator/ordered_index.h"

namespace dak::internal {

template <typename Key, typename Value, int kLeafCapacity, int kInnerCapacity, int kTagBits>
struct OrderedIndex<Key, Value, kLeafCapacity, kInnerCapacity, kTagBits>::Walk {
  const OrderedIndex& index;
  const Leaf* previous = nullptr;
  size_t entries = 0;

  template <typename Node>
  const char* CheckNode(const Node& node, bool is_root) const {
    if (node.count < 0 || node.count > static_cast<int>(std::size(node.keys))) return "a node's count is out of range";
    if (!is_root && node.count < Node::kLeast) return "a node has too few entries";
    for (int i = node.count; i < static_cast<int>(std::size(node.keys)); ++i) {
      if (node.keys[i] != kNoKey) return "a node's unused key isn't the largest";
    }
    return nullptr;
  }

  // Every key under `node` must be in [low, high).
  const char* Visit(const void* node, int level, Key low, Key high) {
    if (level == index.depth_) return VisitLeaf(*static_cast<const Leaf*>(node), low, high);
    const auto& inner = *static_cast<const Inner*>(node);
    if (const char* fault = CheckNode(inner, level == 0)) return fault;
    if (inner.count < 2) return "an inner node has fewer than two children";
    for (int i = 0; i < inner.count; ++i) {
      const Key child_low = i == 0 ? low : inner.keys[i];
      const Key child_high = i + 1 < inner.count ? inner.keys[i + 1] : high;
      if (child_low < low || child_high > high || !(child_low < child_high)) return "separators are out of order";
      if (const char* fault = Visit(inner.payload[i], level + 1, child_low, child_high)) return fault;
    }
    return nullptr;
  }

  const char* VisitLeaf(const Leaf& leaf, Key low, Key high) {
    if (const char* fault = CheckNode(leaf, index.depth_ == 0)) return fault;
    if (leaf.previous != previous) return "a leaf's link back is wrong";
    if ((previous == nullptr ? index.first_ : previous->next) != &leaf) return "a leaf's link forward is wrong";
    for (int i = 0; i < leaf.count; ++i) {
      if (leaf.keys[i] < low || !(leaf.keys[i] < high)) return "a key is on the wrong side of a separator";
      if (i > 0 && !(leaf.keys[i - 1] >> kTagBits < leaf.keys[i] >> kTagBits)) return "keys are out of order";
    }
    entries += static_cast<size_t>(leaf.count);
    previous = &leaf;
    return nullptr;
  }
};

template <typename Key, typename Value, int kLeafCapacity, int kInnerCapacity, int kTagBits>
const char* OrderedIndex<Key, Value, kLeafCapacity, kInnerCapacity, kTagBits>::FindFault() const {
  Walk walk{*this};
  if (const char* fault = walk.Visit(root_, 0, Key{0}, kNoKey)) return fault;
  if (walk.previous != last_ || last_->next != nullptr) return "the last leaf isn't the last";
  return walk.entries == size_ ? nullptr : "the size isn't the number of entries";
}

}  // namespace dak::internal

#endif  // DAK_ALLOCATOR_ORDERED_INDEX_CHECK_H_

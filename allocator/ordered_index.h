// A sorted map from small keys to small values: a B+ tree whose nodes are searched without branches.
//
// Entries live in leaves, which are linked in key order; inner nodes hold (separator, child). A separator is not above
// any key of its child and above every key of the child before. Unused keys of a node are kNoKey, above all others, so
// a search always takes the same steps whatever the node holds. Nodes but the root are at least a quarter full, so
// find, insert and erase are O(log n). The next level's node is fetched whole before it is searched: with many
// entries, one leaf out of the cache is what an operation costs.
//
// The lowest kTagBits of a key are no part of the order: no two entries differ only there, and an entry's tag may be
// changed in place. Find() wants the right tag.
//
// Internal to the allocator. Thread safety: none. A Position holds until the next Insert or Erase.
#ifndef DAK_ALLOCATOR_ORDERED_INDEX_H_
#define DAK_ALLOCATOR_ORDERED_INDEX_H_

#include <cstddef>
#include <cstdint>

#include "allocator/index_node.h"
#include "allocator/node_pool.h"

namespace dak::internal {

template <typename Key, typename Value, int kLeafCapacity, int kInnerCapacity, int kTagBits = 0>
class OrderedIndex {
  struct Leaf : IndexNode<Key, Value, kLeafCapacity> {
    Leaf* next = nullptr;
    Leaf* previous = nullptr;
  };
  struct Inner : IndexNode<Key, void*, kInnerCapacity> {};
  static constexpr int kMaxDepth = 40;

 public:
  static constexpr Key kNoKey = ~Key{0};  // no entry may have this key

  // An entry, or the end.
  class Position {
   public:
    Position() = default;  // the end
    bool at_end() const { return leaf_ == nullptr; }
    const Key& key() const { return leaf_->keys[slot_]; }
    Value& value() const { return leaf_->payload[slot_]; }
    // Precondition: `key` differs from the entry's key only in its tag.
    void Retag(const Key& key) const { leaf_->keys[slot_] = key; }
    // The neighbours in key order; at_end() past the first or the last.
    Position Next() const {
      return slot_ + 1 < leaf_->count ? Position(leaf_, slot_ + 1)
             : leaf_->next            ? Position(leaf_->next, 0)
                                      : Position();
    }
    Position Previous() const {
      return slot_ > 0         ? Position(leaf_, slot_ - 1)
             : leaf_->previous ? Position(leaf_->previous, leaf_->previous->count - 1)
                               : Position();
    }

   private:
    friend class OrderedIndex;
    Position(Leaf* leaf, int slot) : leaf_(leaf), slot_(slot) {}
    Leaf* leaf_ = nullptr;
    int slot_ = 0;
  };

  OrderedIndex() : first_(leaves_.Make()), last_(first_), root_(first_) {}
  OrderedIndex(const OrderedIndex&) = delete;
  OrderedIndex& operator=(const OrderedIndex&) = delete;

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  Position First() const { return empty() ? Position() : Position(first_, 0); }
  Position Last() const { return empty() ? Position() : Position(last_, last_->count - 1); }

  // The entry with this key, or the end.
  Position Find(Key key) const {
    Leaf* leaf = LeafOf(key);
    const int slot = leaf->CountBelow(key);
    return slot < leaf->count && leaf->keys[slot] == key ? Position(leaf, slot) : Position();
  }
  // The first entry whose key isn't below `key`, or the end.
  Position LowerBound(Key key) const {
    Leaf* leaf = LeafOf(key);
    const int slot = leaf->CountBelow(key);
    return slot < leaf->count ? Position(leaf, slot) : leaf->next ? Position(leaf->next, 0) : Position();
  }

  // Precondition: no entry has this key, which isn't kNoKey.
  void Insert(Key key, Value value) {
    ++size_;
    Path path;
    Leaf* leaf = LeafOf(key, &path);
    if (leaf->count == kLeafCapacity) leaf = SplitLeaf(leaf, key, path);
    leaf->InsertAt(leaf->CountBelow(key), key, value);
  }

  // The same, given an entry whose key is the next lower one or close to it: saves the way down if that entry's leaf
  // is where `key` belongs.
  void InsertNear(Position lower, Key key, Value value) {
    Leaf* leaf = lower.leaf_;
    // A larger key in the leaf means that no separator lies between.
    if (leaf->count == kLeafCapacity || leaf->keys[leaf->count - 1] < key) return Insert(key, value);
    ++size_;
    leaf->InsertAt(leaf->CountBelow(key), key, value);
  }

  // Erases an entry: saves the way down if its leaf can spare it.
  void EraseAt(Position entry) {
    if (depth_ > 0 && entry.leaf_->count == Leaf::kLeast) return Erase(entry.key());
    --size_;
    entry.leaf_->EraseAt(entry.slot_);
  }

  // Precondition: an entry has this key.
  void Erase(Key key) {
    --size_;
    Path path;
    Leaf* leaf = LeafOf(key, &path);
    leaf->EraseAt(leaf->CountBelow(key));
    if (leaf->count < Leaf::kLeast && depth_ > 0) MendLeaf(path);
  }

  // Null, or what is wrong: checks order, separators, fill, links, padding and the size.
  const char* FindFault() const;

 private:
  // The inner nodes from the root down, and the child taken in each.
  struct Path {
    Inner* nodes[kMaxDepth];
    int slots[kMaxDepth];
  };

  Leaf* LeafOf(Key key, Path* path = nullptr) const {
    void* node = root_;
    for (int level = 0; level < depth_; ++level) {
      auto* inner = static_cast<Inner*>(node);
      const int slot = inner->ChildFor(key);
      if (path != nullptr) path->nodes[level] = inner, path->slots[level] = slot;
      node = inner->payload[slot];
      level + 1 < depth_ ? static_cast<Inner*>(node)->Prefetch() : static_cast<Leaf*>(node)->Prefetch();
    }
    return static_cast<Leaf*>(node);
  }

  // Makes room for `key` and returns the half that it belongs to.
  Leaf* SplitLeaf(Leaf* leaf, Key key, const Path& path) {
    Leaf* right = leaves_.Make();
    leaf->MoveTail(kLeafCapacity / 2, right);
    right->previous = leaf;
    right->next = leaf->next;
    (leaf->next != nullptr ? leaf->next->previous : last_) = right;
    leaf->next = right;
    const Key separator = SeparatorBefore(right);
    AddChild(path, depth_ - 1, separator, right);
    return key < separator ? leaf : right;
  }

  // Puts `child` behind the one that `path` takes at `level`; above the root there is room for a new root.
  void AddChild(const Path& path, int level, Key separator, void* child) {
    if (level < 0) {
      Inner* root = inners_.Make();
      root->InsertAt(0, Key{0}, root_);
      root->InsertAt(1, separator, child);
      root_ = root;
      ++depth_;
      return;
    }
    Inner* inner = path.nodes[level];
    int slot = path.slots[level] + 1;
    if (inner->count == kInnerCapacity) {
      Inner* right = inners_.Make();
      inner->MoveTail(kInnerCapacity / 2, right);
      AddChild(path, level - 1, right->keys[0], right);
      if (slot > inner->count) slot -= inner->count, inner = right;
    }
    inner->InsertAt(slot, separator, child);
  }

  // The leaf at the end of `path` has too few entries: evens it out with a neighbour, or melts the two.
  void MendLeaf(const Path& path) {
    Inner* parent = path.nodes[depth_ - 1];
    const int left_slot = LeftOfPair(parent, path.slots[depth_ - 1]);
    auto* left = static_cast<Leaf*>(parent->payload[left_slot]);
    auto* right = static_cast<Leaf*>(parent->payload[left_slot + 1]);
    if (left->Balance(right)) {
      parent->keys[left_slot + 1] = SeparatorBefore(right);
      return;
    }
    left->next = right->next;
    (right->next != nullptr ? right->next->previous : last_) = left;
    leaves_.Drop(right);
    parent->EraseAt(left_slot + 1);
    MendInner(path, depth_ - 1);
  }

  void MendInner(const Path& path, int level) {
    Inner* inner = path.nodes[level];
    if (level == 0) {
      if (inner->count > 1) return;
      root_ = inner->payload[0];
      --depth_;
      inners_.Drop(inner);
      return;
    }
    if (inner->count >= Inner::kLeast) return;
    Inner* parent = path.nodes[level - 1];
    const int left_slot = LeftOfPair(parent, path.slots[level - 1]);
    auto* left = static_cast<Inner*>(parent->payload[left_slot]);
    auto* right = static_cast<Inner*>(parent->payload[left_slot + 1]);
    // The first separator of a node isn't kept up: the parent has the one that holds.
    right->keys[0] = parent->keys[left_slot + 1];
    if (left->Balance(right)) {
      parent->keys[left_slot + 1] = right->keys[0];
      return;
    }
    inners_.Drop(right);
    parent->EraseAt(left_slot + 1);
    MendInner(path, level - 1);
  }

  static Key SeparatorBefore(const Leaf* leaf) { return leaf->keys[0] >> kTagBits << kTagBits; }
  static int LeftOfPair(const Inner* parent, int slot) { return slot + 1 < parent->count ? slot : slot - 1; }

  struct Walk;

  NodePool<Leaf> leaves_;
  NodePool<Inner> inners_;
  Leaf* first_;
  Leaf* last_;
  void* root_;     // a Leaf if depth_ is 0, else an Inner
  int depth_ = 0;  // levels of inner nodes
  size_t size_ = 0;
};

}  // namespace dak::internal

#include "allocator/ordered_index_check.h"  // IWYU pragma: export

#endif  // DAK_ALLOCATOR_ORDERED_INDEX_H_

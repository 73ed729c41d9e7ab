// Equal-sized nodes from chunks that grow: a free list in front of ever larger pieces of memory.
//
// Large chunks ask for huge pages, since trees of a million entries are walked at random and would otherwise miss the
// TLB at every step. Memory goes back when the pool dies, not before: it follows the most nodes there ever were.
// Internal to the allocator. Thread safety: none.
#ifndef DAK_ALLOCATOR_NODE_POOL_H_
#define DAK_ALLOCATOR_NODE_POOL_H_

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

namespace dak::internal {

template <typename Node>
class NodePool {
  static_assert(std::is_trivially_destructible_v<Node>);

 public:
  // A node as its constructor leaves it.
  Node* Make() {
    if (free_ == nullptr) Grow();
    Link* link = free_;
    free_ = link->next;
    return new (link) Node();
  }
  void Drop(Node* node) { free_ = new (node) Link{free_}; }

 private:
  static constexpr size_t kHugePageBytes = size_t{2} << 20;
  struct Link {
    Link* next;
  };
  struct Release {
    void operator()(std::byte* chunk) const { std::free(chunk); }
  };
  static_assert(sizeof(Node) >= sizeof(Link));

  void Grow() {
    const size_t bytes = std::min(next_nodes_ * sizeof(Node), kHugePageBytes);
    const bool huge = bytes == kHugePageBytes;
    const size_t alignment = huge ? kHugePageBytes : alignof(Node);
    auto* chunk =
        static_cast<std::byte*>(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment));
    if (chunk == nullptr) throw std::bad_alloc();
    // Only advice: where it isn't taken, things are slower and still right.
    if (huge) (void)madvise(chunk, bytes, MADV_HUGEPAGE);
    chunks_.emplace_back(chunk);
    for (size_t count = bytes / sizeof(Node), i = count; i-- > 0;)
      Drop(reinterpret_cast<Node*>(chunk + i * sizeof(Node)));
    next_nodes_ *= 2;
  }

  Link* free_ = nullptr;
  size_t next_nodes_ = 2;
  std::vector<std::unique_ptr<std::byte, Release>> chunks_;
};

}  // namespace dak::internal

#endif  // DAK_ALLOCATOR_NODE_POOL_H_

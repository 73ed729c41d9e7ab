// The segments of one group in one tier, and the tensor parts placed inside them.
//
// An Arena owns its segments. Placement is best fit in blocks of 4 KiB over all of them; no part crosses from one
// segment into another. A segment without parts leaves the arena at once, since what is free belongs to the node.
//
// Thread safety: none; its owner locks. Nothing here calls the driver, except that destroying a segment does: owners
// destroy what Free hands out after they have let go of their lock.
#ifndef DAK_DAEMON_SESSION_ARENA_H_
#define DAK_DAEMON_SESSION_ARENA_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "allocator/device/device.h"
#include "allocator/extent_allocator.h"
#include "daemon/session/tensor.h"

namespace dak::daemon {

// Where a session's HBM goes when the session is demoted.
inline constexpr Tier kDemotedTier = Tier::kHost;

struct OwnedSegment {
  uint64_t id = 0;
  std::unique_ptr<Segment> memory;
};

class Arena {
 public:
  // Places `part` (its bytes are set) and fills in where. False if no segment has room.
  bool Place(TensorPart& part);
  // Takes a segment in; its memory is free for placement.
  void AddSegment(OwnedSegment segment);
  // Ends a placement. Returns the segment if that was its last part.
  std::optional<OwnedSegment> Free(const TensorPart& part);
  // Empties the arena.
  std::vector<OwnedSegment> TakeAll();

  const ExtentAllocator& extents() const { return extents_; }  // in blocks
  size_t segment_count() const { return segments_.size(); }
  uint64_t segment_bytes() const { return segment_bytes_; }
  // In order of creation.
  std::vector<const OwnedSegment*> Segments() const;
  // The same, to exchange their memory for other memory of as many bytes. Valid until the arena changes.
  std::vector<OwnedSegment*> MutableSegments();
  // Where a part that is placed here lies.
  const OwnedSegment& SegmentOf(const TensorPart& part) const;

 private:
  ExtentAllocator extents_;
  absl::btree_map<uint64_t, OwnedSegment> segments_;  // by the arena offset of its first block
  uint64_t next_base_ = 0;
  uint64_t segment_bytes_ = 0;
};

// What is published as one: tensors that share segments with each other and with nothing else.
struct Group {
  std::string name;
  std::array<Arena, kTierCount> arenas;
  absl::flat_hash_map<std::string, uint64_t> tensor_ids;  // by name
  bool demoted = false;                                   // the hbm arena's segments are in kDemotedTier

  Arena& arena(Tier tier) { return arenas[TierIndex(tier)]; }
  TierArray SegmentBytes() const;
  // Empties every arena.
  std::vector<OwnedSegment> TakeAllSegments();
};

// Holes and segments, summed up for a pool's figures.
struct PlacementStats {
  TierArray segment_count{};
  TierArray unplaced_bytes{};
  TierArray largest_unplaced_bytes{};
  void Add(const Group& group);
  void Add(const PlacementStats& other);
};

// `bytes` in whole blocks of 4 KiB.
uint64_t BlocksOf(uint64_t bytes);
// Bytes by tier of segments that are about to be destroyed.
TierArray BytesOf(const std::vector<OwnedSegment>& segments);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_ARENA_H_

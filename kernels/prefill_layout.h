// How a prefill GEMM divides W into tiles, and in which order remote boxes cross the link: pure arithmetic that the
// kernel, its planner and tests share.
//
// W is cut into *boxes* of 64 rows: the local part's first, then the remote part's; the last box of a part may be
// ragged. A *tile* is row_boxes boxes, multiplied with all of x: a *work item* is a tile and a pair of batch tiles, and
// items are taken in order of their numbers, a tile's pairs one after another. Remote boxes are dealt out evenly over
// the tiles from first_remote_tile on, so that the link is needed evenly while the kernel runs. A tile's remote boxes
// come first in it.
//
// A box and 64 columns of it is a *chunk*. Chunks cross the link in the order in which they are needed: group_tiles
// tiles are worked on at once, a *group*, in step, so a group's first columns come first. A chunk's place in that order
// is its *sequence number*, from 0.
#ifndef DAK_KERNELS_PREFILL_LAYOUT_H_
#define DAK_KERNELS_PREFILL_LAYOUT_H_

#include <cstdint>

#if defined(__CUDACC__)
#define DAK_HOST_DEVICE __host__ __device__
#else
#define DAK_HOST_DEVICE
#endif

namespace dak::kernels {

struct PrefillBox {
  bool valid = false;  // false: past W's end
  bool remote = false;
  uint32_t index = 0;  // in its part
};

struct PrefillLayout {
  uint32_t row_boxes = 0;
  uint32_t tiles = 0;
  uint32_t pairs = 0;  // pairs of batch tiles
  uint32_t local_boxes = 0;
  uint32_t remote_boxes = 0;
  uint32_t k_chunks = 0;
  uint32_t first_remote_tile = 0;  // below `tiles`; 0 without remote boxes
  uint32_t group_tiles = 1;

  // Remote boxes in the tiles before `tile`, which may be `tiles`.
  DAK_HOST_DEVICE uint32_t RemoteBefore(uint32_t tile) const {
    if (tile <= first_remote_tile) return 0;
    return static_cast<uint32_t>(uint64_t{tile - first_remote_tile} * remote_boxes / (tiles - first_remote_tile));
  }
  DAK_HOST_DEVICE uint32_t RemoteIn(uint32_t tile) const { return RemoteBefore(tile + 1) - RemoteBefore(tile); }

  DAK_HOST_DEVICE PrefillBox BoxAt(uint32_t tile, uint32_t i) const {
    const uint32_t before = RemoteBefore(tile);
    const uint32_t remote = RemoteBefore(tile + 1) - before;
    if (i < remote) return {true, true, before + i};
    const uint32_t index = tile * row_boxes - before + i - remote;
    return {index < local_boxes, false, index};
  }

  // Boxes of the tile that are valid: its first ones.
  DAK_HOST_DEVICE uint32_t BoxesIn(uint32_t tile) const {
    const uint32_t remote = RemoteIn(tile);
    const uint32_t index = tile * row_boxes - RemoteBefore(tile);
    const uint32_t left = index < local_boxes ? local_boxes - index : 0;
    return remote + (left < row_boxes - remote ? left : row_boxes - remote);
  }

  DAK_HOST_DEVICE uint64_t Items() const { return uint64_t{tiles} * pairs; }
  DAK_HOST_DEVICE uint64_t RemoteChunks() const { return uint64_t{remote_boxes} * k_chunks; }
  DAK_HOST_DEVICE uint32_t Groups() const { return (tiles + group_tiles - 1) / group_tiles; }
  // Remote boxes before `group`, which may be Groups().
  DAK_HOST_DEVICE uint32_t RemoteBeforeGroup(uint32_t group) const {
    const uint64_t tile = uint64_t{group} * group_tiles;
    return RemoteBefore(tile < tiles ? static_cast<uint32_t>(tile) : tiles);
  }
};

// The sequence numbers of one group's chunks: Of(box, chunk) for boxes [first, first + count) of the remote part.
struct PrefillGroup {
  uint32_t first = 0;
  uint32_t count = 0;
  uint64_t begin = 0;  // the first sequence number

  DAK_HOST_DEVICE PrefillGroup(const PrefillLayout& layout, uint32_t group)
      : first(layout.RemoteBeforeGroup(group)),
        count(layout.RemoteBeforeGroup(group + 1) - first),
        begin(uint64_t{first} * layout.k_chunks) {}
  DAK_HOST_DEVICE uint64_t Of(uint32_t box, uint32_t chunk) const {
    return begin + uint64_t{chunk} * count + (box - first);
  }
};

}  // namespace dak::kernels

#endif  // DAK_KERNELS_PREFILL_LAYOUT_H_

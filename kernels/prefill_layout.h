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

#include "kernels/host_device.h"

namespace dak::kernels {

struct PrefillBox {
  bool remote = false;
  uint32_t index = 0;  // in its part
};

// A tile's boxes: the first `remote` ones are boxes remote_first, ... of the remote part, the others, up to `count`,
// boxes local_first, ... of the local part.
struct PrefillTile {
  uint32_t count = 0;  // row_boxes, but where W ends
  uint32_t remote = 0;
  uint32_t remote_first = 0;
  uint32_t local_first = 0;

  // `i` below count.
  DAK_HOST_DEVICE PrefillBox At(uint32_t i) const {
    if (i < remote) return {true, remote_first + i};
    return {false, local_first + i - remote};
  }
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

  DAK_HOST_DEVICE PrefillTile Tile(uint32_t number) const {
    PrefillTile tile;
    tile.remote_first = RemoteBefore(number);
    tile.remote = RemoteBefore(number + 1) - tile.remote_first;
    tile.local_first = number * row_boxes - tile.remote_first;
    const uint32_t left = tile.local_first < local_boxes ? local_boxes - tile.local_first : 0;
    const uint32_t room = row_boxes - tile.remote;
    tile.count = tile.remote + (left < room ? left : room);
    return tile;
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

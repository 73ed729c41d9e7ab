// The end of a tile in the decode kernel: a consumer warpgroup's sums become y, or a share of it.
//
// A warpgroup holds one box of rows and kGroupN columns (the batch, or half of a large one). Where several CTAs have a
// part of a tile's chunks, one finishes it: it adds the others' shares, always in the same order, so that equal inputs
// give equal bits, and does the epilogue on the whole sums. Among local CTAs it is the one that does the tile's last
// chunk; it waits only for CTAs with lower numbers, which have started before it. Among remote ones it is whoever comes
// last (decode_units.cuh). Where every tile is two local CTAs', in halves, each finishes half of the columns; they are
// a cluster, so both have started. Shares need no flags: their places in the workspace hold kAbsent until they come and
// again after they were taken, and no sum ever has those bits.
#ifndef DAK_KERNELS_DECODE_EPILOGUE_CUH_
#define DAK_KERNELS_DECODE_EPILOGUE_CUH_

#include "kernels/decode_common.cuh"
#include "kernels/tile_writer.cuh"

namespace dak::kernels {

// A NaN that no product gives: those have other bits, and LeaveShare makes sure.
inline constexpr uint32_t kAbsent = 0xFFFF'FFFF;
inline constexpr uint32_t kOtherNan = 0x7FFF'FFFF;

// A warpgroup's part of a tile.
struct Box {
  uint32_t row;         // its first row in the part
  uint32_t valid_rows;  // may be 0
  uint32_t first_quad;  // of its columns, in eights
};

// The shares of a tile, in the order in which they are added: numbers [first, end), whose places in the workspace are
// `stride` apart. A local CTA has one place for each warpgroup, for the tile that its range ends in, and adds its own
// sums first; a remote unit has its own place, and leaves its share also where it turns out to be the last.
struct TileShares {
  uint32_t base;  // the place of number 0
  uint32_t stride;
  uint32_t first;
  uint32_t end;
  uint32_t own;
};

template <class Traits>
__device__ inline TileShares LocalShares(const WorkRange& work, uint32_t box, uint32_t first, uint32_t end) {
  return {kMaxSharedUnits + work.rank * 2 + box, 2 * Traits::kCluster, first, end, work.worker};
}
__device__ inline TileShares RemoteShares(const DecodeParams& p, uint32_t tile, uint32_t unit) {
  const RemoteUnits& units = p.remote_units;
  if (unit < units.whole || units.per_tile == 1) return {};
  const uint32_t first = (tile - units.whole) * units.per_tile;
  return {0, 1, first, first + units.per_tile, unit - units.whole};
}

inline constexpr uint32_t kPlaceQuads = kBoxRows * kMaxBatch / 4;  // of a place in the workspace

__device__ inline uint4* ShareAt(const DecodeParams& p, const TileShares& shares, uint32_t number) {
  const uint64_t place = shares.base + number * shares.stride;
  return reinterpret_cast<uint4*>(p.workspace.shares) + place * kPlaceQuads;
}

// A warpgroup's columns, in pieces of kQuads quads of sums a thread, and how many shares of a piece a thread has asked
// for at once: as many as there are registers for.
template <class Traits, bool kAddsSums>
struct Pieces {
  static constexpr int kOfGroup = Traits::kGroupN / 8;
  static constexpr int kQuads = kOfGroup < 4 ? kOfGroup : 4;
  static constexpr int kCount = kOfGroup / kQuads;
  static constexpr int kAskedQuads = kAddsSums ? 8 : 24;
  static constexpr int kAhead = kAskedQuads / kQuads < 8 ? kAskedQuads / kQuads : 8;
  static_assert(!Traits::kCanHalve || kCount % 2 == 0);
};

struct PieceRange {
  int first;
  int end;
  __device__ bool Has(int piece) const { return piece >= first && piece < end; }
};

// All but the pieces `kept`.
template <class Traits>
__device__ inline void LeaveShare(const DecodeParams& p, const Box& box, const TileShares& shares,
                                  const float (&sums)[Traits::kGroupN / 2], const PieceRange& kept, uint32_t thread) {
  uint4* share = ShareAt(p, shares, shares.own) + box.first_quad * kWarpgroupThreads + thread;
#pragma unroll
  for (int j = 0; j < Traits::kGroupN / 8; ++j) {
    if (kept.Has(j / Pieces<Traits, true>::kQuads)) continue;
    uint32_t bits[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      bits[i] = __float_as_uint(sums[4 * j + i]);
      if (bits[i] == kAbsent) bits[i] = kOtherNan;
    }
    ptx::StoreRelaxedGpu(share + j * kWarpgroupThreads, make_uint4(bits[0], bits[1], bits[2], bits[3]));
  }
}

// A piece, kQuads quads, of up to kAhead shares that follow one another, all asked for before any of them is needed.
template <int kQuads, uint32_t kAhead>
class AskedShares {
 public:
  // `quads` of the first one; the next ones lie `stride` further each.
  __device__ void Ask(uint4* quads, uint32_t stride, uint32_t count) {
    quads_ = quads;
    stride_ = stride;
    count_ = count;
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) AskOne(i);
  }

  // Waits until they are there, adds them to `total` in their order and takes them away.
  __device__ void Take(float (&total)[kQuads][4]) {
#pragma unroll
    for (uint32_t i = 0; i < kAhead; ++i) {
      while (IsAbsent(values_[i])) AskOne(i);
#pragma unroll
      for (int j = 0; j < kQuads; ++j) {
        total[j][0] += __uint_as_float(values_[i][j].x);
        total[j][1] += __uint_as_float(values_[i][j].y);
        total[j][2] += __uint_as_float(values_[i][j].z);
        total[j][3] += __uint_as_float(values_[i][j].w);
        ptx::StoreRelaxedGpuIf(At(i, j), make_uint4(kAbsent, kAbsent, kAbsent, kAbsent), i < count_);
      }
    }
  }

 private:
  __device__ uint4* At(uint32_t i, int j) const { return quads_ + i * stride_ + j * kWarpgroupThreads; }

  __device__ void AskOne(uint32_t i) {
#pragma unroll
    for (int j = 0; j < kQuads; ++j) values_[i][j] = ptx::LoadRelaxedGpuIf(At(i, j), i < count_);
  }

  static __device__ bool IsAbsent(const uint4 (&values)[kQuads]) {
    bool absent = false;
#pragma unroll
    for (const uint4& v : values) absent |= v.x == kAbsent || v.y == kAbsent || v.z == kAbsent || v.w == kAbsent;
    return absent;
  }

  uint4* quads_;
  uint32_t stride_;
  uint32_t count_;
  uint4 values_[kAhead][kQuads];
};

// The piece-th kCount quads of `sums`. Registers can't be counted through, so each piece has instructions of its own,
// but no more of them than this.
template <int kCount, int kSums>
__device__ inline void CopyPiece(const float (&sums)[kSums], int piece, float (&total)[kCount][4]) {
#pragma unroll
  for (int p = 0; p < kSums / (4 * kCount); ++p) {
    if (p != piece) continue;
#pragma unroll
    for (int i = 0; i < 4 * kCount; ++i) total[i / 4][i % 4] = sums[4 * kCount * p + i];
  }
}

// Adds the tile's shares, and if kAddsSums `sums` before them, and writes y, of some pieces. The next shares, of this
// piece or the next one, are under way while a piece is written.
// NOTE: a large batch's in pieces, in a loop that isn't unrolled. As straight code, which runs once in a tile, it was
// fetched from memory each time: on an H100 the end of a tile of 64 x 256 sums took 18 us.
// NOTE: a register that a load is still to fill can't be copied without waiting for it. So shares are asked for in
// groups, and each group is taken before the next is asked for.
template <class Traits, bool kAddsSums>
__device__ inline void FinishTile(const DecodeParams& p, const WorkRange& work, const Box& box,
                                  const float (&sums)[Traits::kGroupN / 2], const TileShares& shares,
                                  const PieceRange& pieces, uint32_t thread) {
  constexpr int kAtOnce = Pieces<Traits, kAddsSums>::kQuads;
  constexpr uint32_t kAhead = Pieces<Traits, kAddsSums>::kAhead;
  const TileWriter<Traits::kF16> writer({p.y, p.epilogue, p.n, p.batch, work.part_offset + box.row, box.valid_rows},
                                        thread);
  AskedShares<kAtOnce, kAhead> asked;
  const auto ask = [&](int piece, uint32_t first) {
    const uint32_t quad = box.first_quad + piece * kAtOnce;
    asked.Ask(ShareAt(p, shares, first) + quad * kWarpgroupThreads + thread, shares.stride * kPlaceQuads,
              shares.end - first);
  };
  int piece = pieces.first;
  uint32_t first = shares.first;
  ask(piece, first);
#pragma unroll 1
  while (piece < pieces.end) {
    float total[kAtOnce][4] = {};
    if constexpr (kAddsSums) CopyPiece(sums, piece, total);
    const int written = piece;
#pragma unroll 1
    while (piece == written) {
      asked.Take(total);
      first += kAhead;
      if (first >= shares.end) {
        first = shares.first;
        ++piece;
      }
      if (piece < pieces.end) ask(piece, first);
    }
    writer.Write(static_cast<int>(box.first_quad) + written * kAtOnce, total);
  }
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_DECODE_EPILOGUE_CUH_

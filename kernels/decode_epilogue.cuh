// The end of a tile in the decode kernel: a consumer warpgroup's sums become y, or a share of it.
//
// A warpgroup holds one box of rows, kN columns (the batch). Where several of them have part of a tile's columns, one
// finishes it: it adds the others' shares, always in the same order, so that equal inputs give equal bits, and does the
// epilogue on the whole sums. Among local CTAs it is the one that does the tile's last chunk; it waits only for CTAs
// with lower numbers, which have started before it. Among remote ones it is whoever comes last (decode_units.cuh).
// Where every tile is two local CTAs', in halves, each finishes half of the columns; they are a cluster, so both have
// started. Shares need no flags: their places in the workspace hold kAbsent until they come and again after they were
// taken, and no sum ever has those bits.
#ifndef DAK_KERNELS_DECODE_EPILOGUE_CUH_
#define DAK_KERNELS_DECODE_EPILOGUE_CUH_

#include "kernels/decode_common.cuh"
#include "kernels/tile_writer.cuh"

namespace dak::kernels {

// A NaN that no product gives: those have other bits, and LeaveShare makes sure.
inline constexpr uint32_t kAbsent = 0xFFFF'FFFF;
inline constexpr uint32_t kOtherNan = 0x7FFF'FFFF;

// A warpgroup's box of a tile.
struct Box {
  uint32_t row;         // its first row in the part
  uint32_t valid_rows;  // may be 0
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
__device__ inline TileShares LocalShares(const WorkRange& work, uint32_t group, uint32_t first, uint32_t end) {
  return {kMaxSharedUnits + work.rank * 2 + group, 2 * Traits::kCluster, first, end, work.worker};
}
__device__ inline TileShares RemoteShares(const DecodeParams& p, uint32_t tile, uint32_t unit) {
  const RemoteUnits& units = p.remote_units;
  if (unit < units.whole || units.per_tile == 1) return {};
  const uint32_t first = (tile - units.whole) * units.per_tile;
  return {0, 1, first, first + units.per_tile, unit - units.whole};
}

__device__ inline uint4* ShareAt(const DecodeParams& p, const TileShares& shares, uint32_t number) {
  const uint64_t place = shares.base + number * shares.stride;
  return reinterpret_cast<uint4*>(p.workspace.shares) + place * (kBoxRows * kMaxBatch / 4);
}

// The columns of a tile's sums, in pieces of kQuads quads of sums a thread.
template <class Traits, bool kAddsSums>
struct Pieces {
  static constexpr int kMost = Traits::kN < (kAddsSums ? 256 : 128) ? 8 : 4;  // as many as there are registers for
  static constexpr int kQuads = Traits::kN / 8 < kMost ? Traits::kN / 8 : kMost;
  static constexpr int kCount = Traits::kN / 8 / kQuads;
};

struct PieceRange {
  int first;
  int end;
  __device__ bool Has(int piece) const { return piece >= first && piece < end; }
};

// All but the pieces `kept`.
template <class Traits>
__device__ inline void LeaveShare(const DecodeParams& p, const TileShares& shares, const float (&sums)[Traits::kN / 2],
                                  const PieceRange& kept, uint32_t thread) {
  uint4* share = ShareAt(p, shares, shares.own) + thread;
#pragma unroll
  for (int j = 0; j < Traits::kN / 8; ++j) {
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

// kCount quads of a share. They are asked for before they are needed.
template <int kCount>
class ShareQuads {
 public:
  __device__ void Ask(uint4* quads) {
    quads_ = quads;
#pragma unroll
    for (int i = 0; i < kCount; ++i) values_[i] = ptx::LoadRelaxedGpu(quads_ + i * kWarpgroupThreads);
  }

  // Waits until they are there, adds them to `total` and takes them away.
  __device__ void Take(float (&total)[kCount][4]) {
    while (IsAbsent()) Ask(quads_);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      total[i][0] += __uint_as_float(values_[i].x);
      total[i][1] += __uint_as_float(values_[i].y);
      total[i][2] += __uint_as_float(values_[i].z);
      total[i][3] += __uint_as_float(values_[i].w);
      ptx::StoreRelaxedGpu(quads_ + i * kWarpgroupThreads, make_uint4(kAbsent, kAbsent, kAbsent, kAbsent));
    }
  }

 private:
  __device__ bool IsAbsent() const {
    bool absent = false;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const uint4 v = values_[i];
      absent |= v.x == kAbsent || v.y == kAbsent || v.z == kAbsent || v.w == kAbsent;
    }
    return absent;
  }

  uint4* quads_ = nullptr;
  uint4 values_[kCount];
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

// Adds the tile's shares, and if kAddsSums `sums` before them, and writes y, of some pieces. A share's piece is asked
// for one step ahead, where others' sums aren't in the way two steps.
// NOTE: a large batch's in pieces, in a loop that isn't unrolled. As straight code, which runs once in a tile, it was
// fetched from memory each time: on an H100 the end of a tile of 64 x 256 sums took 18 us, and takes 4.
template <class Traits, bool kAddsSums>
__device__ inline void FinishTile(const DecodeParams& p, const WorkRange& work, const Box& box,
                                  const float (&sums)[Traits::kN / 2], const TileShares& shares,
                                  const PieceRange& pieces, uint32_t thread) {
  constexpr int kAtOnce = Pieces<Traits, kAddsSums>::kQuads;
  constexpr bool kTwoAhead = !kAddsSums && (Traits::kBoxes == 1 || Traits::kN < 64);
  const TileWriter<Traits::kF16> writer({p.y, p.epilogue, p.n, p.batch, work.part_offset + box.row, box.valid_rows},
                                        thread);
  // Steps through the shares of the first piece, then of the second, and so on.
  uint32_t asked = shares.first;
  int asked_piece = shares.first < shares.end ? pieces.first : pieces.end;
  const auto ask_next = [&](ShareQuads<kAtOnce>& share) {
    if (asked_piece == pieces.end) return;
    share.Ask(ShareAt(p, shares, asked) + thread + asked_piece * (kAtOnce * kWarpgroupThreads));
    if (++asked < shares.end) return;
    asked = shares.first;
    ++asked_piece;
  };
  ShareQuads<kAtOnce> share;
  ShareQuads<kAtOnce> later;
  ask_next(share);
  if constexpr (kTwoAhead) ask_next(later);
#pragma unroll 1
  for (int piece = pieces.first; piece < pieces.end; ++piece) {
    float total[kAtOnce][4] = {};
    if constexpr (kAddsSums) CopyPiece(sums, piece, total);
#pragma unroll 1
    for (uint32_t number = shares.first; number < shares.end; ++number) {
      share.Take(total);
      if constexpr (kTwoAhead) {
        share = later;
        ask_next(later);
      } else {
        ask_next(share);
      }
    }
    writer.Write(piece * kAtOnce, total);
  }
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_DECODE_EPILOGUE_CUH_

// The end of a piece in the attention kernels: consumer warps' results become outputs, or are merged with other CTAs'.
//
// A task, the context of one sequence for one KV head, is one piece, or several of different CTAs of both kinds. Who
// ends the last piece merges all of them by log-sum-exp, always in the same order, so that equal inputs give equal
// bits.
#ifndef DAK_KERNELS_ATTENTION_PIECES_CUH_
#define DAK_KERNELS_ATTENTION_PIECES_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/attention_common.cuh"
#include "kernels/ptx/mma.h"

namespace dak::kernels {

// Waits for all consumer warps of the CTA.
__device__ inline void MeetConsumers() { asm volatile("bar.sync 1, %0;" ::"n"(kConsumerThreads) : "memory"); }

template <bool kF16>
__device__ inline uint32_t PackElements(float low, float high) {
  if constexpr (kF16) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
}

// Which rows and blocks a warp works on.
struct Turn {
  uint32_t tiles;   // of the group
  uint32_t tile;    // this warp's
  uint32_t splits;  // warps of one tile
  uint32_t split;

  __device__ static Turn Of(uint32_t group, uint32_t warp) {
    const uint32_t tiles = group <= kTileRows ? 1 : group <= 2 * kTileRows ? 2 : 4;
    return {tiles, warp % tiles, kConsumerWarps / tiles, warp / tiles};
  }
};

// Four columns of a query head, being merged by log-sum-exp.
struct Merged {
  float largest = -INFINITY;
  float sum = 0;
  float4 columns = {0, 0, 0, 0};

  // Adds another's, which may be of no token: its largest score is minus infinity then.
  __device__ void Add(float2 statistics, float4 other) {
    const float now = fmaxf(largest, statistics.x);
    if (now == -INFINITY) return;
    const float a = ptx::Exp2(largest - now);
    const float b = ptx::Exp2(statistics.x - now);
    largest = now;
    sum = sum * a + statistics.y * b;
    columns = {columns.x * a + other.x * b, columns.y * a + other.y * b, columns.z * a + other.z * b,
               columns.w * a + other.w * b};
  }
};

template <class Traits>
__device__ inline void StoreOutput(const AttentionParams& p, const Place& place, uint32_t row, uint32_t column,
                                   const Merged& merged) {
  const float scale = 1 / merged.sum;
  const uint64_t head = uint64_t{place.sequence} * p.heads + place.head * p.group + row;
  const float4& v = merged.columns;
  *reinterpret_cast<uint2*>(p.out + head * Traits::kHeadDim + column) = make_uint2(
      PackElements<Traits::kF16>(v.x * scale, v.y * scale), PackElements<Traits::kF16>(v.z * scale, v.w * scale));
}

// The pieces of the task that `place` is in.
__device__ inline Pieces PiecesOf(const AttentionParams& p, const AttentionWork& work, const AttentionShared& shared,
                                  const Place& place) {
  Pieces pieces{place.sequence * p.kv_heads + place.head, 0, {0, 0}, {0, 0}};
#pragma unroll
  for (uint32_t kind = 0; kind < 2; ++kind) {
    const uint32_t blocks = BlocksOf(shared, static_cast<Kind>(kind), place.sequence);
    if (blocks == 0) continue;
    const uint32_t begin = shared.first_block[kind][place.sequence] * p.kv_heads + place.head * blocks;
    pieces.first[kind] = work.kinds[kind].OwnerOf(begin);
    pieces.counts[kind] = work.kinds[kind].OwnerOf(begin + blocks - 1) - pieces.first[kind] + 1;
    pieces.count += pieces.counts[kind];
  }
  return pieces;
}

// The first row in the workspace of a CTA's piece. From one piece of a kind to the next the task grows, or the CTA, so
// that their sum is a number of its own.
__device__ inline uint64_t RowOf(const AttentionParams& p, const AttentionWork& work, uint32_t task, uint32_t kind,
                                 uint32_t cta) {
  const uint32_t before = kind == kLocal ? 0 : p.batch * p.kv_heads + work.kinds[kLocal].workers;
  return (uint64_t{before} + task + cta) * p.group;
}

// Of a task's i-th piece.
__device__ inline uint64_t RowOf(const AttentionParams& p, const AttentionWork& work, const Pieces& pieces,
                                 uint32_t i) {
  const bool local = i < pieces.counts[kLocal];
  return local ? RowOf(p, work, pieces.task, kLocal, pieces.first[kLocal] + i)
               : RowOf(p, work, pieces.task, kRemote, pieces.first[kRemote] + i - pieces.counts[kLocal]);
}

// Merges all pieces of a task and stores its outputs. Several pieces are fetched at once, since each takes its way to
// L2.
template <class Traits>
__device__ inline void MergePieces(const AttentionParams& p, const AttentionWork& work, const Place& place,
                                   const Pieces& pieces, uint32_t thread) {
  constexpr uint32_t kQuads = Traits::kHeadDim / 4;
  constexpr uint32_t kAtOnce = 9;  // two rounds where 132 CTAs share eight tasks
  for (uint32_t i = thread; i < p.group * kQuads; i += kConsumerThreads) {
    const uint32_t row = i / kQuads;
    const uint32_t column = i % kQuads * 4;
    Merged merged;
    for (uint32_t begin = 0; begin < pieces.count; begin += kAtOnce) {
      float2 statistics[kAtOnce];
      float4 columns[kAtOnce];
#pragma unroll
      for (uint32_t j = 0; j < kAtOnce; ++j) {
        statistics[j] = make_float2(-INFINITY, 0);
        columns[j] = make_float4(0, 0, 0, 0);
        if (begin + j < pieces.count) {
          const uint64_t at = RowOf(p, work, pieces, begin + j) + row;
          statistics[j] = __ldcg(p.workspace.statistics + at);
          columns[j] = __ldcg(reinterpret_cast<const float4*>(p.workspace.outputs + at * Traits::kHeadDim + column));
        }
      }
#pragma unroll
      for (uint32_t j = 0; j < kAtOnce; ++j) merged.Add(statistics[j], columns[j]);
    }
    StoreOutput<Traits>(p, place, row, column, merged);
  }
}

// Merges the warps' shares of eight rows a tile, which lie in the scratch memory: to outputs if the piece is all of its
// task, else to the workspace.
template <class Traits>
__device__ inline void MergeWarps(const AttentionParams& p, const AttentionWork& work, const Turn& turn,
                                  const Place& place, const float* scratch, const AttentionShared& shared,
                                  uint32_t half, uint32_t thread) {
  constexpr uint32_t kQuads = Traits::kHeadDim / 4;
  const Pieces& pieces = shared.pieces;
  const bool whole = pieces.count == 1;
  const uint64_t first_row = RowOf(p, work, pieces.task, work.kind, work.worker);
  for (uint32_t i = thread; i < turn.tiles * kScratchRows * kQuads; i += kConsumerThreads) {
    const uint32_t tile = i / kQuads / kScratchRows;
    const uint32_t tile_row = i / kQuads % kScratchRows;
    const uint32_t row = tile * kTileRows + half * kScratchRows + tile_row;
    const uint32_t column = i % kQuads * 4;
    if (row >= p.group) continue;
    Merged merged;
    for (uint32_t split = 0; split < turn.splits; ++split) {
      const uint32_t at = (split * turn.tiles + tile) * kScratchRows + tile_row;
      merged.Add(shared.statistics[at],
                 *reinterpret_cast<const float4*>(scratch + at * Traits::kScratchColumns + column));
    }
    if (whole) {
      StoreOutput<Traits>(p, place, row, column, merged);
      continue;
    }
    const uint64_t at = first_row + row;
    *reinterpret_cast<float4*>(p.workspace.outputs + at * Traits::kHeadDim + column) = merged.columns;
    if (column == 0) p.workspace.statistics[at] = make_float2(merged.largest, merged.sum);
  }
}

// Ends a piece, whose pieces `shared` has; who ends a task's last piece merges them all.
template <class Traits, class Accumulator>
__device__ inline void EndPiece(const AttentionParams& p, const AttentionWork& work, const Turn& turn,
                                const Place& place, Accumulator& accumulator, float* scratch, AttentionShared& shared,
                                uint32_t thread) {
  accumulator.Finish();
  bool whole = false;
  const uint32_t halves = p.group > kScratchRows ? kTileRows / kScratchRows : 1;
  for (uint32_t half = 0; half < halves; ++half) {
    if (half > 0) MeetConsumers();
    accumulator.Leave(p, turn, half, scratch, shared, thread / kWarpThreads, thread % kWarpThreads);
    MeetConsumers();
    whole = shared.pieces.count == 1;
    MergeWarps<Traits>(p, work, turn, place, scratch, shared, half, thread);
  }
  MeetConsumers();  // from here on another piece's numbers may come, if the task has no others
  if (whole) return;
  if (thread == 0) {
    // Releases what all threads before the barrier stored, and acquires the others' pieces.
    const uint32_t before = ptx::AddAcqRelGpu(&p.workspace.arrivals[shared.pieces.task], 1);
    shared.is_last = before + 1 == shared.pieces.count ? 1 : 0;
    if (shared.is_last != 0) p.workspace.arrivals[shared.pieces.task] = 0;
  }
  MeetConsumers();
  if (shared.is_last == 0) return;
  MergePieces<Traits>(p, work, place, shared.pieces, thread);
  MeetConsumers();  // the next piece's numbers may come
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_ATTENTION_PIECES_CUH_

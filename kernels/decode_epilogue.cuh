// The end of a tile in the decode kernel: a consumer warpgroup's sums become y, or a share of it.
//
// A warpgroup holds one box of rows, kN columns (the batch). If its CTA did all of the tile's chunks, it writes y. Else
// it leaves its sums in the workspace, and the last CTA to arrive adds up all of them, always in the CTAs' order, so
// that equal inputs give equal bits. No CTA ever waits for another: CTAs needn't run at the same time.
#ifndef DAK_KERNELS_DECODE_EPILOGUE_CUH_
#define DAK_KERNELS_DECODE_EPILOGUE_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/decode_common.cuh"

namespace dak::kernels {

// The chunks [first_chunk, end_chunk) of a tile that this CTA did, and the tile's place.
struct Segment {
  uint64_t tile;
  uint32_t first_chunk;
  uint32_t end_chunk;
  uint32_t row;         // the warpgroup's first row in the part
  uint32_t valid_rows;  // of its box, may be 0
};

template <bool kF16>
__device__ inline uint16_t RoundToElement(float value) {
  if constexpr (kF16) return __half_as_ushort(__float2half_rn(value));
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

// y[batch, n]: one column of the sums is a run of y's row. Two lanes swap a value each, so that each can write two
// neighbouring elements at once where that is aligned.
template <class Traits>
__device__ inline void StoreTile(const DecodeParams& p, const WorkRange& work, const Segment& segment,
                                 const float (&sums)[Traits::kN / 2], uint32_t thread) {
  const uint32_t lane = thread % kWarpThreads;
  const uint32_t row_in_box = thread / kWarpThreads * 16 + lane / 4;
  const uint64_t column_of_y = work.part_offset + segment.row;
  const bool paired = p.n % 2 == 0 && column_of_y % 2 == 0;
  const bool odd = row_in_box % 2 != 0;
  auto* y = static_cast<uint16_t*>(p.y);
#pragma unroll
  for (int i = 0; i < Traits::kN / 2; i += 2) {
    const uint32_t row = row_in_box + (i & 2 ? 8 : 0);
    const uint32_t batch = i / 4 * 8 + lane % 4 * 2;
    if (paired) {
      const float other = __shfl_xor_sync(~0u, odd ? sums[i] : sums[i + 1], 4);
      const uint32_t low = RoundToElement<Traits::kF16>(odd ? other : sums[i]);
      const uint32_t high = RoundToElement<Traits::kF16>(odd ? sums[i + 1] : other);
      const uint32_t even_row = row - odd;
      const uint32_t pair_batch = batch + odd;
      uint16_t* target = y + pair_batch * p.n + column_of_y + even_row;
      if (pair_batch < p.batch) {
        if (even_row + 1 < segment.valid_rows) {
          *reinterpret_cast<uint32_t*>(target) = low | high << 16;
        } else if (even_row < segment.valid_rows) {
          *target = static_cast<uint16_t>(low);
        }
      }
    } else if (row < segment.valid_rows) {
      uint16_t* target = y + batch * p.n + column_of_y + row;
      if (batch < p.batch) *target = RoundToElement<Traits::kF16>(sums[i]);
      if (batch + 1 < p.batch) target[p.n] = RoundToElement<Traits::kF16>(sums[i + 1]);
    }
  }
}

// Where CTA `cta`'s sums lie: a CTA leaves at most two shares, of its first tile and of its last.
template <class Traits>
__device__ inline float4* PartialOf(const DecodeParams& p, uint32_t cta, bool of_first_tile, uint32_t group) {
  const uint64_t slot = (uint64_t{cta} * 2 + (of_first_tile ? 0 : 1)) * 2 + group;
  return reinterpret_cast<float4*>(p.workspace.partials) + slot * (kBoxRows * kMaxBatch / 4);
}

// Leaves this CTA's sums of a tile; the last of the tile's CTAs adds them up and writes y.
template <class Traits>
__device__ inline void ShareTile(const DecodeParams& p, const WorkRange& work, const Segment& segment,
                                 const float (&sums)[Traits::kN / 2], uint32_t thread, uint32_t group, uint32_t rank,
                                 DecodeShared& shared) {
  const uint64_t tile_begin = segment.tile * p.k_chunks;
  const uint32_t first = work.OwnerOf(tile_begin);
  const uint32_t last = work.OwnerOf(tile_begin + p.k_chunks - 1);
  const auto cta_of = [&](uint32_t worker) {
    return work.remote ? worker : p.remote_ctas + worker * Traits::kCtas + rank;
  };
  const auto is_first_tile_of = [&](uint32_t worker) { return work.BeginOf(worker) / p.k_chunks == segment.tile; };

  float4* mine = PartialOf<Traits>(p, cta_of(work.worker), is_first_tile_of(work.worker), group);
#pragma unroll
  for (int j = 0; j < Traits::kN / 8; ++j) {
    __stcg(mine + j * kWarpgroupThreads + thread,
           make_float4(sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3]));
  }
  __threadfence();
  ptx::NamedBarrier(1 + group, kWarpgroupThreads);
  if (thread == 0) {
    uint32_t* arrivals = p.workspace.arrivals + cta_of(first) * 2 + group;
    const uint32_t before = atomicAdd(arrivals, 1);
    const bool is_last = before == last - first;
    if (is_last) *arrivals = 0;  // for the next launch
    __threadfence();
    shared.last_arriver[group] = is_last;
  }
  ptx::NamedBarrier(1 + group, kWarpgroupThreads);
  if (shared.last_arriver[group] == 0) return;
  __threadfence();

  float total[Traits::kN / 2];
#pragma unroll
  for (int i = 0; i < Traits::kN / 2; ++i) total[i] = 0;
  for (uint32_t worker = first; worker <= last; ++worker) {
    const float4* part = PartialOf<Traits>(p, cta_of(worker), is_first_tile_of(worker), group);
#pragma unroll
    for (int j = 0; j < Traits::kN / 8; ++j) {
      const float4 value = __ldcg(part + j * kWarpgroupThreads + thread);
      total[4 * j] += value.x;
      total[4 * j + 1] += value.y;
      total[4 * j + 2] += value.z;
      total[4 * j + 3] += value.w;
    }
  }
  StoreTile<Traits>(p, work, segment, total, thread);
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_DECODE_EPILOGUE_CUH_

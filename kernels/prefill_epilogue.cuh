// The end of an item in the prefill kernel: a consumer warpgroup's sums, 64 rows of the batch by a tile's rows of W,
// become y, box by box of W: 64 x 64 elements. A box whose columns all are y's goes through shared memory and is
// written by TMA while the next item's products run; of a ragged one in y's middle, threads write what is y's.
#ifndef DAK_KERNELS_PREFILL_EPILOGUE_CUH_
#define DAK_KERNELS_PREFILL_EPILOGUE_CUH_

#include "kernels/decode_epilogue.cuh"
#include "kernels/prefill_common.cuh"
#include "kernels/ptx/warpgroup.h"

namespace dak::kernels {

inline constexpr uint32_t kQuadsOfBox = kBoxRows / 8;  // of four sums a thread

template <bool kF16>
__device__ inline uint32_t RoundPair(float low, float high) {
  if constexpr (kF16) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

// Where a box's columns lie in y.
struct PrefillOutput {
  uint64_t column;
  uint32_t columns;  // that are y's; 0: the tile has no such box
  bool staged;       // TMA clips what is past y's end, but a ragged box of the local part has remote columns behind it
};

__device__ inline PrefillOutput OutputOf(const PrefillParams& p, const PrefillTile& tile, uint32_t i) {
  if (i >= tile.count) return {0, 0, false};
  const PrefillBox box = tile.At(i);
  const uint64_t row = uint64_t{box.index} * kBoxRows;
  const uint64_t left = (box.remote ? p.base.n - p.base.local_rows : p.base.local_rows) - row;
  const uint64_t column = row + (box.remote ? p.base.local_rows : 0);
  const auto columns = static_cast<uint32_t>(left < kBoxRows ? left : kBoxRows);
  return {column, columns, p.has_y_map && (columns == kBoxRows || column + columns == p.base.n)};
}

// Four sums at `quad` of a box: rows r and r + 8, columns c and c + 1.
template <class Traits, int kBox>
__device__ inline void WriteBox(const PrefillParams& p, const PrefillOutput& box, uint32_t batch,
                                const float (&sums)[Traits::kN / 2], uint32_t thread) {
  const uint32_t row = batch + thread / kWarpThreads * 16 + thread % kWarpThreads / 4;
  auto* const y = static_cast<uint16_t*>(p.base.y) + box.column;
#pragma unroll
  for (uint32_t quad = 0; quad < kQuadsOfBox; ++quad) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t r = row + 8 * (i / 2);
      const uint32_t c = 8 * quad + thread % 4 * 2 + i % 2;
      if (r >= p.base.batch || c >= box.columns) continue;
      y[r * p.base.n + c] = RoundToElement<Traits::kF16>(sums[4 * (kBox * kQuadsOfBox + quad) + i]);
    }
  }
}

// Lays a box out at `target` as TMA reads it: 128-byte rows, 16-byte pieces swapped by the row's number.
template <class Traits, int kBox>
__device__ inline void StageBox(uint32_t target, const float (&sums)[Traits::kN / 2], uint32_t thread) {
  const uint32_t lane = thread % kWarpThreads;
  const uint32_t row = thread / kWarpThreads * 16 + lane % 16;  // of the matrix row that this lane gives the address of
#pragma unroll
  for (uint32_t quad = 0; quad < kQuadsOfBox; quad += 2) {
    const uint32_t piece = (quad + lane / 16) ^ (row % 8);
    const float* s = &sums[4 * (kBox * kQuadsOfBox + quad)];
    ptx::StoreMatrices(target + row * 128 + piece * 16, RoundPair<Traits::kF16>(s[0], s[1]),
                       RoundPair<Traits::kF16>(s[2], s[3]), RoundPair<Traits::kF16>(s[4], s[5]),
                       RoundPair<Traits::kF16>(s[6], s[7]));
  }
}

// Two boxes, kFirst and the next, through `staging` [2] of this warpgroup.
template <class Traits, int kFirst>
__device__ inline void StoreBoxes(const PrefillParams& p, const PrefillTile& tile, uint32_t batch, uint8_t* staging,
                                  const float (&sums)[Traits::kN / 2], uint32_t thread, uint32_t barrier) {
  const PrefillOutput first = OutputOf(p, tile, kFirst);
  const PrefillOutput second = OutputOf(p, tile, kFirst + 1);
  if (first.staged || second.staged) {
    // What was staged before must have been read.
    if (thread == 0) cuda::ptx::cp_async_bulk_wait_group_read(cuda::ptx::n32_t<0>());
    ptx::SyncThreads(barrier, kWarpgroupThreads);
    const uint32_t target = ptx::SharedAddress(staging);
    if (first.staged) StageBox<Traits, kFirst>(target, sums, thread);
    if (second.staged) StageBox<Traits, kFirst + 1>(target + kBoxBytes, sums, thread);
    cuda::ptx::fence_proxy_async(cuda::ptx::space_shared);
    ptx::SyncThreads(barrier, kWarpgroupThreads);
    if (thread == 0) {
      const auto store = [&](const PrefillOutput& box, const uint8_t* from) {
        if (!box.staged) return;
        const int32_t at[2] = {static_cast<int32_t>(box.column), static_cast<int32_t>(batch)};
        cuda::ptx::cp_async_bulk_tensor(cuda::ptx::space_global, cuda::ptx::space_shared, &p.y_map, at, from);
      };
      store(first, staging);
      store(second, staging + kBoxBytes);
      cuda::ptx::cp_async_bulk_commit_group();
    }
  }
  if (!first.staged && first.columns > 0) WriteBox<Traits, kFirst>(p, first, batch, sums, thread);
  if (!second.staged && second.columns > 0) WriteBox<Traits, kFirst + 1>(p, second, batch, sums, thread);
}

// `batch` is the first row of y that the warpgroup has; there may be none.
template <class Traits>
__device__ inline void StoreItem(const PrefillParams& p, const PrefillTile& tile, uint32_t batch, uint8_t* staging,
                                 const float (&sums)[Traits::kN / 2], uint32_t thread, uint32_t barrier) {
  if (batch >= p.base.batch) return;
  StoreBoxes<Traits, 0>(p, tile, batch, staging, sums, thread, barrier);
  if constexpr (Traits::kBoxes == 4) StoreBoxes<Traits, 2>(p, tile, batch, staging, sums, thread, barrier);
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_PREFILL_EPILOGUE_CUH_

// The end of an item in the prefill kernel: a consumer warpgroup's sums, 64 rows of the batch by a tile's rows of W,
// become y, box by box of W: 64 x 64 elements. A box whose columns all are y's goes through shared memory and is
// written by TMA while the next item's products run; of a ragged one in y's middle, or one that isn't aligned, threads
// write what is y's. With SwiGLU a box is 32 columns of y: a thread has eight rows of the gate projection, and the same
// eight of the up projection beside them.
#ifndef DAK_KERNELS_PREFILL_EPILOGUE_CUH_
#define DAK_KERNELS_PREFILL_EPILOGUE_CUH_

#include "kernels/decode_epilogue.cuh"
#include "kernels/prefill_common.cuh"
#include "kernels/ptx/warpgroup.h"

namespace dak::kernels {

inline constexpr uint32_t kQuadsOfBox = kBoxRows / 8;  // of four sums a thread
// NOTE: a TMA store whose first column isn't a multiple of 16 bytes ends in "an illegal instruction" on an H100.
inline constexpr uint32_t kStagedAlignment = 8;

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
  uint64_t row;      // of W, the box's first
  uint64_t column;   // of y
  uint32_t rows;     // of W; 0: the tile has no such box
  uint32_t columns;  // of y
  bool staged;       // TMA clips what is past y's end, but a ragged box of the local part has remote columns behind it
};

__device__ inline PrefillOutput OutputOf(const PrefillParams& p, const PrefillTile& tile, uint32_t i) {
  if (i >= tile.count) return {};
  const PrefillBox box = tile.At(i);
  const uint64_t first = uint64_t{box.index} * kBoxRows;
  const uint64_t left = (box.remote ? p.base.n - p.base.local_rows : p.base.local_rows) - first;
  PrefillOutput output;
  output.row = first + (box.remote ? p.base.local_rows : 0);
  output.rows = static_cast<uint32_t>(left < kBoxRows ? left : kBoxRows);
  const uint32_t shift = p.base.epilogue.swiglu ? 1 : 0;
  output.column = output.row >> shift;
  output.columns = output.rows >> shift;
  const bool whole = output.rows == kBoxRows || output.row + output.rows == p.base.n;
  output.staged = p.has_y_map && whole && output.column % kStagedAlignment == 0;
  return output;
}

// Makes a box's sums what is stored of them. With SwiGLU they move to the box's first half.
template <class Traits, int kBox>
__device__ inline void ApplyEpilogue(const PrefillParams& p, const PrefillOutput& box, uint32_t batch,
                                     float (&sums)[Traits::kN / 2], uint32_t thread) {
  const DecodeEpilogue& epilogue = p.base.epilogue;
  const auto* const bias = static_cast<const uint16_t*>(epilogue.bias);
  const auto* const residual = static_cast<const uint16_t*>(epilogue.residual);
  const uint32_t row = batch + thread / kWarpThreads * 16 + thread % kWarpThreads / 4;
  const uint32_t column = thread % 4 * 2;
  float* const box_sums = &sums[4 * kBox * kQuadsOfBox];
  if (bias != nullptr) {
#pragma unroll
    for (uint32_t quad = 0; quad < kQuadsOfBox; ++quad) {
#pragma unroll
      for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t w_row = 8 * quad + column + i;
        if (w_row >= box.rows) continue;
        const float value = WidenElement<Traits::kF16>(bias[box.row + w_row]);
        box_sums[4 * quad + i] += value;
        box_sums[4 * quad + i + 2] += value;
      }
    }
  }
  if (epilogue.swiglu) {
#pragma unroll
    for (uint32_t i = 0; i < 4 * kQuadsOfBox / 2; ++i) {
      const uint32_t gate = i / 4 * 8 + i % 4;
      box_sums[i] = SwiGlu(box_sums[gate], box_sums[gate + 4]);
    }
  }
  if (residual == nullptr) return;
#pragma unroll
  for (uint32_t i = 0; i < 4 * kQuadsOfBox; ++i) {
    const uint32_t r = row + 8 * (i % 4 / 2);
    const uint32_t c = i / 4 * 8 + column + i % 2;
    if (r >= p.base.batch || c >= box.columns) continue;
    box_sums[i] += WidenElement<Traits::kF16>(residual[r * p.y_columns + box.column + c]);
  }
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
      y[r * p.y_columns + c] = RoundToElement<Traits::kF16>(sums[4 * (kBox * kQuadsOfBox + quad) + i]);
    }
  }
}

// Lays a box of 8 kQuads columns out at `target` as TMA reads it: rows one after another, and 16-byte pieces swapped by
// the number of the 128 bytes that they are in.
template <class Traits, int kBox, uint32_t kQuads>
__device__ inline void StageBox(uint32_t target, const float (&sums)[Traits::kN / 2], uint32_t thread) {
  constexpr uint32_t kRowBytes = kQuads * 16;
  const uint32_t lane = thread % kWarpThreads;
  const uint32_t row = thread / kWarpThreads * 16 + lane % 16;  // of the matrix row that this lane gives the address of
#pragma unroll
  for (uint32_t quad = 0; quad < kQuads; quad += 2) {
    const uint32_t piece = (quad + lane / 16) ^ (row * kRowBytes / 128 % kQuads);
    const float* s = &sums[4 * (kBox * kQuadsOfBox + quad)];
    ptx::StoreMatrices(target + row * kRowBytes + piece * 16, RoundPair<Traits::kF16>(s[0], s[1]),
                       RoundPair<Traits::kF16>(s[2], s[3]), RoundPair<Traits::kF16>(s[4], s[5]),
                       RoundPair<Traits::kF16>(s[6], s[7]));
  }
}

template <class Traits, int kBox>
__device__ inline void StageOutput(const PrefillParams& p, uint8_t* staging, const float (&sums)[Traits::kN / 2],
                                   uint32_t thread) {
  const uint32_t target = ptx::SharedAddress(staging);
  if (Traits::kEpilogue && p.base.epilogue.swiglu) {
    StageBox<Traits, kBox, kQuadsOfBox / 2>(target, sums, thread);
  } else {
    StageBox<Traits, kBox, kQuadsOfBox>(target, sums, thread);
  }
}

// Two boxes, kFirst and the next, through `staging` [2] of this warpgroup.
template <class Traits, int kFirst>
__device__ inline void StoreBoxes(const PrefillParams& p, const PrefillTile& tile, uint32_t batch, uint8_t* staging,
                                  float (&sums)[Traits::kN / 2], uint32_t thread, uint32_t barrier) {
  const PrefillOutput first = OutputOf(p, tile, kFirst);
  const PrefillOutput second = OutputOf(p, tile, kFirst + 1);
  if constexpr (Traits::kEpilogue) {
    if (first.rows > 0) ApplyEpilogue<Traits, kFirst>(p, first, batch, sums, thread);
    if (second.rows > 0) ApplyEpilogue<Traits, kFirst + 1>(p, second, batch, sums, thread);
  }
  if (first.staged || second.staged) {
    // What was staged before must have been read.
    if (thread == 0) cuda::ptx::cp_async_bulk_wait_group_read(cuda::ptx::n32_t<0>());
    ptx::SyncThreads(barrier, kWarpgroupThreads);
    if (first.staged) StageOutput<Traits, kFirst>(p, staging, sums, thread);
    if (second.staged) StageOutput<Traits, kFirst + 1>(p, staging + kBoxBytes, sums, thread);
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
  if (!first.staged && first.rows > 0) WriteBox<Traits, kFirst>(p, first, batch, sums, thread);
  if (!second.staged && second.rows > 0) WriteBox<Traits, kFirst + 1>(p, second, batch, sums, thread);
}

// `batch` is the first row of y that the warpgroup has; there may be none.
template <class Traits>
__device__ inline void StoreItem(const PrefillParams& p, const PrefillTile& tile, uint32_t batch, uint8_t* staging,
                                 float (&sums)[Traits::kN / 2], uint32_t thread, uint32_t barrier) {
  if (batch >= p.base.batch) return;
  StoreBoxes<Traits, 0>(p, tile, batch, staging, sums, thread, barrier);
  if constexpr (Traits::kBoxes == 4) StoreBoxes<Traits, 2>(p, tile, batch, staging, sums, thread, barrier);
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_PREFILL_EPILOGUE_CUH_

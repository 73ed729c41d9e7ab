// The end of a tile in the decode kernel: a consumer warpgroup's sums become y, or a share of it.
//
// A warpgroup holds one box of rows, kN columns (the batch). The CTA that does a tile's last chunk finishes the tile:
// it adds the shares of the CTAs before it, always in the same order, so that equal inputs give equal bits, and does
// the epilogue on the whole sums. Shares need no flags: their places in the workspace hold kAbsent until they come and
// again after they were taken, and no sum ever has those bits. A finisher waits only for CTAs with lower numbers, which
// have started before it.
#ifndef DAK_KERNELS_DECODE_EPILOGUE_CUH_
#define DAK_KERNELS_DECODE_EPILOGUE_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/decode_common.cuh"

namespace dak::kernels {

// A NaN that no product gives: those have other bits, and ShareOf makes sure.
inline constexpr uint32_t kAbsent = 0xFFFF'FFFF;
inline constexpr uint32_t kOtherNan = 0x7FFF'FFFF;

// A warpgroup's box of a tile.
struct Box {
  uint32_t tile;
  uint32_t row;         // its first row in the part
  uint32_t valid_rows;  // may be 0
};

template <bool kF16>
__device__ inline uint16_t RoundToElement(float value) {
  if constexpr (kF16) return __half_as_ushort(__float2half_rn(value));
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

template <bool kF16>
__device__ inline float WidenElement(uint32_t bits) {
  if constexpr (kF16) return __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
  return __uint_as_float(bits << 16);
}

// silu(gate) * up. An infinite exponential gives the 0 that is due.
__device__ inline float SwiGlu(float gate, float up) { return __fdividef(gate, 1.0f + __expf(-gate)) * up; }

// Makes a thread's sums elements of y, four at a time: rows r and r + 8 of columns b and b + 1. A column of the sums is
// a run of y's row. Two lanes swap a value each, so that each can write two neighbouring elements at once where that is
// aligned. With SwiGLU r is a row of the gate projection and r + 8 the same of the up projection.
template <class Traits>
class TileWriter {
 public:
  __device__ TileWriter(const DecodeParams& p, const WorkRange& work, const Box& box, uint32_t thread)
      : swiglu_(p.epilogue.swiglu), stride_(p.n), batch_(p.batch), valid_rows_(box.valid_rows) {
    const uint32_t warp = thread / kWarpThreads;
    const uint32_t eighth = thread % kWarpThreads / 4;
    uint64_t first_row = work.part_offset + box.row;  // of the box, in y
    row_ = warp * 16 + eighth;
    first_batch_ = thread % 4 * 2;
    if (p.epilogue.bias != nullptr) {
      const auto* bias = static_cast<const uint16_t*>(p.epilogue.bias) + first_row;
      if (row_ < valid_rows_) low_bias_ = WidenElement<Traits::kF16>(bias[row_]);
      if (row_ + 8 < valid_rows_) high_bias_ = WidenElement<Traits::kF16>(bias[row_ + 8]);
    }
    if (swiglu_) {
      row_ = warp * 8 + eighth;
      stride_ /= 2;
      valid_rows_ /= 2;
      first_row /= 2;
    }
    y_ = static_cast<uint16_t*>(p.y) + first_row;
    residual_ = static_cast<const uint16_t*>(p.epilogue.residual);
    if (residual_ != nullptr) residual_ += first_row;
    const auto addresses = reinterpret_cast<uint64_t>(y_) | reinterpret_cast<uint64_t>(residual_);
    paired_ = stride_ % 2 == 0 && addresses % 4 == 0;
  }

  __device__ void Write(int j, const float (&sums)[4]) const {
    const uint32_t batch = first_batch_ + 8 * j;
    float low[2] = {sums[0] + low_bias_, sums[1] + low_bias_};
    const float high[2] = {sums[2] + high_bias_, sums[3] + high_bias_};
    if (swiglu_) {
      low[0] = SwiGlu(low[0], high[0]);
      low[1] = SwiGlu(low[1], high[1]);
    } else {
      WriteRow(row_ + 8, batch, high);
    }
    WriteRow(row_, batch, low);
  }

 private:
  __device__ void WriteRow(uint32_t row, uint32_t batch, const float (&values)[2]) const {
    if (paired_) {
      WritePair(row, batch, values);
    } else if (row < valid_rows_) {
      if (batch < batch_) WriteOne(batch * stride_ + row, values[0]);
      if (batch + 1 < batch_) WriteOne((batch + 1) * stride_ + row, values[1]);
    }
  }

  __device__ void WritePair(uint32_t row, uint32_t batch, const float (&values)[2]) const {
    const uint32_t odd = row % 2;
    const float other = __shfl_xor_sync(~0u, odd ? values[0] : values[1], 4);
    float low = odd ? other : values[0];
    float high = odd ? values[1] : other;
    row -= odd;
    batch += odd;
    if (batch >= batch_) return;
    const uint64_t at = batch * stride_ + row;
    if (row + 1 < valid_rows_) {
      if (residual_ != nullptr) {
        const uint32_t pair = *reinterpret_cast<const uint32_t*>(residual_ + at);
        low += WidenElement<Traits::kF16>(pair & 0xFFFF);
        high += WidenElement<Traits::kF16>(pair >> 16);
      }
      const uint32_t low_bits = RoundToElement<Traits::kF16>(low);
      const uint32_t high_bits = RoundToElement<Traits::kF16>(high);
      *reinterpret_cast<uint32_t*>(y_ + at) = low_bits | high_bits << 16;
    } else if (row < valid_rows_) {
      WriteOne(at, low);
    }
  }

  __device__ void WriteOne(uint64_t at, float value) const {
    if (residual_ != nullptr) value += WidenElement<Traits::kF16>(residual_[at]);
    y_[at] = RoundToElement<Traits::kF16>(value);
  }

  bool swiglu_;
  bool paired_;
  uint64_t stride_;  // columns of y
  uint32_t batch_;
  uint32_t valid_rows_;  // that the box has in y
  uint32_t row_;
  uint32_t first_batch_;
  float low_bias_ = 0;
  float high_bias_ = 0;
  uint16_t* y_;
  const uint16_t* residual_;
};

// Where a CTA leaves a warpgroup's share: it has at most one, of the tile that its range ends in.
__device__ inline uint4* ShareOf(const DecodeParams& p, const WorkRange& work, uint32_t worker, uint32_t group) {
  const uint64_t cta = worker + (work.remote ? 0 : p.remote_ctas);
  return reinterpret_cast<uint4*>(p.workspace.shares) + (cta * 2 + group) * (kBoxRows * kMaxBatch / 4);
}

template <class Traits>
__device__ inline void LeaveShare(const DecodeParams& p, const WorkRange& work, const float (&sums)[Traits::kN / 2],
                                  uint32_t thread, uint32_t group) {
  uint4* share = ShareOf(p, work, work.worker, group) + thread;
#pragma unroll
  for (int j = 0; j < Traits::kN / 8; ++j) {
    uint32_t bits[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      bits[i] = __float_as_uint(sums[4 * j + i]);
      if (bits[i] == kAbsent) bits[i] = kOtherNan;
    }
    ptx::StoreRelaxedGpu(share + j * kWarpgroupThreads, make_uint4(bits[0], bits[1], bits[2], bits[3]));
  }
}

// Takes kCount of a share's quads, when they are there, and adds them to `total`.
template <int kCount>
__device__ inline void TakeQuads(uint4* quads, float (&total)[kCount][4]) {
  uint4 values[kCount];
  bool absent = true;
  while (absent) {
    absent = false;
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] = ptx::LoadRelaxedGpu(quads + i * kWarpgroupThreads);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      absent |= values[i].x == kAbsent || values[i].y == kAbsent || values[i].z == kAbsent || values[i].w == kAbsent;
    }
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    total[i][0] += __uint_as_float(values[i].x);
    total[i][1] += __uint_as_float(values[i].y);
    total[i][2] += __uint_as_float(values[i].z);
    total[i][3] += __uint_as_float(values[i].w);
    ptx::StoreRelaxedGpu(quads + i * kWarpgroupThreads, make_uint4(kAbsent, kAbsent, kAbsent, kAbsent));
  }
}

// Adds the shares that CTAs from number `first` to this one have of the tile, and writes y. A few columns at a time,
// since the sums take most registers.
template <class Traits>
__device__ inline void FinishTile(const DecodeParams& p, const WorkRange& work, const Box& box,
                                  const float (&sums)[Traits::kN / 2], uint32_t first, uint32_t thread,
                                  uint32_t group) {
  constexpr int kQuads = Traits::kN / 8;
  constexpr int kMost = Traits::kN < 256 || Traits::kBoxes == 1 ? 16 : 4;
  constexpr int kAtOnce = kQuads < kMost ? kQuads : kMost;
  const TileWriter<Traits> writer(p, work, box, thread);
#pragma unroll
  for (int j = 0; j < kQuads; j += kAtOnce) {
    float total[kAtOnce][4];
#pragma unroll
    for (int i = 0; i < 4 * kAtOnce; ++i) total[i / 4][i % 4] = sums[4 * j + i];
    for (uint32_t worker = first; worker < work.worker; ++worker) {
      TakeQuads<kAtOnce>(ShareOf(p, work, worker, group) + thread + j * kWarpgroupThreads, total);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) writer.Write(j + i, total[i]);
  }
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_DECODE_EPILOGUE_CUH_

// From fp32 sums to y: bias, activation, residual, rounding, and stores as wide as they can be.
#ifndef DAK_KERNELS_TILE_WRITER_CUH_
#define DAK_KERNELS_TILE_WRITER_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/gemm_launch.h"
#include "kernels/ptx/memory.h"

namespace dak::kernels {

// Where the sums of up to 64 of W's rows go.
struct OutputBox {
  void* y;
  DecodeEpilogue epilogue;
  uint64_t n;  // W's rows
  uint32_t batch;
  uint64_t w_row;  // the first of the rows
  uint32_t valid_rows;
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
// a run of y's row. Where two neighbouring elements are aligned, lanes of rows r and r + 1 swap values: the even one
// gets both of rows r and r + 1, the odd one both of rows r + 8 and r + 9, so that a warp writes whole sectors of 32
// bytes. With SwiGLU r is a row of the gate projection and r + 8 the same of the up projection; then the even lane gets
// column b, the odd one b + 1.
// NOTE: no branches where a box is whole: with one for each pair of elements, an H100 took 10 us for 64 x 256 sums.
template <bool kF16>
class TileWriter {
 public:
  __device__ TileWriter(const OutputBox& box, uint32_t thread)
      : swiglu_(box.epilogue.swiglu), stride_(box.n), batch_(box.batch), valid_rows_(box.valid_rows) {
    const uint32_t warp = thread / 32;
    const uint32_t eighth = thread % 32 / 4;
    uint64_t first_row = box.w_row;
    row_ = warp * 16 + eighth;
    first_batch_ = thread % 4 * 2;
    if (box.epilogue.bias != nullptr) {
      const auto* bias = static_cast<const uint16_t*>(box.epilogue.bias) + first_row;
      if (row_ < valid_rows_) low_bias_ = WidenElement<kF16>(bias[row_]);
      if (row_ + 8 < valid_rows_) high_bias_ = WidenElement<kF16>(bias[row_ + 8]);
    }
    const bool is_whole = valid_rows_ == 64;
    if (swiglu_) {
      row_ = warp * 8 + eighth;
      stride_ /= 2;
      valid_rows_ /= 2;
      first_row /= 2;
    }
    y_ = static_cast<uint16_t*>(box.y) + first_row;
    residual_ = static_cast<const uint16_t*>(box.epilogue.residual);
    if (residual_ != nullptr) residual_ += first_row;
    const auto addresses = reinterpret_cast<uint64_t>(y_) | reinterpret_cast<uint64_t>(residual_);
    paired_ = is_whole && stride_ % 2 == 0 && addresses % 4 == 0;
    odd_ = row_ % 2 != 0;
    pair_batch_ = first_batch_ + (swiglu_ && odd_ ? 1 : 0);
    pair_at_ = pair_batch_ * stride_ + row_ + (odd_ ? (swiglu_ ? -1 : 7) : 0);
  }

  // Quads first, first + 1, ...
  template <int kCount>
  __device__ void Write(int first, const float (&sums)[kCount][4]) const {
    if (!paired_) {
      WriteOnes(first, sums);
    } else if (swiglu_) {
      WriteGated(first, sums);
    } else {
      WritePairs(first, sums);
    }
  }

 private:
  __device__ uint32_t BatchOf(int quad) const { return first_batch_ + 8 * static_cast<uint32_t>(quad); }

  template <int kCount>
  __device__ void WritePairs(int first, const float (&sums)[kCount][4]) const {
    // What is read of the residual, and what lanes swap, is on its way before any of it is needed.
    uint32_t residuals[kCount][2] = {};
    float others[kCount][2];
    if (residual_ != nullptr) {
#pragma unroll
      for (int i = 0; i < 2 * kCount; ++i) residuals[i / 2][i % 2] = ResidualPair(first + i / 2, i % 2);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        others[i][j] = __shfl_xor_sync(~0u, odd_ ? sums[i][j] + low_bias_ : sums[i][2 + j] + high_bias_, 4);
      }
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float low = odd_ ? others[i][j] : sums[i][j] + low_bias_;
        const float high = odd_ ? sums[i][2 + j] + high_bias_ : others[i][j];
        WritePair(first + i, j, low, high, residuals[i][j]);
      }
    }
  }

  template <int kCount>
  __device__ void WriteGated(int first, const float (&sums)[kCount][4]) const {
    uint32_t residuals[kCount] = {};
    float mine[kCount][2];
    float others[kCount];
    if (residual_ != nullptr) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) residuals[i] = ResidualPair(first + i, 0);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      mine[i][0] = Gated(sums[i], 0);
      mine[i][1] = Gated(sums[i], 1);
      others[i] = __shfl_xor_sync(~0u, odd_ ? mine[i][0] : mine[i][1], 4);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      WritePair(first + i, 0, odd_ ? others[i] : mine[i][0], odd_ ? mine[i][1] : others[i], residuals[i]);
    }
  }

  template <int kCount>
  __device__ void WriteOnes(int first, const float (&sums)[kCount][4]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (uint32_t j = 0; j < 2; ++j) {
        const uint32_t batch = BatchOf(first + i) + j;
        if (batch >= batch_) continue;
        if (swiglu_) {
          if (row_ < valid_rows_) WriteOne(batch * stride_ + row_, Gated(sums[i], j));
          continue;
        }
        if (row_ < valid_rows_) WriteOne(batch * stride_ + row_, sums[i][j] + low_bias_);
        if (row_ + 8 < valid_rows_) WriteOne(batch * stride_ + row_ + 8, sums[i][2 + j] + high_bias_);
      }
    }
  }

  __device__ float Gated(const float (&quad)[4], uint32_t j) const {
    return SwiGlu(quad[j] + low_bias_, quad[2 + j] + high_bias_);
  }

  // The j-th pair of elements of this lane in a quad: whether y has it, and where it is.
  __device__ bool HasPair(int quad, int j) const { return pair_batch_ + 8 * quad + j < batch_; }
  __device__ uint64_t PairAt(int quad, int j) const { return pair_at_ + static_cast<uint32_t>(8 * quad + j) * stride_; }

  __device__ uint32_t ResidualPair(int quad, int j) const {
    return ptx::LoadIf(reinterpret_cast<const uint32_t*>(residual_ + PairAt(quad, j)), HasPair(quad, j), 0);
  }

  __device__ void WritePair(int quad, int j, float low, float high, uint32_t residuals) const {
    const uint32_t low_bits = RoundToElement<kF16>(low + WidenElement<kF16>(residuals & 0xFFFF));
    const uint32_t high_bits = RoundToElement<kF16>(high + WidenElement<kF16>(residuals >> 16));
    ptx::StoreIf(reinterpret_cast<uint32_t*>(y_ + PairAt(quad, j)), low_bits | high_bits << 16, HasPair(quad, j));
  }

  __device__ void WriteOne(uint64_t at, float value) const {
    if (residual_ != nullptr) value += WidenElement<kF16>(residual_[at]);
    y_[at] = RoundToElement<kF16>(value);
  }

  bool swiglu_;
  bool paired_;
  bool odd_;
  uint64_t stride_;  // columns of y
  uint32_t batch_;
  uint32_t valid_rows_;  // that the box has in y
  uint32_t row_;
  uint32_t first_batch_;
  uint32_t pair_batch_;  // of quad 0's first pair
  uint64_t pair_at_;     // in elements
  float low_bias_ = 0;
  float high_bias_ = 0;
  uint16_t* y_;
  const uint16_t* residual_;
};

}  // namespace dak::kernels

#endif  // DAK_KERNELS_TILE_WRITER_CUH_

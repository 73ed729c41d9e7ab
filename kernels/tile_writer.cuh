// From fp32 sums to y: bias, activation, residual, rounding, and stores as wide as they can be.
#ifndef DAK_KERNELS_TILE_WRITER_CUH_
#define DAK_KERNELS_TILE_WRITER_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/gemm_launch.h"

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
// a run of y's row. Two lanes swap a value each, so that each can write two neighbouring elements at once where that is
// aligned. With SwiGLU r is a row of the gate projection and r + 8 the same of the up projection.
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
        low += WidenElement<kF16>(pair & 0xFFFF);
        high += WidenElement<kF16>(pair >> 16);
      }
      const uint32_t low_bits = RoundToElement<kF16>(low);
      const uint32_t high_bits = RoundToElement<kF16>(high);
      *reinterpret_cast<uint32_t*>(y_ + at) = low_bits | high_bits << 16;
    } else if (row < valid_rows_) {
      WriteOne(at, low);
    }
  }

  __device__ void WriteOne(uint64_t at, float value) const {
    if (residual_ != nullptr) value += WidenElement<kF16>(residual_[at]);
    y_[at] = RoundToElement<kF16>(value);
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

}  // namespace dak::kernels

#endif  // DAK_KERNELS_TILE_WRITER_CUH_

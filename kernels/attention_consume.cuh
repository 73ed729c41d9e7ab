// The consumer's half of the attention kernel: a warp multiplies blocks as they come.
//
// Four warps; each has a tile of up to 16 of the group's query heads, and where the group needs fewer than four tiles,
// the warps of one tile take blocks in turn. A warp keeps its own largest score, sum and output, so warps meet only
// where a piece ends.
#ifndef DAK_KERNELS_ATTENTION_CONSUME_CUH_
#define DAK_KERNELS_ATTENTION_CONSUME_CUH_

#include "kernels/attention_pieces.cuh"
#include "kernels/ptx/mma.h"

namespace dak::kernels {

// One warp's state in a piece. Of a lane: rows lane / 4 and lane / 4 + 8 of its tile.
template <class Traits>
class Accumulator {
 public:
  // The tile's rows of q [batch, heads, head_dim]; rows past the group are 0.
  __device__ void Start(const AttentionParams& p, const Place& place, const Turn& turn, uint32_t lane) {
    const uint32_t row = turn.tile * kTileRows + lane / 4;
    const uint64_t first_head = uint64_t{place.sequence} * p.heads + place.head * p.group;
    const uint16_t* q = p.q + (first_head + row) * Traits::kHeadDim + lane % 4 * 2;
#pragma unroll
    for (uint32_t step = 0; step < Traits::kSteps; ++step) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        const bool valid = row + i % 2 * 8 < p.group;
        const uint16_t* pair = q + i % 2 * 8 * Traits::kHeadDim + step * 16 + i / 2 * 8;
        q_[step][i] = valid ? *reinterpret_cast<const uint32_t*>(pair) : 0;
      }
    }
    largest_[0] = largest_[1] = -INFINITY;
    sums_[0] = sums_[1] = 0;
#pragma unroll
    for (uint32_t i = 0; i < 2 * Traits::kSteps; ++i) {
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j) outputs_[i][j] = 0;
    }
  }

  // Adds the block at shared address `block`. kMasked: only its first `valid` tokens, and what lies behind them may be
  // anything.
  template <bool kMasked>
  __device__ void Add(uint32_t block, uint32_t valid, float scale, uint32_t lane) {
    float scores[2][4] = {};
    Score(block, scores, lane);
    uint32_t p[4];
    const uint32_t column = lane % 4 * 2;
    float largest[2] = {largest_[0], largest_[1]};
#pragma unroll
    for (uint32_t j = 0; j < 2; ++j) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        scores[j][i] *= scale;
        if (kMasked && j * 8 + column + i % 2 >= valid) scores[j][i] = -INFINITY;
        largest[i / 2] = fmaxf(largest[i / 2], scores[j][i]);
      }
    }
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(~0u, largest[i], 1));
      largest[i] = fmaxf(largest[i], __shfl_xor_sync(~0u, largest[i], 2));
    }
    Rescale(largest);
#pragma unroll
    for (uint32_t j = 0; j < 2; ++j) {
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i) {
        scores[j][i] = ptx::Exp2(scores[j][i] - largest_[i / 2]);
        sums_[i / 2] += scores[j][i];
      }
      p[2 * j] = PackElements<Traits::kF16>(scores[j][0], scores[j][1]);
      p[2 * j + 1] = PackElements<Traits::kF16>(scores[j][2], scores[j][3]);
    }
    AddValues<kMasked>(block + Traits::kValuesOffset, p, valid, lane);
  }

  // Before Leave: sums of whole rows.
  __device__ void Finish() {
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      sums_[i] += __shfl_xor_sync(~0u, sums_[i], 1);
      sums_[i] += __shfl_xor_sync(~0u, sums_[i], 2);
    }
  }

  // Leaves the group's rows of a half of the tile in the scratch memory.
  __device__ void Leave(const AttentionParams& p, const Turn& turn, uint32_t half, float* scratch,
                        AttentionShared& shared, uint32_t warp, uint32_t lane) const {
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      if (i != half || turn.tile * kTileRows + kScratchRows * i + lane / 4 >= p.group) continue;
      const uint32_t at = warp * kScratchRows + lane / 4;
      float* target = scratch + at * Traits::kScratchColumns + lane % 4 * 2;
#pragma unroll
      for (uint32_t j = 0; j < 2 * Traits::kSteps; ++j) {
        *reinterpret_cast<float2*>(target + 8 * j) = make_float2(outputs_[j][2 * i], outputs_[j][2 * i + 1]);
      }
      if (lane % 4 == 0) shared.statistics[at] = make_float2(largest_[i], sums_[i]);
    }
  }

 private:
  // The shared address of a lane's row of 8 elements for ldmatrix: token `token`, columns 16 step + 8 half.
  template <class Visitor>
  __device__ static void ForSteps(uint32_t matrix, uint32_t token, uint32_t half, const Visitor& visit) {
    const uint32_t row = matrix + token * Traits::kPanel * 2;
#pragma unroll
    for (uint32_t step = 0; step < Traits::kSteps; ++step) {
      if constexpr (Traits::kSwizzled) {
        const uint32_t panel = row + step / 4 * Traits::kPanelBytes;
        visit(step, panel + ((step % 4 * 2 ^ (half ^ token % 8)) << 4));
      } else {
        visit(step, row + (step * 2 + half) * 16);
      }
    }
  }

  // scores += q k^T: two tiles of eight tokens.
  __device__ void Score(uint32_t keys, float (&scores)[2][4], uint32_t lane) const {
    ForSteps(keys, lane / 16 * 8 + lane % 8, lane / 8 % 2, [&](uint32_t step, uint32_t address) {
      uint32_t k[4];
      ptx::LoadMatrices(k, address);
      ptx::Mma<Traits::kF16>(scores[0], q_[step], k[0], k[1]);
      ptx::Mma<Traits::kF16>(scores[1], q_[step], k[2], k[3]);
    });
  }

  // outputs += p v. A weight of 0 doesn't make a value that isn't a number 0, so those past the end are cleared.
  template <bool kMasked>
  __device__ void AddValues(uint32_t values, const uint32_t (&p)[4], uint32_t valid, uint32_t lane) {
    uint32_t masks[2] = {~0u, ~0u};
    if constexpr (kMasked) {
#pragma unroll
      for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t token = 8 * i + lane % 4 * 2;
        masks[i] = token + 1 < valid ? ~0u : token < valid ? 0xFFFF : 0;
      }
    }
    ForSteps(values, lane % 16, lane / 16, [&](uint32_t step, uint32_t address) {
      uint32_t v[4];
      ptx::LoadMatricesTransposed(v, address);
      if constexpr (kMasked) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) v[i] &= masks[i % 2];
      }
      ptx::Mma<Traits::kF16>(outputs_[2 * step], p, v[0], v[1]);
      ptx::Mma<Traits::kF16>(outputs_[2 * step + 1], p, v[2], v[3]);
    });
  }

  __device__ void Rescale(const float (&largest)[2]) {
    const float factors[2] = {ptx::Exp2(largest_[0] - largest[0]), ptx::Exp2(largest_[1] - largest[1])};
    const bool same = largest[0] == largest_[0] && largest[1] == largest_[1];
    largest_[0] = largest[0];
    largest_[1] = largest[1];
    if (__all_sync(~0u, same)) return;
    sums_[0] *= factors[0];
    sums_[1] *= factors[1];
#pragma unroll
    for (uint32_t i = 0; i < 2 * Traits::kSteps; ++i) {
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j) outputs_[i][j] *= factors[j / 2];
    }
  }

  uint32_t q_[Traits::kSteps][4];
  float outputs_[2 * Traits::kSteps][4];  // of tiles of eight columns
  float largest_[2];                      // score, to base 2
  float sums_[2];                         // of this lane's columns
};

// ---- The role -------------------------------------------------------------------------------------------------------

template <class Traits>
__device__ inline void Consume(const AttentionParams& p, const AttentionWork& work, uint32_t ring_address,
                               float* scratch, AttentionShared& shared, uint32_t warp, uint32_t lane) {
  const Turn turn = Turn::Of(p.group, warp);
  Accumulator<Traits> accumulator;
  uint32_t next = turn.split;  // block of this CTA that is this warp's next
  for (uint32_t index = work.begin; index < work.end;) {
    const Place place = Locate(p, shared, work.kind, index);
    const uint32_t count = min(place.blocks - place.block, work.end - index);
    const uint32_t piece_begin = index - work.begin;
    accumulator.Start(p, place, turn, lane);
    if (threadIdx.x == 0) shared.pieces = PiecesOf(p, work, shared, place);  // while q is on its way
    for (; next < piece_begin + count; next += turn.splits) {
      const uint32_t stage = next % Traits::kWStages;
      const uint32_t block = ring_address + stage * Traits::kStageBytes;
      const bool is_last = place.block + (next - piece_begin) + 1 == place.blocks;
      const uint32_t valid = is_last ? shared.last_block_tokens[work.kind][place.sequence] : kBlockTokens;
      WaitFor(&shared.w_full[stage], next / Traits::kWStages % 2);
      if (valid == kBlockTokens) {
        accumulator.template Add<false>(block, valid, p.scale, lane);
      } else {
        accumulator.template Add<true>(block, valid, p.scale, lane);
      }
      __syncwarp();
      if (lane == 0) cuda::ptx::mbarrier_arrive(&shared.w_empty[stage]);
    }
    EndPiece<Traits>(p, work, turn, place, accumulator, scratch, shared, threadIdx.x);
    index += count;
  }
}

// Sequences without context: 0.
template <class Traits>
__device__ inline void ClearEmpty(const AttentionParams& p, const AttentionShared& shared, uint32_t thread) {
  for (uint32_t sequence = blockIdx.x; sequence < p.batch; sequence += gridDim.x) {
    if (BlocksOf(shared, kLocal, sequence) + BlocksOf(shared, kRemote, sequence) > 0) continue;
    auto* out = reinterpret_cast<uint2*>(p.out + uint64_t{sequence} * p.heads * Traits::kHeadDim);
    for (uint32_t i = thread; i < p.heads * Traits::kHeadDim / 4; i += kConsumerThreads) out[i] = make_uint2(0, 0);
  }
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_ATTENTION_CONSUME_CUH_

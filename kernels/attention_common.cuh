// What the roles of the attention kernel share: parameters, shared memory, the division of work.
#ifndef DAK_KERNELS_ATTENTION_COMMON_CUH_
#define DAK_KERNELS_ATTENTION_COMMON_CUH_

#include "kernels/attention_params.cuh"
#include "kernels/decode_common.cuh"

namespace dak::kernels {

inline constexpr uint32_t kConsumerWarps = 4;
inline constexpr uint32_t kConsumerThreads = kConsumerWarps * kWarpThreads;
inline constexpr uint32_t kAttentionThreads = kConsumerThreads + 2 * kWarpThreads;  // and the producer's, the meter's
inline constexpr uint32_t kTileRows = 16;                                           // query heads of a matrix product
inline constexpr uint32_t kScratchRows = 8;                                         // of a warp's results at once
inline constexpr uint32_t kAttentionControlBytes = 7168;                            // after ring and scratch memory
inline constexpr uint32_t kSequencesPerThread = kMaxAttentionBatch / kConsumerThreads;
static_assert(kMaxGroup <= kConsumerWarps * kTileRows);

// How a template instance lies in shared memory: a ring of blocks, then the consumer warps' results, then the rest.
// A block is keys, then values; each is in panels of kPanel columns. Where a row of a panel has 128 bytes TMA swizzles
// it, else rows are short of a multiple of 128 bytes and bank conflicts are few.
template <int kDim, bool kF16Elements>
struct AttentionTraits {
  static constexpr bool kF16 = kF16Elements;
  static constexpr uint32_t kHeadDim = kDim;
  static constexpr bool kSwizzled = kDim % 64 == 0;
  static constexpr uint32_t kPanel = kSwizzled ? 64 : kDim;
  static constexpr uint32_t kPanels = kDim / kPanel;
  static constexpr uint32_t kPanelBytes = kBlockTokens * kPanel * 2;
  static constexpr uint32_t kSteps = kDim / 16;
  static constexpr uint32_t kStageBytes = BlockBytes(kDim);
  static constexpr uint32_t kValuesOffset = kStageBytes / 2;
  static constexpr uint32_t kScratchColumns = kDim + 8;  // eight rows of float2 in eight different places of the banks
  static constexpr uint32_t kScratchBytes = kConsumerWarps * kScratchRows * kScratchColumns * sizeof(float);
  static constexpr uint32_t kRoom = kSharedBytes - kSwizzleAtomBytes - kScratchBytes - kAttentionControlBytes;
  static constexpr uint32_t kFit = kRoom / kStageBytes;
  static constexpr uint32_t kWStages = RingStages(kFit < kMaxWStages ? kFit : kMaxWStages, kConsumerWarps);
  static constexpr uint32_t kRingBytes = kWStages * kStageBytes;
  static constexpr uint32_t kLaunchBytes = kSwizzleAtomBytes + kRingBytes + kScratchBytes + kAttentionControlBytes;
  static_assert(kWStages > 0 && kWStages % kConsumerWarps == 0, "a stage's blocks must be one warp's");
  static_assert(kStageBytes % kSwizzleAtomBytes == 0 && kValuesOffset % 128 == 0);
  static_assert(!kSwizzled || kPanelBytes % kSwizzleAtomBytes == 0);
};

enum Kind : uint32_t { kLocal = 0, kRemote = 1 };

// The pieces of a task: in each kind, those of CTAs first to first + counts - 1.
struct Pieces {
  uint32_t task;
  uint32_t count;
  uint32_t first[2];
  uint32_t counts[2];
};

// Behind the rings; decode_remote.cuh uses the names that DecodeShared has too.
struct AttentionShared {
  uint64_t w_full[kMaxWStages];
  uint64_t w_empty[kMaxWStages];
  uint2 issues[kMaxWStages];
  LinkWords words;
  uint32_t is_last;                                  // of a task's pieces
  uint32_t warp_blocks[2][kConsumerWarps];           // of a kind, in the sequences of a warp's threads
  float2 statistics[kConsumerWarps * kScratchRows];  // largest score and sum of each row of the scratch memory
  Pieces pieces;                                     // of the task that is being worked on
  uint32_t first_block[2][kMaxAttentionBatch + 1];   // of a sequence, in blocks of one KV head; last: all
  uint8_t last_block_tokens[2][kMaxAttentionBatch];  // of a sequence
};
static_assert(sizeof(AttentionShared) <= kAttentionControlBytes);

// A block of a kind.
struct Place {
  uint32_t sequence;
  uint32_t head;
  uint32_t block;
  uint32_t blocks;  // of this sequence and head
};

// What a CTA works on; decode_remote.cuh uses `worker` and `workers`.
struct AttentionWork {
  KindWork kinds[2];
  Kind kind;
  uint32_t worker;
  uint32_t workers;
  uint32_t begin;  // blocks of its kind
  uint32_t end;
};

__device__ inline Place Locate(const AttentionParams& p, const AttentionShared& shared, Kind kind, uint32_t index) {
  const uint32_t* first = shared.first_block[kind];
  const uint32_t column = index / p.kv_heads;
  uint32_t low = 0;
  uint32_t high = p.batch;  // first[low] <= column < first[high]
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    if (first[middle] <= column) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const uint32_t blocks = first[low + 1] - first[low];
  const uint32_t inside = index - first[low] * p.kv_heads;
  return {low, inside / blocks, inside % blocks, blocks};
}

__device__ inline uint32_t BlocksOf(const AttentionShared& shared, Kind kind, uint32_t sequence) {
  return shared.first_block[kind][sequence + 1] - shared.first_block[kind][sequence];
}

// The number in its pool of the page that a block lies in.
__device__ inline uint32_t PageOf(const AttentionParams& p, const AttentionShared& shared, Kind kind,
                                  const Place& place) {
  uint32_t entry = place.block * kBlockTokens >> p.page_shift;
  if (kind == kLocal) {
    const uint32_t remote_tokens = BlocksOf(shared, kRemote, place.sequence) * kBlockTokens;
    entry += (remote_tokens + (1u << p.page_shift) - 1) >> p.page_shift;
  }
  return static_cast<uint32_t>(p.block_table[uint64_t{place.sequence} * p.max_pages + entry]);
}

// Sums up the blocks of every sequence, by the consumers' threads; the others pass through.
__device__ inline void CountBlocks(const AttentionParams& p, AttentionShared& shared) {
  const uint32_t first = threadIdx.x * kSequencesPerThread;
  const uint32_t lane = threadIdx.x % kWarpThreads;
  const uint32_t warp = threadIdx.x / kWarpThreads;
  uint32_t blocks[2][kSequencesPerThread] = {};
  uint32_t before[2] = {};  // in the sequences of this warp's threads before this one
  if (warp < kConsumerWarps) {
    uint32_t sums[2] = {};
#pragma unroll
    for (uint32_t j = 0; j < kSequencesPerThread; ++j) {
      const uint32_t sequence = first + j;
      if (sequence >= p.batch) break;
      const auto most = static_cast<int32_t>(p.max_pages << p.page_shift);
      const auto length = static_cast<uint32_t>(max(0, min(p.lengths[sequence], most)));
      uint32_t tokens[2] = {length, 0};
      if (p.remote_counts != nullptr) {
        const auto pages =
            static_cast<uint32_t>(max(0, min(p.remote_counts[sequence], static_cast<int32_t>(p.max_pages))));
        tokens[kRemote] = min(length, pages << p.page_shift);
        tokens[kLocal] = length - tokens[kRemote];
      }
#pragma unroll
      for (uint32_t kind = 0; kind < 2; ++kind) {
        blocks[kind][j] = (tokens[kind] + kBlockTokens - 1) / kBlockTokens;
        shared.last_block_tokens[kind][sequence] =
            static_cast<uint8_t>(tokens[kind] - (blocks[kind][j] - 1) * kBlockTokens);
        sums[kind] += blocks[kind][j];
      }
    }
#pragma unroll
    for (uint32_t kind = 0; kind < 2; ++kind) {
      uint32_t sum = sums[kind];
#pragma unroll
      for (uint32_t step = 1; step < kWarpThreads; step *= 2) {
        const uint32_t other = __shfl_up_sync(~0u, sum, step);
        if (lane >= step) sum += other;
      }
      before[kind] = sum - sums[kind];
      if (lane == kWarpThreads - 1) shared.warp_blocks[kind][warp] = sum;
    }
  }
  __syncthreads();
  if (warp < kConsumerWarps) {
#pragma unroll
    for (uint32_t kind = 0; kind < 2; ++kind) {
      uint32_t sum = before[kind];
      for (uint32_t other = 0; other < warp; ++other) sum += shared.warp_blocks[kind][other];
#pragma unroll
      for (uint32_t j = 0; j < kSequencesPerThread; ++j) {
        if (first + j > p.batch) break;
        shared.first_block[kind][first + j] = sum;
        sum += blocks[kind][j];
      }
      // The full batch's end is no thread's first.
      if (first + kSequencesPerThread == kMaxAttentionBatch) shared.first_block[kind][kMaxAttentionBatch] = sum;
    }
  }
  __syncthreads();
}

// This CTA's part. A CTA without any has begin == end.
__device__ inline AttentionWork DivideBlocks(const AttentionParams& p, const AttentionShared& shared) {
  AttentionWork work;
  work.kinds[kLocal].total = shared.first_block[kLocal][p.batch] * p.kv_heads;
  work.kinds[kRemote].total = shared.first_block[kRemote][p.batch] * p.kv_heads;
  const CtaCounts counts =
      DivideCtas(p.plan, p.batch * p.kv_heads, work.kinds[kLocal].total, work.kinds[kRemote].total);
  work.kinds[kLocal].workers = counts.local;
  work.kinds[kRemote].workers = counts.remote;
  work.kind = blockIdx.x < counts.remote ? kRemote : kLocal;
  work.worker = work.kind == kRemote ? blockIdx.x : blockIdx.x - counts.remote;
  work.workers = work.kinds[work.kind].workers;
  work.begin = 0;
  work.end = 0;
  if (work.worker < work.workers) {
    work.begin = work.kinds[work.kind].BeginOf(work.worker);
    work.end = work.kinds[work.kind].BeginOf(work.worker + 1);
  }
  return work;
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_ATTENTION_COMMON_CUH_

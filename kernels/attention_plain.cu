// Decode attention by plain loads, for architecture 8.0 and up. docs/kernels-attention.md says what it gives up for
// that.
//
// The division of work, the mathematics and the merging are the other kernel's. Blocks come in rounds: all threads copy
// a few, wait, and multiply them. Two CTAs an SM, so that one copies while the other multiplies. A remote CTA's rounds
// are as large as its share of the window, with the same meter (decode_remote.cuh).
#include <algorithm>

#include "kernels/attention_common.cuh"
#include "kernels/attention_consume.cuh"
#include "kernels/attention_plain_launch.h"
#include "kernels/decode_remote.cuh"
#include "kernels/ptx/async_copy.h"

namespace dak::kernels {
namespace {

constexpr uint32_t kPlainThreads = kConsumerThreads + kWarpThreads;  // and the meter's
constexpr uint32_t kRoundBlocks = 8;
constexpr uint32_t kVectorBytes = 16;
constexpr uint32_t kPlainControlBytes = kAttentionControlBytes;

template <int kDim, bool kF16Elements>
struct PlainTraits : AttentionTraits<kDim, kF16Elements> {
  using Base = AttentionTraits<kDim, kF16Elements>;
  // A round's blocks, and at a piece's end the warps' results in the same place.
  static constexpr uint32_t kRoundBytes = kRoundBlocks * Base::kStageBytes;
  static constexpr uint32_t kPlaceBytes = std::max(kRoundBytes, Base::kScratchBytes);
  static constexpr uint32_t kLaunchBytes = kSwizzleAtomBytes + kPlaceBytes + kPlainControlBytes;
  static_assert(kLaunchBytes <= 99 * 1024, "more than architecture 8.6 has");
};

struct PlainParams {
  AttentionParams attention;  // without maps
  PlainPools pools;
};

struct PlainShared {
  AttentionShared attention;
  uint32_t room;  // blocks of the next round
};
static_assert(sizeof(PlainShared) <= kPlainControlBytes);

// Where the vector of 8 elements at `column` of a token lies in a block's half: as TMA writes it.
template <class Traits>
__device__ inline uint32_t OffsetOf(uint32_t token, uint32_t vector) {
  const uint32_t row = token * Traits::kPanel * 2;
  if constexpr (Traits::kSwizzled) {
    return vector / 8 * Traits::kPanelBytes + row + ((vector % 8 ^ token % 8) << 4);
  } else {
    return row + vector * kVectorBytes;
  }
}

// Starts to copy a block to shared address `target`; of a page that isn't in the pool, zeros.
template <class Traits>
__device__ inline void CopyBlock(const PlainParams& p, const AttentionShared& shared, Kind kind, const Place& place,
                                 uint32_t target, uint32_t thread) {
  constexpr uint32_t kRowVectors = Traits::kHeadDim / 8;
  constexpr uint32_t kHalfVectors = kBlockTokens * kRowVectors;
  const uint64_t page_tokens = uint64_t{1} << p.attention.page_shift;
  const uint32_t page = PageOf(p.attention, shared, kind, place);
  const bool inside = page < p.pools.pages[kind];
  const uint64_t token = place.block * kBlockTokens % page_tokens;
  const uint64_t row = (uint64_t{page} * p.attention.kv_heads + place.head) * 2 * page_tokens + token;
  const uint16_t* pool = p.pools.pools[kind];
  for (uint32_t i = thread; i < 2 * kHalfVectors; i += kConsumerThreads) {
    const uint32_t half = i / kHalfVectors;
    const uint32_t token_row = i % kHalfVectors / kRowVectors;
    const uint32_t vector = i % kRowVectors;
    const uint16_t* source = pool + (row + half * page_tokens + token_row) * Traits::kHeadDim + vector * 8;
    ptx::CopyAsync(target + half * Traits::kValuesOffset + OffsetOf<Traits>(token_row, vector), inside ? source : pool,
                   inside ? kVectorBytes : 0);
  }
}

// What the first thread of a remote CTA reports of a round.
class RoundReport {
 public:
  explicit __device__ RoundReport(AttentionShared& shared) : shared_(shared) {}
  __device__ void OnIssue(uint32_t bytes) {
    start_clock_ = static_cast<uint32_t>(clock());
    issued_bytes_ += bytes;
    shared_.words.issued_bytes.Store(issued_bytes_);
    if (bytes > shared_.words.most_inflight_bytes.Load()) shared_.words.most_inflight_bytes.Store(bytes);
  }
  __device__ void OnReturn() {
    clocks_ += static_cast<uint32_t>(clock()) - start_clock_;
    shared_.words.round_trip_clocks.Store(clocks_);
    shared_.words.round_trips.Store(++rounds_);
    shared_.words.returned_bytes.Store(issued_bytes_);
  }

 private:
  AttentionShared& shared_;
  uint32_t start_clock_ = 0;
  uint32_t rounds_ = 0;
  uint64_t clocks_ = 0;
  uint64_t issued_bytes_ = 0;
};

// Blocks of the next round: of a remote CTA, what its share holds, once that is one.
template <class Traits>
__device__ inline uint32_t RoomFor(const AttentionWork& work, const AttentionShared& shared, uint32_t left) {
  uint32_t room = min(left, kRoundBlocks);
  if (work.kind == kLocal) return room;
  uint32_t share = 0;
  while (share == 0) share = shared.words.share_bytes.Load() / Traits::kStageBytes;
  return min(room, share);
}

template <class Traits>
__device__ inline void RunPieces(const PlainParams& p, const AttentionWork& work, uint8_t* place_of_round,
                                 PlainShared& plain, uint32_t warp, uint32_t lane) {
  AttentionShared& shared = plain.attention;
  const uint32_t thread = threadIdx.x;
  const uint32_t ring = ptx::SharedAddress(place_of_round);
  auto* scratch = reinterpret_cast<float*>(place_of_round);
  const Turn turn = Turn::Of(p.attention.group, warp);
  const bool reports = work.kind == kRemote && thread == 0;
  RoundReport report(shared);
  if (reports) OpenLink(p.attention, work, shared);
  Accumulator<Traits> accumulator;
  for (uint32_t index = work.begin; index < work.end;) {
    Place place = Locate(p.attention, shared, work.kind, index);
    const uint32_t end = min(place.block + work.end - index, place.blocks);
    index += end - place.block;
    const Place piece = place;
    accumulator.Start(p.attention, piece, turn, lane);
    if (thread == 0) shared.pieces = PiecesOf(p.attention, work, shared, piece);
    while (place.block < end) {
      if (thread == 0) plain.room = RoomFor<Traits>(work, shared, end - place.block);
      MeetConsumers();
      const uint32_t blocks = plain.room;
      if (reports) report.OnIssue(blocks * Traits::kStageBytes);
      for (uint32_t i = 0; i < blocks; ++i) {
        const Place at{place.sequence, place.head, place.block + i, place.blocks};
        CopyBlock<Traits>(p, shared, work.kind, at, ring + i * Traits::kStageBytes, thread);
      }
      ptx::CommitCopies();
      ptx::WaitForCopies<0>();
      MeetConsumers();
      if (reports) report.OnReturn();
      for (uint32_t i = turn.split; i < blocks; i += turn.splits) {
        const bool is_last = place.block + i + 1 == place.blocks;
        const uint32_t valid = is_last ? shared.last_block_tokens[work.kind][place.sequence] : kBlockTokens;
        accumulator.template Add<true>(ring + i * Traits::kStageBytes, valid, p.attention.scale, lane);
      }
      place.block += blocks;
      MeetConsumers();
    }
    EndPiece<Traits>(p.attention, work, turn, piece, accumulator, scratch, shared, thread);
  }
  if (reports) shared.words.drained.Store(1);
}

template <class Traits>
__global__ __launch_bounds__(kPlainThreads) void PlainAttention(const __grid_constant__ PlainParams p) {
  extern __shared__ uint8_t raw[];
  uint8_t* place = raw + (kSwizzleAtomBytes - ptx::SharedAddress(raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
  auto& shared = *reinterpret_cast<PlainShared*>(place + Traits::kPlaceBytes);
  if (threadIdx.x == 0) shared.attention.words.Reset();
  CountBlocks(p.attention, shared.attention);
  const AttentionWork work = DivideBlocks(p.attention, shared.attention);
  const uint32_t warp = threadIdx.x / kWarpThreads;
  if (warp < kConsumerWarps) {
    ClearEmpty<Traits>(p.attention, shared.attention, threadIdx.x);
    RunPieces<Traits>(p, work, place, shared, warp, threadIdx.x % kWarpThreads);
  } else if (threadIdx.x == kConsumerThreads) {
    if (work.kind == kRemote) {
      RunMeter(p.attention, work, shared.attention);
    } else if (blockIdx.x == 0) {
      CountLocalLaunch(p.attention);
    }
  }
}

}  // namespace

cudaError_t PreparePlainAttention() {
  cudaError_t error = cudaSuccess;
  for (const uint32_t head_dim : {64u, 80u, 96u, 128u}) {
    for (const bool f16 : {false, true}) {
      ForHeadDim<PlainTraits>(head_dim, f16, [&](auto instance) {
        using Traits = decltype(instance);
        if (error != cudaSuccess) return;
        error = cudaFuncSetAttribute(PlainAttention<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     Traits::kLaunchBytes);
      });
    }
  }
  return error;
}

cudaError_t LaunchPlainAttention(const AttentionLaunch& launch, const PlainPools& pools, cudaStream_t stream) {
  PlainParams params{};
  params.pools = pools;
  if (!MakeParams(launch, params.attention)) return cudaErrorInvalidValue;
  cudaError_t error = cudaErrorInvalidValue;
  ForHeadDim<PlainTraits>(launch.head_dim, launch.f16, [&](auto instance) {
    using Traits = decltype(instance);
    PlainAttention<Traits><<<launch.plan.ctas, kPlainThreads, Traits::kLaunchBytes, stream>>>(params);
    error = cudaGetLastError();
  });
  return error;
}

}  // namespace dak::kernels

// Decode attention for sm_90a. docs/kernels-attention.md explains its phases, traffic and bounds.
#include "kernels/attention_common.cuh"
#include "kernels/attention_consume.cuh"
#include "kernels/attention_launch.h"
#include "kernels/decode_remote.cuh"
#include "kernels/ptx/tma_4d.h"

namespace dak::kernels {
namespace {

// ---- Producer: a warp that keeps the ring full ----------------------------------------------------------------------

// Its lanes look up 32 blocks' pages at once, one batch ahead, so that no read waits for the block table; its first
// lane starts the reads.
template <class Traits>
class PageProducer {
 public:
  __device__ PageProducer(const AttentionParams& p, const AttentionWork& work, uint8_t* ring, AttentionShared& shared,
                          uint32_t lane)
      : p_(p), work_(work), ring_(ring), shared_(shared), lane_(lane), policy_(ptx::EvictFirstPolicy()) {}

  __device__ void RunLocal() {
    if (lane_ == 0) ptx::PrefetchTensorMap(&p_.local_map);
    const uint32_t most = min(p_.plan.inflight_blocks, Traits::kWStages);
    ForBlocks([&](uint32_t i, int32_t row) {
      WaitFor(&shared_.w_empty[place_.stage], place_.phase ^ 1);
      if (i >= most) {
        WaitFor(&shared_.w_full[oldest_.stage], oldest_.phase);
        oldest_.Advance(Traits::kWStages);
      }
      Load(&p_.local_map, row);
    });
  }

  __device__ void RunRemote() {
    if (lane_ == 0) {
      ptx::PrefetchTensorMap(&p_.remote_map);
      OpenLink(p_, work_, shared_);
    }
    __syncwarp();
    RemoteGate<Traits, AttentionShared> gate(shared_);
    ForBlocks([&](uint32_t, int32_t row) {
      WaitFor(&shared_.w_empty[place_.stage], place_.phase ^ 1);
      gate.WaitForRoom(Traits::kStageBytes);
      gate.OnIssue(place_.stage, Traits::kStageBytes);
      Load(&p_.remote_map, row);
    });
    if (lane_ == 0) {
      gate.Drain();
      shared_.words.drained.Store(1);
    }
  }

 private:
  struct BlockRow {
    int32_t row;   // of the pool, of head_dim elements, that the block's keys start in
    bool is_last;  // has the sequence's last token, which the launch before may be writing
  };

  // Calls `read` on the first lane with every block's number in this CTA and its row. A ring is filled while the launch
  // before ends, and no further than to a block that the launch before may be writing.
  template <class Read>
  __device__ void ForBlocks(const Read& read) {
    BlockRow mine = RowOf(work_.begin + lane_);
    for (uint32_t begin = work_.begin; begin < work_.end; begin += kWarpThreads) {
      const BlockRow next = RowOf(begin + kWarpThreads + lane_);
      const uint32_t last_mask = __ballot_sync(~0u, mine.is_last);
      const uint32_t count = min(kWarpThreads, work_.end - begin);
      for (uint32_t i = 0; i < count; ++i) {
        const int32_t row = __shfl_sync(~0u, mine.row, i);
        const uint32_t number = begin - work_.begin + i;
        if (lane_ == 0) {
          if (number >= Traits::kWStages || (last_mask >> i & 1) != 0) FollowPrevious();
          read(number, row);
        }
        __syncwarp();
      }
      mine = next;
    }
    if (lane_ == 0) FollowPrevious();
  }

  // CTAs of the next launch may start, where CTAs of this one end, once the launch before has ended: not earlier, so
  // that at most two launches are under way.
  __device__ void FollowPrevious() {
    if (follows_) return;
    follows_ = true;
    ptx::WaitForPreviousGrid();
    ptx::ReleaseNextGrid();
  }

  // A page that isn't in the pool gives a row past its end, for which TMA reads zeros.
  __device__ BlockRow RowOf(uint32_t index) const {
    if (index >= work_.end) return {0, false};
    const Place place = Locate(p_, shared_, work_.kind, index);
    const uint32_t page = PageOf(p_, shared_, work_.kind, place);
    const uint32_t token = place.block * kBlockTokens & ((1u << p_.page_shift) - 1);
    const uint32_t row = (((page * p_.kv_heads + place.head) * 2) << p_.page_shift) + token;
    const bool ends_sequence = work_.kind == kLocal || BlocksOf(shared_, kLocal, place.sequence) == 0;
    return {static_cast<int32_t>(row), ends_sequence && place.block + 1 == place.blocks};
  }

  __device__ void Load(const CUtensorMap* map, int32_t row) {
    uint64_t* full = &shared_.w_full[place_.stage];
    cuda::ptx::mbarrier_arrive_expect_tx(cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared, full,
                                         uint32_t{Traits::kStageBytes});
    ptx::TmaLoadRows4d(ring_ + place_.stage * Traits::kStageBytes, map, row, full, policy_);
    place_.Advance(Traits::kWStages);
  }

  const AttentionParams& p_;
  const AttentionWork& work_;
  uint8_t* ring_;
  AttentionShared& shared_;
  uint32_t lane_;
  uint64_t policy_;
  RingPlace place_;
  RingPlace oldest_;      // in flight
  bool follows_ = false;  // the launch before has ended
};

// ---- The kernel -----------------------------------------------------------------------------------------------------

__device__ inline void InitialiseShared(AttentionShared& shared, uint32_t stages, uint32_t readers) {
  for (uint32_t stage = 0; stage < stages; ++stage) {
    cuda::ptx::mbarrier_init(&shared.w_full[stage], 1);
    cuda::ptx::mbarrier_init(&shared.w_empty[stage], readers);
  }
  shared.words.Reset();
  cuda::ptx::fence_mbarrier_init(cuda::ptx::sem_release, cuda::ptx::scope_cluster);
}

template <class Traits>
__global__ __launch_bounds__(kAttentionThreads, 1) void DecodeAttention(const __grid_constant__ AttentionParams p) {
  // Phase 1: shared memory and barriers. A block is in when its bytes are, and free when a warp of each tile has read
  // it.
  extern __shared__ uint8_t raw[];
  uint8_t* ring = raw + (kSwizzleAtomBytes - ptx::SharedAddress(raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
  auto* scratch = reinterpret_cast<float*>(ring + Traits::kRingBytes);
  auto& shared = *reinterpret_cast<AttentionShared*>(ring + Traits::kRingBytes + Traits::kScratchBytes);
  const uint32_t warp = __shfl_sync(~0u, threadIdx.x / kWarpThreads, 0);  // tells the compiler that it is uniform
  const uint32_t lane = threadIdx.x % kWarpThreads;
  if (threadIdx.x == 0) InitialiseShared(shared, Traits::kWStages, Turn::Of(p.group, 0).tiles);

  // Phase 2: what the launch before may write is read when it has ended: everything, or with context_ready only q and
  // the sequences' last tokens.
  if (p.context_ready == 0) ptx::WaitForPreviousGrid();

  // Phase 3: lengths become work.
  CountBlocks(p, shared);
  const AttentionWork work = DivideBlocks(p, shared);

  // Phase 4: roles.
  constexpr uint32_t kProducerWarp = kConsumerWarps;
  if (warp < kConsumerWarps) {
    ptx::WaitForPreviousGrid();
    ClearEmpty<Traits>(p, shared, threadIdx.x);
    Consume<Traits>(p, work, ptx::SharedAddress(ring), scratch, shared, warp, lane);
  } else if (warp == kProducerWarp) {
    PageProducer<Traits> producer(p, work, ring, shared, lane);
    if (work.kind == kRemote) {
      producer.RunRemote();
    } else {
      producer.RunLocal();
    }
  } else if (lane == 0) {
    if (work.kind == kRemote) {
      RunMeter(p, work, shared);
    } else if (blockIdx.x == 0) {
      ptx::WaitForPreviousGrid();
      CountLocalLaunch(p);
    }
  }
}

// ---- Launching ------------------------------------------------------------------------------------------------------

template <class Traits>
cudaError_t Launch(const AttentionParams& params, cudaStream_t stream) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(params.plan.ctas);
  config.blockDim = dim3(kAttentionThreads);
  config.dynamicSmemBytes = Traits::kLaunchBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, DecodeAttention<Traits>, params);
}

}  // namespace

cudaError_t PrepareAttention() {
  cudaError_t error = cudaSuccess;
  for (const uint32_t head_dim : {64u, 80u, 96u, 128u}) {
    for (const bool f16 : {false, true}) {
      ForHeadDim<AttentionTraits>(head_dim, f16, [&](auto instance) {
        using Traits = decltype(instance);
        if (error != cudaSuccess) return;
        error = cudaFuncSetAttribute(DecodeAttention<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     Traits::kLaunchBytes);
      });
    }
  }
  return error;
}

cudaError_t LaunchAttention(const AttentionLaunch& launch, cudaStream_t stream) {
  AttentionParams params{};
  if (!MakeParams(launch, params)) return cudaErrorInvalidValue;
  cudaError_t error = cudaErrorInvalidValue;
  ForHeadDim<AttentionTraits>(launch.head_dim, launch.f16,
                              [&](auto instance) { error = Launch<decltype(instance)>(params, stream); });
  return error;
}

cudaError_t EncodePages(CUtensorMap* map, const void* pool, const PoolLayout& layout,
                        CUtensorMapL2promotion promotion) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  constexpr unsigned int kFirstVersion = 12000;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, kFirstVersion, cudaEnableDefault, &found);
  if (error != cudaSuccess) return error;
  if (found != cudaDriverEntryPointSuccess) return cudaErrorSymbolNotFound;
  // Columns of a panel, rows, panels, and keys or values: so one box is a whole block, whatever the page's size.
  const bool swizzled = layout.head_dim % 64 == 0;
  const uint32_t panel = swizzled ? 64 : layout.head_dim;
  const uint32_t panels = layout.head_dim / panel;
  const cuuint64_t extents[4] = {panel, layout.pages * layout.kv_heads * 2 * layout.page_tokens, panels, 2};
  const cuuint64_t row_bytes = uint64_t{layout.head_dim} * 2;
  const cuuint64_t strides[3] = {row_bytes, uint64_t{panel} * 2, layout.page_tokens * row_bytes};
  const cuuint32_t box[4] = {panel, kBlockTokens, panels, 2};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry)(
      map, layout.f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, const_cast<void*>(pool),
      extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE, promotion, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace dak::kernels

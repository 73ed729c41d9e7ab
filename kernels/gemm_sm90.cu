// The decode GEMM for sm_90a. docs/kernels.md explains its phases, traffic and bounds.
#include "kernels/decode_common.cuh"
#include "kernels/decode_epilogue.cuh"
#include "kernels/decode_remote.cuh"
#include "kernels/gemm_launch.h"
#include "kernels/ptx/wgmma.h"

namespace dak::kernels {
namespace {

// ---- Producer: one thread that keeps the ring of stages full -------------------------------------------------------

template <class Traits>
class Producer {
 public:
  __device__ Producer(const DecodeParams& p, const WorkRange& work, uint8_t* ring, DecodeShared& shared, uint32_t rank)
      : p_(p), work_(work), ring_(ring), shared_(shared), rank_(rank), gate_(p, shared) {
    w_policy_ = ptx::EvictFirstPolicy();
    x_policy_ = ptx::EvictLastPolicy();
  }

  __device__ void Run() {
    // W doesn't depend on the launch before, x does: local W is on its way while that one ends. Remote W isn't, since
    // that launch's own reads still fill the window.
    const uint64_t early = work_.remote ? 0 : (work_.count < Traits::kStages ? work_.count : Traits::kStages);
    const Cursor start{work_.begin / p_.k_chunks, static_cast<uint32_t>(work_.begin % p_.k_chunks)};
    Cursor at = start;
    for (uint32_t i = 0; i < early; ++i, at.Advance(p_.k_chunks)) LoadW(at, i);
    ptx::WaitForPreviousGrid();
    // The next launch may start when every CTA has said so: a remote one at once, since it uses little of its SM, a
    // local one when its last read is issued. Not before the wait, so that at most two launches are under way.
    if (work_.remote) ptx::ReleaseNextGrid();
    at = start;
    for (uint32_t i = 0; i < early; ++i, at.Advance(p_.k_chunks)) LoadX(at, i);
    RingPlace place{early == Traits::kStages ? 0 : static_cast<uint32_t>(early), early == Traits::kStages ? 1u : 0u};
    for (uint64_t i = early; i < work_.count; ++i, at.Advance(p_.k_chunks)) {
      WaitFor(&shared_.empty[place.stage], place.phase ^ 1);
      if (work_.remote) gate_.WaitForRoom();
      LoadW(at, place.stage);
      LoadX(at, place.stage);
      place.Advance(Traits::kStages);
    }
    ptx::ReleaseNextGrid();
    Finish();
  }

 private:
  struct Cursor {
    uint64_t tile;
    uint32_t chunk;
    __device__ void Advance(uint32_t k_chunks) {
      if (++chunk == k_chunks) {
        chunk = 0;
        ++tile;
      }
    }
  };

  __device__ void LoadW(const Cursor& at, uint32_t stage) {
    const uint64_t first_row = at.tile * work_.tile_rows + work_.first_box;
    const uint64_t left = first_row < work_.part_rows ? work_.part_rows - first_row : 0;
    const auto boxes = static_cast<uint32_t>((left + kBoxRows - 1) / kBoxRows);
    const uint32_t most = work_.remote ? 1 : Traits::kBoxes;
    const uint32_t wanted = boxes < most ? boxes : most;
    if (work_.remote) {
      const uint32_t rows = left < kBoxRows ? static_cast<uint32_t>(left) : kBoxRows;
      const uint32_t columns_left = p_.k - at.chunk * kChunkColumns;
      gate_.OnIssue(stage, rows * (columns_left < kChunkColumns ? columns_left : kChunkColumns) * 2);
    }
    cuda::ptx::mbarrier_arrive_expect_tx(cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared,
                                         &shared_.full[stage], wanted * kBoxBytes + Traits::kXStageBytes);
    const CUtensorMap* map = work_.remote ? &p_.w_remote_map : &p_.w_local_map;
    for (uint32_t box = 0; box < wanted; ++box) {
      ptx::TmaLoad(ring_ + stage * Traits::kStageBytes + box * kBoxBytes, map, at.chunk * kChunkColumns,
                   static_cast<int32_t>(first_row + box * kBoxRows), &shared_.full[stage], w_policy_);
    }
  }

  __device__ void LoadX(const Cursor& at, uint32_t stage) {
    uint8_t* target = ring_ + stage * Traits::kStageBytes + Traits::kWStageBytes;
    const int32_t column = at.chunk * kChunkColumns;
    if (Traits::kCtas == 1 || work_.remote) {
      for (uint32_t slice = 0; slice < Traits::kCtas; ++slice) {
        ptx::TmaLoad(target + slice * Traits::kXSliceBytes, &p_.x_map, column, slice * Traits::kXSliceRows,
                     &shared_.full[stage], x_policy_);
      }
    } else {
      ptx::TmaLoadMulticast(target + rank_ * Traits::kXSliceBytes, &p_.x_map, column, rank_ * Traits::kXSliceRows,
                            &shared_.full[stage], (1u << Traits::kCtas) - 1, x_policy_);
    }
  }

  __device__ void Finish() {
    if (work_.remote) {
      if (work_.worker >= work_.workers) return;
      gate_.Drain();
      FinishRemote(p_, work_, shared_);
    } else if (blockIdx.x == 0) {  // no remote part: only the count of operations
      ptx::AddRelaxedGpu(&p_.workspace.link->passes, 1);
      __threadfence();
      if (p_.report != nullptr) Publish(p_);
    }
  }

  const DecodeParams& p_;
  const WorkRange& work_;
  uint8_t* ring_;
  DecodeShared& shared_;
  uint32_t rank_;
  RemoteGate<Traits> gate_;
  uint64_t w_policy_;
  uint64_t x_policy_;
};

// ---- Consumer: a warpgroup that multiplies one box of rows ---------------------------------------------------------

template <class Traits>
__device__ inline void ReleaseStage(uint64_t* empty, bool remote, uint32_t lane) {
  if (Traits::kCtas == 1 || remote) {
    if (lane == 0) cuda::ptx::mbarrier_arrive(empty);
  } else if (lane < Traits::kCtas) {
    ptx::ArriveInCluster(empty, lane);
  }
}

// Starts the products of one stage; kFirst: of a tile, which forget the sums before.
template <class Traits, bool kFirst>
__device__ inline void MultiplyStage(uint8_t* stage, float (&sums)[Traits::kN / 2], uint32_t group) {
  constexpr uint32_t kSteps = kChunkColumns / 16;
  constexpr uint32_t kStepBytes = 32;
  const uint32_t address = ptx::SharedAddress(stage);
  const uint64_t w = ptx::WgmmaDescriptor(address + group * kBoxBytes);
  const uint64_t x = ptx::WgmmaDescriptor(address + Traits::kWStageBytes);
  ptx::WgmmaFence();
  ptx::Wgmma<Traits::kN, Traits::kF16>::template Run<!kFirst>(sums, w, x);
#pragma unroll
  for (uint32_t step = 1; step < kSteps; ++step) {
    ptx::Wgmma<Traits::kN, Traits::kF16>::template Run<true>(sums, w + step * (kStepBytes >> 4),
                                                             x + step * (kStepBytes >> 4));
  }
  ptx::WgmmaCommit();
}

// Sums up the chunks of `segment`; advances `place`. The products of one stage run while the next is awaited, and a
// stage is free when its products are done.
template <class Traits>
__device__ inline void Multiply(const WorkRange& work, const Segment& segment, uint8_t* ring, DecodeShared& shared,
                                float (&sums)[Traits::kN / 2], RingPlace& place, uint32_t group, uint32_t lane) {
  WaitFor(&shared.full[place.stage], place.phase);
  MultiplyStage<Traits, true>(ring + place.stage * Traits::kStageBytes, sums, group);
  uint32_t previous = place.stage;
  place.Advance(Traits::kStages);
  for (uint32_t chunk = segment.first_chunk + 1; chunk < segment.end_chunk; ++chunk) {
    WaitFor(&shared.full[place.stage], place.phase);
    MultiplyStage<Traits, false>(ring + place.stage * Traits::kStageBytes, sums, group);
    ptx::WgmmaWait<1>();
    ReleaseStage<Traits>(&shared.empty[previous], work.remote, lane);
    previous = place.stage;
    place.Advance(Traits::kStages);
  }
  ptx::WgmmaWait<0>();
  ReleaseStage<Traits>(&shared.empty[previous], work.remote, lane);
}

template <class Traits>
__device__ inline void Consume(const DecodeParams& p, const WorkRange& work, uint8_t* ring, DecodeShared& shared,
                               uint32_t rank, uint32_t group) {
  const uint32_t thread = threadIdx.x % kWarpgroupThreads;
  if (work.remote && group > 0) return;
  RingPlace place;
  uint64_t tile = work.begin / p.k_chunks;
  auto chunk = static_cast<uint32_t>(work.begin % p.k_chunks);
  for (uint64_t left = work.count; left > 0; ++tile, chunk = 0) {
    const uint64_t to_tile_end = p.k_chunks - chunk;
    const auto length = static_cast<uint32_t>(left < to_tile_end ? left : to_tile_end);
    Segment segment{tile, chunk, chunk + length, 0, 0};
    const uint64_t row = tile * work.tile_rows + work.first_box + group * kBoxRows;
    segment.row = static_cast<uint32_t>(row);
    segment.valid_rows =
        row < work.part_rows ? static_cast<uint32_t>(min(uint64_t{kBoxRows}, work.part_rows - row)) : 0;
    // A box past the part's end isn't loaded: its products are of whatever lies there, and are never stored.
    float sums[Traits::kN / 2];
    Multiply<Traits>(work, segment, ring, shared, sums, place, group, thread % kWarpThreads);
    left -= length;
    if (segment.valid_rows == 0) continue;
    if (length == p.k_chunks) {
      StoreTile<Traits>(p, work, segment, sums, thread);
    } else {
      ShareTile<Traits>(p, work, segment, sums, thread, group, rank, shared);
    }
  }
}

// ---- The kernel ----------------------------------------------------------------------------------------------------

template <class Traits>
__global__ __launch_bounds__(Traits::kThreads,
                             Traits::kCtasPerSm) void DecodeGemm(const __grid_constant__ DecodeParams p) {
  // Phase 1: shared memory and roles.
  extern __shared__ uint8_t raw[];
  uint8_t* ring = raw + (kSwizzleAtomBytes - ptx::SharedAddress(raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
  auto& shared = *reinterpret_cast<DecodeShared*>(ring + Traits::kStages * Traits::kStageBytes);
  const uint32_t warp = __shfl_sync(~0u, threadIdx.x / kWarpThreads, 0);  // tells the compiler that it is uniform
  const uint32_t lane = threadIdx.x % kWarpThreads;
  const uint32_t rank = Traits::kCtas == 1 ? 0 : blockIdx.x % Traits::kCtas;
  const WorkRange work = DivideWork<Traits>(p, rank);

  // Phase 2: barriers. A stage is full when the producer has said how many bytes come and they came, empty when every
  // consumer warp that reads it (x: of every CTA of the cluster) has arrived.
  if (threadIdx.x == 0) {
    const uint32_t readers = work.remote ? 4 : Traits::kConsumerWarps * Traits::kCtas;
    for (uint32_t stage = 0; stage < Traits::kStages; ++stage) {
      cuda::ptx::mbarrier_init(&shared.full[stage], 1);
      cuda::ptx::mbarrier_init(&shared.empty[stage], readers);
    }
    shared.share_boxes = 0;
    shared.ns_per_clock = p.ns_per_clock;
    shared.stop_meter = 0;
    shared.meter_stopped = 0;
    cuda::ptx::fence_mbarrier_init(cuda::ptx::sem_release, cuda::ptx::scope_cluster);
  }
  if constexpr (Traits::kCtas > 1) {
    ptx::ClusterArrive();
    ptx::ClusterWait();
  } else {
    __syncthreads();
  }

  // Phase 3: roles.
  if (warp < Traits::kConsumerWarps) {
    ptx::WaitForPreviousGrid();
    Consume<Traits>(p, work, ring, shared, rank, warp / (kWarpgroupThreads / kWarpThreads));
  } else if (warp == Traits::kConsumerWarps) {
    if (lane == 0) {
      ptx::PrefetchTensorMap(work.remote ? &p.w_remote_map : &p.w_local_map);
      ptx::PrefetchTensorMap(&p.x_map);
      Producer<Traits>(p, work, ring, shared, rank).Run();
    }
  } else if (lane == 0 && work.remote && work.worker < work.workers) {
    RunMeter(p, work, shared);
  }

  // Phase 4: no CTA leaves while another of its cluster may still write into its shared memory.
  if constexpr (Traits::kCtas > 1) {
    __syncwarp();
    ptx::ClusterArrive();
    ptx::ClusterWait();
  }
}

// ---- Launching -----------------------------------------------------------------------------------------------------

template <class Traits>
cudaError_t Prepare() {
  return cudaFuncSetAttribute(DecodeGemm<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize, Traits::kLaunchBytes);
}

template <class Traits>
cudaError_t Launch(const DecodeParams& params, const DecodeLaunch& launch, cudaStream_t stream) {
  cudaLaunchAttribute attributes[2] = {};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(launch.plan.remote_ctas + launch.plan.local_ctas);
  config.blockDim = dim3(Traits::kThreads);
  config.dynamicSmemBytes = Traits::kLaunchBytes;
  config.stream = stream;
  config.attrs = attributes;
  if (Traits::kCtas > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs].val.clusterDim.x = Traits::kCtas;
    attributes[config.numAttrs].val.clusterDim.y = 1;
    attributes[config.numAttrs++].val.clusterDim.z = 1;
  }
  if (launch.overlap_previous) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  return cudaLaunchKernelEx(&config, DecodeGemm<Traits>, params);
}

// Calls `visit` with the traits of the instance that runs `plan`; false if there is none.
template <class Visitor>
bool ForPlan(const GemmPlan& plan, bool f16, const Visitor& visit) {
  const auto with_tile = [&](auto n, auto boxes, auto ctas) {
    const GemmPlan instance{n(), boxes(), ctas()};
    if (plan.batch_tile != instance.batch_tile || plan.row_boxes != instance.row_boxes ||
        plan.cluster != instance.cluster) {
      return false;
    }
    if (f16) {
      visit(DecodeTraits<n(), boxes(), ctas(), true>());
    } else {
      visit(DecodeTraits<n(), boxes(), ctas(), false>());
    }
    return true;
  };
  constexpr std::integral_constant<int, 1> k1;
  constexpr std::integral_constant<int, 2> k2;
  constexpr std::integral_constant<int, 4> k4;
  const auto with_batch = [&](auto n) {
    bool found = with_tile(n, k1, k1) || with_tile(n, k2, k1);
    if constexpr (n() >= 64) found = found || with_tile(n, k1, k2) || with_tile(n, k2, k2);
    if constexpr (n() >= 128) found = found || with_tile(n, k1, k4) || with_tile(n, k2, k4);
    return found;
  };
  return with_batch(std::integral_constant<int, 8>()) || with_batch(std::integral_constant<int, 16>()) ||
         with_batch(std::integral_constant<int, 32>()) || with_batch(std::integral_constant<int, 64>()) ||
         with_batch(std::integral_constant<int, 128>()) || with_batch(std::integral_constant<int, 256>());
}

template <class Traits>
cudaError_t CountClusterCtas(uint32_t* ctas) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = Traits::kCtas;
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(Traits::kCtas);
  config.blockDim = dim3(Traits::kThreads);
  config.dynamicSmemBytes = Traits::kLaunchBytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  const cudaError_t error = cudaOccupancyMaxActiveClusters(&clusters, DecodeGemm<Traits>, &config);
  *ctas = static_cast<uint32_t>(clusters) * Traits::kCtas;
  return error;
}

}  // namespace

cudaError_t PrepareDecodeGemm(DeviceTraits* traits) {
  cudaError_t error = cudaSuccess;
  for (uint32_t n = 8; n <= kMaxBatch; n *= 2) {
    for (uint32_t boxes = 1; boxes <= 2; ++boxes) {
      for (uint32_t cluster = 1; cluster <= 4; cluster *= 2) {
        for (const bool f16 : {false, true}) {
          ForPlan(GemmPlan{n, boxes, cluster}, f16, [&](auto instance) {
            if (error == cudaSuccess) error = Prepare<decltype(instance)>();
          });
        }
      }
    }
  }
  if (error != cudaSuccess) return error;
  error = CountClusterCtas<DecodeTraits<256, 2, 2, false>>(&traits->cluster2_ctas);
  if (error != cudaSuccess) return error;
  return CountClusterCtas<DecodeTraits<256, 2, 4, false>>(&traits->cluster4_ctas);
}

cudaError_t LaunchDecodeGemm(const DecodeLaunch& launch, cudaStream_t stream) {
  const GemmPlan& plan = launch.plan;
  DecodeParams params{};
  params.x_map = launch.x_map;
  params.w_local_map = launch.w_local_map;
  params.w_remote_map = launch.w_remote_map;
  params.y = launch.y;
  params.n = launch.n;
  params.local_rows = launch.local_rows;
  params.batch = launch.batch;
  params.k = static_cast<uint32_t>(launch.k);
  params.k_chunks = static_cast<uint32_t>(DivideUp(launch.k, kChunkColumns));
  params.remote_ctas = plan.remote_ctas;
  const uint64_t remote_chunks = RemoteChunks(launch.n - launch.local_rows, launch.k);
  params.remote_workers = static_cast<uint32_t>(remote_chunks < plan.remote_ctas ? remote_chunks : plan.remote_ctas);
  const uint64_t local_chunks = LocalChunks(launch.local_rows, launch.k, plan);
  const uint32_t local_clusters = plan.local_ctas / plan.cluster;
  params.local_clusters = static_cast<uint32_t>(local_chunks < local_clusters ? local_chunks : local_clusters);
  params.control = launch.control;
  params.report = launch.report;
  params.workspace = launch.workspace;
  params.ns_per_clock = launch.ns_per_clock;
  cudaError_t error = cudaErrorInvalidValue;
  ForPlan(plan, launch.f16, [&](auto instance) { error = Launch<decltype(instance)>(params, launch, stream); });
  return error;
}

cudaError_t EncodeMatrix(CUtensorMap* map, const void* address, bool f16, uint64_t rows, uint64_t cols,
                         uint32_t box_rows, CUtensorMapL2promotion promotion) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  constexpr unsigned int kFirstVersion = 12000;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, kFirstVersion, cudaEnableDefault, &found);
  if (error != cudaSuccess) return error;
  if (found != cudaDriverEntryPointSuccess) return cudaErrorSymbolNotFound;
  const cuuint64_t extents[2] = {cols, rows};
  const cuuint64_t row_bytes[1] = {cols * 2};
  const cuuint32_t box[2] = {kChunkColumns, box_rows};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry)(
      map, f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(address),
      extents, row_bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, promotion,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace dak::kernels

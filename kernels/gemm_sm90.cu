// The decode GEMM for sm_90a. docs/kernels.md explains its phases, traffic and bounds.
#include <type_traits>

#include "kernels/decode_common.cuh"
#include "kernels/decode_epilogue.cuh"
#include "kernels/decode_remote.cuh"
#include "kernels/decode_units.cuh"
#include "kernels/gemm_launch.h"
#include "kernels/ptx/cluster.h"
#include "kernels/ptx/warpgroup.h"
#include "kernels/ptx/wgmma.h"

namespace dak::kernels {
namespace {

// ---- Producers: one thread each that keeps a ring full --------------------------------------------------------------

// Lets CTAs of the next launch start where CTAs of this one end, but not before the launch before has ended, so that at
// most two launches are under way.
__device__ inline void FollowPreviousGrid(const DecodeParams& p, const WorkRange& work) {
  ptx::WaitForPreviousGrid();
  if (p.early_link && work.remote && work.worker + 1 == work.workers) TakeLink(p, work, false);
  ptx::ReleaseNextGrid();
}

// Whether x's producer does so, which waits for the launch before anyway, or W's when it has filled its ring. A remote
// CTA that may have no share of the window yet mustn't wait with it: others can end only when the link is taken.
__device__ inline bool ReleasesEarly(const DecodeParams& p, const WorkRange& work) {
  return work.remote ? p.early_link : p.early_release;
}

// W's tiles. W doesn't depend on the launch before, so a ring is filled while that one ends.
template <class Traits>
class WProducer {
 public:
  __device__ WProducer(const DecodeParams& p, const WorkRange& work, uint8_t* ring, DecodeShared& shared)
      : p_(p), work_(work), ring_(ring), shared_(shared), policy_(ptx::EvictFirstPolicy()) {}

  __device__ void RunLocal() {
    ptx::PrefetchTensorMap(&p_.w_local_map);
    LocalUnits units(work_);
    uint32_t filled = 0;
    for (Unit unit = units.Next(); unit.chunks > 0; unit = units.Next()) {
      for (uint32_t i = 0; i < unit.chunks; ++i, ++filled) {
        if (filled == Traits::kWStages) ReleaseLate();
        WaitFor(&shared_.w_empty[place_.stage], place_.phase ^ 1);
        LoadLocal(filled, unit.tile, unit.chunk + i);
      }
    }
    if (filled <= Traits::kWStages) ReleaseLate();
  }

  __device__ void RunRemote() {
    ptx::PrefetchTensorMap(&p_.w_remote_map);
    const uint32_t launch = p_.early_link ? JoinLink(p_, shared_) : OpenLink(p_, work_, shared_);
    RemoteGate<Traits> gate(shared_);
    UnitSource units(p_, work_, shared_, launch);
    uint32_t filled = 0;
    for (Unit unit = units.Next(); unit.chunks > 0; unit = units.Next()) {
      for (uint32_t i = 0; i < unit.chunks; ++i, ++filled) {
        if (filled == Traits::kWStages) ReleaseLate();
        WaitFor(&shared_.w_empty[place_.stage], place_.phase ^ 1);
        LoadRemote(gate, unit.tile, unit.chunk + i);
      }
    }
    shared_.words.issued_all.Store(1);
    if (filled <= Traits::kWStages) ReleaseLate();
    gate.Drain();
    shared_.words.drained.Store(1);
  }

 private:
  __device__ void ReleaseLate() {
    if (!ReleasesEarly(p_, work_)) FollowPreviousGrid(p_, work_);
  }

  // The i-th stage, once few enough are in flight.
  __device__ void LoadLocal(uint32_t i, uint32_t tile, uint32_t chunk) {
    if (i >= (p_.local_inflight_stages < Traits::kWStages ? p_.local_inflight_stages : Traits::kWStages)) {
      WaitFor(&shared_.w_full[oldest_.stage], oldest_.phase);
      oldest_.Advance(Traits::kWStages);
    }
    // A box past the part's end isn't loaded.
    const uint64_t row = uint64_t{tile} * work_.tile_rows + work_.row_offset;
    uint32_t boxes = 0;
    while (boxes < Traits::kBoxes && row + boxes * kBoxRows < work_.part_rows) ++boxes;
    LoadBoxes(&p_.w_local_map, tile, chunk, boxes);
  }

  __device__ void LoadRemote(RemoteGate<Traits>& gate, uint32_t tile, uint32_t chunk) {
    const uint32_t left = static_cast<uint32_t>(work_.part_rows) - tile * kBoxRows;
    const uint32_t rows = left < kBoxRows ? left : kBoxRows;
    const uint32_t columns_left = p_.k - chunk * kChunkColumns;
    const uint32_t bytes = rows * (columns_left < kChunkColumns ? columns_left : kChunkColumns) * 2;
    gate.WaitForRoom(bytes);
    gate.OnIssue(place_.stage, bytes);
    LoadBoxes(&p_.w_remote_map, tile, chunk, 1);
  }

  // Starts the reads of one stage, and goes on.
  __device__ void LoadBoxes(const CUtensorMap* map, uint32_t tile, uint32_t chunk, uint32_t boxes) {
    uint64_t* full = &shared_.w_full[place_.stage];
    cuda::ptx::mbarrier_arrive_expect_tx(cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared, full,
                                         boxes * kBoxBytes);
    const auto first_row = static_cast<int32_t>(tile * work_.tile_rows + work_.row_offset);
    for (uint32_t box = 0; box < boxes; ++box) {
      ptx::TmaLoad(ring_ + place_.stage * Traits::kWStageBytes + box * kBoxBytes, map, chunk * kChunkColumns,
                   first_row + static_cast<int32_t>(box * kBoxRows), full, policy_);
    }
    place_.Advance(Traits::kWStages);
  }

  const DecodeParams& p_;
  const WorkRange& work_;
  uint8_t* ring_;
  DecodeShared& shared_;
  uint64_t policy_;
  RingPlace place_;
  RingPlace oldest_;  // in flight
};

// x's chunks, in W's order. A stage is free when every consumer warp that reads it has, in a cluster those of all its
// CTAs, since a CTA loads its slice into all of them.
template <class Traits>
class XProducer {
 public:
  __device__ XProducer(const DecodeParams& p, const WorkRange& work, uint8_t* ring, DecodeShared& shared)
      : p_(p), work_(work), ring_(ring), shared_(shared), policy_(ptx::EvictLastPolicy()) {}

  __device__ void Run() {
    ptx::PrefetchTensorMap(&p_.x_map);
    if constexpr (Traits::kRemote) {
      AwaitX();
      UnitReader units(shared_);
      for (Unit unit = UnitAt(p_, units.Next(1, true)); unit.chunks > 0; unit = UnitAt(p_, units.Next(1, true))) {
        for (uint32_t i = 0; i < unit.chunks; ++i) Load(unit.chunk + i);
      }
    } else {
      LocalUnits units(work_);
      Unit unit = units.Next();
      AwaitX();  // as late as can be: from here on everything waits for x
      for (; unit.chunks > 0; unit = units.Next()) {
        for (uint32_t i = 0; i < unit.chunks; ++i) Load(unit.chunk + i);
      }
    }
  }

 private:
  __device__ void AwaitX() {
    if (ReleasesEarly(p_, work_)) {
      FollowPreviousGrid(p_, work_);
    } else {
      ptx::WaitForPreviousGrid();
    }
  }

  __device__ void Load(uint32_t chunk) {
    WaitFor(&shared_.x_empty[place_.stage], place_.phase ^ 1);
    uint64_t* full = &shared_.x_full[place_.stage];
    cuda::ptx::mbarrier_arrive_expect_tx(cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared, full,
                                         uint32_t{Traits::kXStageBytes});
    uint8_t* const stage = ring_ + place_.stage * Traits::kXStageBytes;
    const auto column = static_cast<int32_t>(chunk * kChunkColumns);
    if constexpr (Traits::kCluster == 1) {
      for (uint32_t slice = 0; slice < Traits::kXSlices; ++slice) {
        ptx::TmaLoad(stage + slice * Traits::kXSliceBytes, &p_.x_map, column,
                     static_cast<int32_t>(slice * Traits::kXSliceRows), full, policy_);
      }
    } else {  // its slice, for every CTA of the cluster
      const int32_t at[2] = {column, static_cast<int32_t>(work_.rank * Traits::kXSliceRows)};
      cuda::ptx::cp_async_bulk_tensor(cuda::ptx::space_cluster, cuda::ptx::space_global,
                                      stage + work_.rank * Traits::kXSliceBytes, &p_.x_map, at, full,
                                      uint16_t{(1u << Traits::kCluster) - 1});
    }
    place_.Advance(Traits::kXStages);
  }

  const DecodeParams& p_;
  const WorkRange& work_;
  uint8_t* ring_;
  DecodeShared& shared_;
  uint64_t policy_;
  RingPlace place_;
};

// ---- Consumer: a warpgroup that multiplies one box of rows by its columns -------------------------------------------

// Its places in the rings.
struct ConsumerPlaces {
  RingPlace w;
  RingPlace x;
};

// Which of a CTA's consumer warpgroups.
struct ConsumerGroup {
  uint32_t box;      // of the tile's boxes of rows
  uint32_t columns;  // of the column groups
};

template <class Traits>
__device__ inline void Release(DecodeShared& shared, uint32_t w_stage, uint32_t x_stage, uint32_t lane) {
  if constexpr (Traits::kCluster > 1) {
    if (lane == 0) cuda::ptx::mbarrier_arrive(&shared.w_empty[w_stage]);
    if (lane < Traits::kCluster) ptx::ArriveAtCta(ptx::MapToCta(&shared.x_empty[x_stage], lane));
  } else {
    if (lane != 0) return;
    cuda::ptx::mbarrier_arrive(&shared.w_empty[w_stage]);
    cuda::ptx::mbarrier_arrive(&shared.x_empty[x_stage]);
  }
}

// Waits for the next stages and starts their products; kFirst: of a tile, which forget the sums before.
template <class Traits, bool kFirst>
__device__ inline void StartNext(uint32_t ring_address, DecodeShared& shared, float (&sums)[Traits::kGroupN / 2],
                                 ConsumerPlaces& at, const ConsumerGroup& group) {
  constexpr uint32_t kSteps = kChunkColumns / 16;
  constexpr uint32_t kStepBytes = 32;
  WaitFor(&shared.x_full[at.x.stage], at.x.phase);
  WaitFor(&shared.w_full[at.w.stage], at.w.phase);
  const uint64_t w = ptx::WgmmaDescriptor(ring_address + at.w.stage * Traits::kWStageBytes + group.box * kBoxBytes);
  const uint64_t x = ptx::WgmmaDescriptor(ring_address + Traits::kWRingBytes + at.x.stage * Traits::kXStageBytes +
                                          group.columns * (Traits::kXStageBytes / Traits::kColumnGroups));
  ptx::WgmmaFence();
  ptx::Wgmma<Traits::kGroupN, Traits::kF16>::template Run<!kFirst>(sums, w, x);
#pragma unroll
  for (uint32_t step = 1; step < kSteps; ++step) {
    ptx::Wgmma<Traits::kGroupN, Traits::kF16>::template Run<true>(sums, w + step * (kStepBytes >> 4),
                                                                  x + step * (kStepBytes >> 4));
  }
  ptx::WgmmaCommit();
  at.w.Advance(Traits::kWStages);
  at.x.Advance(Traits::kXStages);
}

// Sums up `chunks` chunks, at least one. The products of one stage run while the next is awaited, and a stage is free
// when its products are done.
template <class Traits>
__device__ inline void Multiply(uint32_t chunks, uint32_t ring_address, DecodeShared& shared,
                                float (&sums)[Traits::kGroupN / 2], ConsumerPlaces& at, const ConsumerGroup& group,
                                uint32_t lane) {
  uint32_t w_stage = at.w.stage;
  uint32_t x_stage = at.x.stage;
  StartNext<Traits, true>(ring_address, shared, sums, at, group);
  for (uint32_t i = 1; i < chunks; ++i) {
    const uint32_t next_w_stage = at.w.stage;
    const uint32_t next_x_stage = at.x.stage;
    StartNext<Traits, false>(ring_address, shared, sums, at, group);
    ptx::WgmmaWait<1>();
    Release<Traits>(shared, w_stage, x_stage, lane);
    w_stage = next_w_stage;
    x_stage = next_x_stage;
  }
  ptx::WgmmaWait<0>();
  Release<Traits>(shared, w_stage, x_stage, lane);
}

// Chunks of one tile that a consumer sums up, and what becomes of the sums.
struct Run {
  uint32_t tile;
  uint32_t chunks;  // 0: there is no more
  bool to_end;      // this CTA finishes the tile; remote: because it has all of it
  TileShares shares;
};

// The runs of a consumer, one after another.
template <class Traits>
class Runs {
 public:
  __device__ Runs(const DecodeParams& p, const WorkRange& work, DecodeShared& shared, uint32_t box)
      : p_(p), work_(work), units_(shared), local_(work), box_(box) {}

  __device__ Run Next(bool speaks) {
    if constexpr (Traits::kRemote) {
      return NextRemote(speaks);
    } else {
      return NextLocal();
    }
  }

 private:
  __device__ Run NextRemote(bool speaks) {
    const uint32_t number = units_.Next(~0u, speaks);
    const Unit unit = UnitAt(p_, number);
    return {unit.tile, unit.chunks, unit.chunks == work_.k_chunks, RemoteShares(p_, unit.tile, number)};
  }

  __device__ Run NextLocal() {
    const Unit unit = local_.Next();
    const uint32_t first = unit.chunk == 0 ? work_.worker : work_.OwnerOf(unit.tile * work_.k_chunks);
    const bool to_end = unit.chunk + unit.chunks == work_.k_chunks;
    if (work_.halves) {
      const uint32_t other = work_.worker ^ 1;
      return {unit.tile, unit.chunks, to_end, LocalShares<Traits>(work_, box_, other, other + 1)};
    }
    return {unit.tile, unit.chunks, to_end, LocalShares<Traits>(work_, box_, first, work_.worker)};
  }

  const DecodeParams& p_;
  const WorkRange& work_;
  UnitReader units_;
  LocalUnits local_;
  uint32_t box_;
};

template <class Traits>
__device__ inline void Consume(const DecodeParams& p, const WorkRange& work, uint8_t* ring, DecodeShared& shared,
                               const ConsumerGroup& group) {
  const uint32_t lane = threadIdx.x % kWarpThreads;
  const uint32_t ring_address = ptx::SharedAddress(ring);
  ConsumerPlaces places;
  Runs<Traits> runs(p, work, shared, group.box);
  Run run = runs.Next(lane == 0);
  ptx::WaitForPreviousGrid();
  for (; run.chunks > 0; run = runs.Next(lane == 0)) {
    const uint64_t row = uint64_t{run.tile} * work.tile_rows + work.row_offset + group.box * kBoxRows;
    const uint64_t valid = row < work.part_rows ? work.part_rows - row : 0;
    const Box box{static_cast<uint32_t>(row), static_cast<uint32_t>(min(valid, uint64_t{kBoxRows})),
                  group.columns * (Traits::kGroupN / 8)};
    // A box past the part's end isn't loaded: its products are of whatever lies there, and are never stored.
    float sums[Traits::kGroupN / 2];
    Multiply<Traits>(run.chunks, ring_address, shared, sums, places, group, lane);
    if (box.valid_rows == 0) continue;
    uint32_t thread = threadIdx.x % kWarpgroupThreads;
    asm volatile("" : "+r"(thread));  // else addresses of shares take registers from the sums, all the time
    constexpr int kPieces = Pieces<Traits, true>::kCount;
    PieceRange mine = {0, run.to_end ? kPieces : 0};  // to finish with these sums
    if (Traits::kCanHalve && work.halves) {
      mine = work.worker % 2 == 0 ? PieceRange{0, kPieces / 2} : PieceRange{kPieces / 2, kPieces};
    }
    if (mine.end - mine.first < kPieces) LeaveShare<Traits>(p, box, run.shares, sums, mine, thread);
    if (mine.first < mine.end) {
      FinishTile<Traits, true>(p, work, box, sums, run.shares, mine, thread);
    } else if (Traits::kRemote && IsLastOfTile(p, run.tile, threadIdx.x / kWarpThreads, lane)) {
      FinishTile<Traits, false>(p, work, box, sums, run.shares, {0, Pieces<Traits, false>::kCount}, thread);
    }
  }
}

// ---- The kernel -----------------------------------------------------------------------------------------------------

template <class Traits>
__device__ inline void InitialiseShared(DecodeShared& shared) {
  for (uint32_t stage = 0; stage < Traits::kWStages; ++stage) {
    cuda::ptx::mbarrier_init(&shared.w_full[stage], 1);
    cuda::ptx::mbarrier_init(&shared.w_empty[stage], uint32_t{Traits::kConsumerWarps});
  }
  for (uint32_t stage = 0; stage < Traits::kXStages; ++stage) {
    cuda::ptx::mbarrier_init(&shared.x_full[stage], 1);
    cuda::ptx::mbarrier_init(&shared.x_empty[stage], uint32_t{Traits::kConsumerWarps * Traits::kCluster});
  }
  InitialiseUnits(shared, Traits::kBoxWarps + 1);
  shared.words.Reset();
}

// All threads of the CTA meet, or of the cluster.
template <class Traits>
__device__ inline void MeetCluster() {
  if constexpr (Traits::kCluster > 1) {
    cuda::ptx::barrier_cluster_arrive();
    cuda::ptx::barrier_cluster_wait();
  } else {
    __syncthreads();
  }
}

// What the warps of a CTA of one kind do. Of the remote kind, whose tiles are one box high, some may have nothing to
// multiply.
template <class Traits>
__device__ inline void RunConsumer(const DecodeParams& p, const WorkRange& work, uint8_t* ring, DecodeShared& shared,
                                   uint32_t warp) {
  if (warp >= Traits::kConsumerWarps) return;
  const uint32_t group = warp * kWarpThreads / kWarpgroupThreads;
  Consume<Traits>(p, work, ring, shared, {group / Traits::kColumnGroups, group % Traits::kColumnGroups});
}

// `warp`: counted from W's producer's on. One lane of each.
template <class Traits>
__device__ inline void RunMover(const DecodeParams& p, const WorkRange& work, uint8_t* ring, DecodeShared& shared,
                                uint32_t warp) {
  if (warp == 0) {
    WProducer<Traits> producer(p, work, ring, shared);
    if constexpr (Traits::kRemote) {
      producer.RunRemote();
    } else {
      producer.RunLocal();
    }
  } else if (warp == 1) {
    XProducer<Traits>(p, work, ring + Traits::kWRingBytes, shared).Run();
  } else if (warp == 2) {
    if constexpr (Traits::kRemote) {
      RunMeter(p, work, shared);
    } else if (blockIdx.x == 0) {
      ptx::WaitForPreviousGrid();
      CountLocalLaunch(p);
    }
  }
}

template <class Traits>
__global__ __launch_bounds__(Traits::kThreads, 1) void DecodeGemm(const __grid_constant__ DecodeParams p) {
  // Phase 1: shared memory and the CTA's work.
  extern __shared__ uint8_t raw[];
  uint8_t* ring = raw + (kSwizzleAtomBytes - ptx::SharedAddress(raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
  auto& shared = *reinterpret_cast<DecodeShared*>(ring + Traits::kWRingBytes + Traits::kXRingBytes);
  const uint32_t warp = __shfl_sync(~0u, threadIdx.x / kWarpThreads, 0);  // tells the compiler that it is uniform
  const uint32_t lane = threadIdx.x % kWarpThreads;
  const WorkRange work = DivideWork<Traits>(p);

  // Phase 2: barriers. A stage is full when its producer has said how many bytes come and they came, empty when every
  // consumer warp that reads it has arrived.
  using Remote = RemoteTraits<Traits>;
  if (threadIdx.x == 0) {
    if (work.remote) {
      InitialiseShared<Remote>(shared);
    } else {
      InitialiseShared<Traits>(shared);
    }
    cuda::ptx::fence_mbarrier_init(cuda::ptx::sem_release, cuda::ptx::scope_cluster);
  }
  MeetCluster<Traits>();

  // Phase 3: roles.
  if (warp < Traits::kConsumerWarps) {
    if constexpr (Traits::kMovesRegisters) ptx::TakeRegisters<kConsumerRegisters>();
    if (work.remote) {
      RunConsumer<Remote>(p, work, ring, shared, warp);
    } else {
      RunConsumer<Traits>(p, work, ring, shared, warp);
    }
  } else {
    if constexpr (Traits::kMovesRegisters) ptx::GiveRegisters<kProducerRegisters>();
    if (lane == 0) {
      if (work.remote) {
        RunMover<Remote>(p, work, ring, shared, warp - Traits::kConsumerWarps);
      } else {
        RunMover<Traits>(p, work, ring, shared, warp - Traits::kConsumerWarps);
      }
    }
  }

  // Phase 4: the others of a cluster may still load into this CTA and arrive at its barriers.
  if constexpr (Traits::kCluster > 1) {
    __syncwarp();
    if (!work.remote) MeetCluster<Traits>();
  }
}

// ---- Launching ------------------------------------------------------------------------------------------------------

template <class Traits>
cudaError_t Launch(const DecodeParams& params, const DecodeLaunch& launch, cudaStream_t stream) {
  const uint32_t cluster = params.halves ? 2 : Traits::kCluster;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = launch.overlap_previous ? 1 : 0;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {cluster, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(params.remote_ctas + params.local_ctas);
  config.blockDim = dim3(Traits::kThreads);
  config.dynamicSmemBytes = Traits::kLaunchBytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, DecodeGemm<Traits>, params);
}

// Calls `visit` with the traits of the instance that runs `plan`; false if there is none.
template <class Visitor>
bool ForPlan(const GemmPlan& plan, bool f16, const Visitor& visit) {
  const auto try_one = [&](auto n, auto boxes, auto cluster) {
    if (plan.batch_tile != uint32_t{n()} || plan.row_boxes != uint32_t{boxes()}) return false;
    if (plan.cluster != uint32_t{cluster()}) return false;
    if (f16) {
      visit(DecodeTraits<n(), boxes(), true, cluster()>());
    } else {
      visit(DecodeTraits<n(), boxes(), false, cluster()>());
    }
    return true;
  };
  constexpr std::integral_constant<uint32_t, 1> kOne;
  constexpr std::integral_constant<uint32_t, 2> kTwo;
  constexpr std::integral_constant<uint32_t, kClusterCtas> kClustered;
  const auto narrow = [&](auto n) { return try_one(n, kOne, kOne) || try_one(n, kTwo, kOne); };
  // Where x is much of what L2 moves.
  const auto wide = [&](auto n) {
    static_assert(n() >= kLeastClusteredTile);
    return try_one(n, kOne, kOne) || try_one(n, kOne, kClustered);
  };
  return narrow(std::integral_constant<uint32_t, 8>()) || narrow(std::integral_constant<uint32_t, 16>()) ||
         narrow(std::integral_constant<uint32_t, 32>()) || narrow(std::integral_constant<uint32_t, 64>()) ||
         try_one(std::integral_constant<uint32_t, 128>(), kTwo, kOne) ||
         wide(std::integral_constant<uint32_t, 128>()) || wide(std::integral_constant<uint32_t, 256>());
}

}  // namespace

cudaError_t PrepareDecodeGemm() {
  cudaError_t error = cudaSuccess;
  for (uint32_t n = 8; n <= kMaxBatch; n *= 2) {
    for (const uint32_t boxes : {1u, 2u}) {
      for (const uint32_t cluster : {1u, kClusterCtas}) {
        for (const bool f16 : {false, true}) {
          ForPlan({.batch_tile = n, .row_boxes = boxes, .cluster = cluster}, f16, [&](auto instance) {
            using Traits = decltype(instance);
            if (error != cudaSuccess) return;
            error = cudaFuncSetAttribute(DecodeGemm<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         Traits::kLaunchBytes);
          });
        }
      }
    }
  }
  return error;
}

cudaError_t CountClusteredCtas(uint32_t* ctas) {
  cudaError_t error = cudaErrorInvalidValue;
  ForPlan({.batch_tile = kMaxBatch, .row_boxes = 1, .cluster = kClusterCtas}, false, [&](auto instance) {
    using Traits = decltype(instance);
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {kClusterCtas, 1, 1};
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(kClusterCtas);
    config.blockDim = dim3(Traits::kThreads);
    config.dynamicSmemBytes = Traits::kLaunchBytes;
    config.attrs = &attribute;
    config.numAttrs = 1;
    int clusters = 0;
    error = cudaOccupancyMaxActiveClusters(&clusters, DecodeGemm<Traits>, &config);
    *ctas = static_cast<uint32_t>(clusters) * kClusterCtas;
  });
  return error;
}

cudaError_t LaunchDecodeGemm(const DecodeLaunch& launch, cudaStream_t stream) {
  const GemmPlan& plan = launch.plan;
  DecodeParams params{};
  params.x_map = launch.x_map;
  params.w_local_map = launch.w_local_map;
  params.w_remote_map = launch.w_remote_map;
  params.y = launch.y;
  params.epilogue = launch.epilogue;
  params.n = launch.n;
  params.local_rows = launch.local_rows;
  params.batch = launch.batch;
  params.k = static_cast<uint32_t>(launch.k);
  params.k_chunks = static_cast<uint32_t>(DivideUp(launch.k, kChunkColumns));
  params.remote_ctas = plan.remote_ctas;
  params.local_ctas = plan.local_ctas;
  params.local_inflight_stages = plan.local_inflight_boxes / plan.row_boxes;
  params.whole_tiles = plan.whole_tiles;
  params.halves = plan.halves;
  params.early_link = plan.early_link;
  params.early_release = plan.early_release;
  params.control = launch.control;
  params.report = launch.report;
  params.workspace = launch.workspace;
  params.ns_per_clock = launch.ns_per_clock;
  // Every CTA or cluster must have a chunk, a kind CTAs if it has rows, and a cluster CTAs of one kind.
  if (plan.cluster == 0) return cudaErrorInvalidValue;
  const uint64_t remote_rows = launch.n - launch.local_rows;
  if (remote_rows > 0) params.remote_units = CutRemote(plan.batch_tile, remote_rows, launch.k, plan.most_units);
  if (plan.local_inflight_boxes < plan.row_boxes || plan.remote_ctas > params.remote_units.count ||
      plan.remote_ctas > kMaxRemoteCtas || plan.remote_ctas % plan.cluster != 0 ||
      plan.local_ctas % plan.cluster != 0 ||
      plan.local_ctas / plan.cluster > LocalChunks(launch.local_rows, launch.k, plan) ||
      (plan.whole_tiles && plan.local_ctas / plan.cluster > LocalTiles(launch.local_rows, plan)) ||
      LocalChunks(launch.local_rows, launch.k, plan) > UINT32_MAX || (plan.remote_ctas == 0) != (remote_rows == 0) ||
      (plan.local_ctas == 0) != (launch.local_rows == 0) ||
      (plan.halves && !CanHalve(launch.local_rows, launch.k, plan))) {
    return cudaErrorInvalidValue;
  }
  cudaError_t error = cudaErrorInvalidValue;
  ForPlan(plan, launch.f16, [&](auto instance) { error = Launch<decltype(instance)>(params, launch, stream); });
  return error;
}

cudaError_t EncodeMatrix(CUtensorMap* map, const void* address, bool f16, uint64_t rows, uint64_t cols,
                         uint32_t box_rows, CUtensorMapL2promotion promotion, uint32_t box_columns) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  constexpr unsigned int kFirstVersion = 12000;
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, kFirstVersion, cudaEnableDefault, &found);
  if (error != cudaSuccess) return error;
  if (found != cudaDriverEntryPointSuccess) return cudaErrorSymbolNotFound;
  const cuuint64_t extents[2] = {cols, rows};
  const cuuint64_t row_bytes[1] = {cols * 2};
  const cuuint32_t box[2] = {box_columns, box_rows};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry)(
      map, f16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(address),
      extents, row_bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      box_columns == kChunkColumns ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B, promotion,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace dak::kernels

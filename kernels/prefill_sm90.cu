// The prefill GEMM for sm_90a. docs/kernels-prefill.md explains its phases, traffic and bounds.
#include <type_traits>

#include "kernels/prefill_epilogue.cuh"
#include "kernels/prefill_launch.h"
#include "kernels/prefill_remote.cuh"
#include "kernels/ptx/wgmma.h"

namespace dak::kernels {
namespace {

constexpr uint16_t kBothCtas = 3;

// ---- The scheduler: one thread of a cluster that takes items for both CTAs ------------------------------------------

__device__ inline void Schedule(const PrefillParams& p, PrefillShared& shared) {
  const auto count = static_cast<uint32_t>(p.layout.Items());
  RingPlace place;
  uint32_t wanted_phase = 1;  // nothing to wait for at first
  for (uint32_t number = 0; number != kNoItem; place.Advance(kItemSlots), wanted_phase ^= 1) {
    WaitFor(&shared.wanted, wanted_phase);
    WaitForCluster(&shared.item_empty[place.stage], place.phase ^ 1);
    number = atomicAdd(&p.workspace.counters->next_item, 1u);
    if (number >= count) number = kNoItem;
    for (uint32_t cta = 0; cta < kPrefillClusterCtas; ++cta) {
      ptx::StoreToCta(ptx::MapToCta(const_cast<uint32_t*>(&shared.items[place.stage]), cta), number);
      ptx::ReleaseToCta(ptx::MapToCta(&shared.item_full[place.stage], cta));
    }
  }
  if (!FinishPart(p) || p.fetchers > 0) return;
  CountLocalLaunch(p.base);
}

// ---- The producer: one thread that keeps the stages full ------------------------------------------------------------

// A CTA loads its own rows of x, and half of the tile's boxes of W for both CTAs.
template <class Traits>
class Producer {
 public:
  __device__ Producer(const PrefillParams& p, uint8_t* ring, PrefillShared& shared, uint32_t rank)
      : p_(p),
        ring_(ring),
        shared_(shared),
        rank_(rank),
        x_policy_(p.keep_x ? ptx::EvictLastPolicy() : ptx::EvictNormalPolicy()) {}

  __device__ void Run() {
    ptx::PrefetchTensorMap(&p_.base.x_map);
    if (p_.layout.local_boxes > 0) ptx::PrefetchTensorMap(&p_.base.w_local_map);
    ItemReader items(p_, shared_);
    uint32_t loaded = 0;
    for (Item item; items.Next(item);) {
      const PrefillTile tile = p_.layout.Tile(item.tile);
      const PrefillGroup group(p_.layout, item.tile / p_.layout.group_tiles);
      const uint32_t chunks = p_.layout.k_chunks;
      const uint32_t first = rank_ * Traits::kBoxes / 2;
      const uint32_t end = min(tile.count, first + Traits::kBoxes / 2);
      const auto batch = static_cast<int32_t>(item.pair * kPrefillPairBatch + rank_ * kPrefillBatchTile);
      const uint32_t last_before_next = chunks > kTakeAheadChunks ? chunks - kTakeAheadChunks : 0;
      for (uint32_t chunk = 0; chunk < chunks; ++chunk, ++loaded) {
        WaitFor(&shared_.empty[place_.stage], place_.phase ^ 1);
        uint64_t* const full = &shared_.full[place_.stage];
        cuda::ptx::mbarrier_arrive_expect_tx(cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared,
                                             full, Traits::kXBytes + tile.count * kBoxBytes);
        uint8_t* const stage = ring_ + place_.stage * Traits::kStageBytes;
        ptx::TmaLoad(stage, &p_.base.x_map, static_cast<int32_t>(chunk * kChunkColumns), batch, full, x_policy_);
        if (first < tile.remote) WaitForRing(loaded);
        for (uint32_t i = first; i < end; ++i) {
          LoadBox(tile.At(i), group, chunk, stage + Traits::kXBytes + i * kBoxBytes, full);
        }
        place_.Advance(Traits::kStages);
        if (rank_ == 0 && chunk == last_before_next) cuda::ptx::mbarrier_arrive(&shared_.wanted);
      }
    }
  }

 private:
  // Until the boxes of the `loaded`-th chunk have come. The watcher sees many at once, and they share a fence: the
  // slots' words were read by ordinary loads, and the slots are by the asynchronous proxy.
  __device__ void WaitForRing(uint32_t loaded) {
    if (static_cast<int32_t>(ready_ - loaded) > 0) return;
    do {
      ready_ = shared_.ready_chunks.Load();
    } while (static_cast<int32_t>(ready_ - loaded) <= 0);
    __threadfence_block();
    cuda::ptx::fence_proxy_async(cuda::ptx::space_global);
  }

  __device__ void LoadBox(const PrefillBox& box, const PrefillGroup& group, uint32_t chunk, uint8_t* target,
                          uint64_t* full) const {
    if (box.remote) {
      const uint64_t slot = group.Of(box.index, chunk) % kPrefillRingSlots;
      cuda::ptx::cp_async_bulk(cuda::ptx::space_cluster, cuda::ptx::space_global, target,
                               p_.workspace.ring + slot * kBoxBytes, uint32_t{kBoxBytes}, full, uint16_t{kBothCtas});
    } else {
      const int32_t at[2] = {static_cast<int32_t>(chunk * kChunkColumns), static_cast<int32_t>(box.index * kBoxRows)};
      cuda::ptx::cp_async_bulk_tensor(cuda::ptx::space_cluster, cuda::ptx::space_global, target, &p_.base.w_local_map,
                                      at, full, uint16_t{kBothCtas});
    }
  }

  const PrefillParams& p_;
  uint8_t* ring_;
  PrefillShared& shared_;
  uint32_t rank_;
  uint64_t x_policy_;
  uint32_t ready_ = 0;  // chunks whose remote boxes are known to have come
  RingPlace place_;
};

// ---- Consumers: two warpgroups, 64 rows of the batch each -----------------------------------------------------------

// Waits for the next stage and starts its products; kFirst: of an item, which forget the sums before.
template <class Traits, bool kFirst>
__device__ inline void StartNext(uint32_t ring_address, PrefillShared& shared, float (&sums)[Traits::kN / 2],
                                 RingPlace& place, uint32_t group) {
  constexpr uint32_t kSteps = kChunkColumns / 16;
  constexpr uint32_t kStepBytes = 32;
  WaitFor(&shared.full[place.stage], place.phase);
  const uint32_t stage = ring_address + place.stage * Traits::kStageBytes;
  const uint64_t x = ptx::WgmmaDescriptor(stage + group * kBoxBytes);
  const uint64_t w = ptx::WgmmaDescriptor(stage + Traits::kXBytes);
  ptx::WgmmaFence();
  ptx::Wgmma<Traits::kN, Traits::kF16>::template Run<!kFirst>(sums, x, w);
#pragma unroll
  for (uint32_t step = 1; step < kSteps; ++step) {
    ptx::Wgmma<Traits::kN, Traits::kF16>::template Run<true>(sums, x + step * (kStepBytes >> 4),
                                                             w + step * (kStepBytes >> 4));
  }
  ptx::WgmmaCommit();
  place.Advance(Traits::kStages);
}

// This warp is done with a stage, for its own CTA and for the other, which loads into it too.
__device__ inline void Release(PrefillShared& shared, uint32_t stage, uint32_t lane) {
  if (lane < kPrefillClusterCtas) ptx::ArriveAtCta(ptx::MapToCta(&shared.empty[stage], lane));
}

template <class Traits>
__device__ inline void Consume(const PrefillParams& p, uint8_t* ring, PrefillShared& shared, uint32_t group,
                               uint32_t rank) {
  const uint32_t thread = threadIdx.x % kWarpgroupThreads;
  const uint32_t lane = thread % kWarpThreads;
  const uint32_t ring_address = ptx::SharedAddress(ring);
  uint8_t* const staging = ring + Traits::kRingBytes + group * Traits::kStagedBoxes * kBoxBytes;
  ItemReader items(p, shared);
  RingPlace place;
  for (Item item; items.NextOfWarp(item);) {
    const PrefillTile tile = p.layout.Tile(item.tile);
    float sums[Traits::kN / 2];
    uint32_t before = place.stage;
    StartNext<Traits, true>(ring_address, shared, sums, place, group);
    for (uint32_t chunk = 1; chunk < p.layout.k_chunks; ++chunk) {
      const uint32_t stage = place.stage;
      StartNext<Traits, false>(ring_address, shared, sums, place, group);
      ptx::WgmmaWait<1>();
      Release(shared, before, lane);
      before = stage;
    }
    ptx::WgmmaWait<0>();
    Release(shared, before, lane);
    const uint32_t batch = item.pair * kPrefillPairBatch + rank * kPrefillBatchTile + group * kBoxRows;
    StoreItem<Traits>(p, tile, batch, staging, sums, thread, 1 + group);
  }
  if (thread == 0) cuda::ptx::cp_async_bulk_wait_group(cuda::ptx::n32_t<0>());
}

// ---- The kernel -----------------------------------------------------------------------------------------------------

template <class Traits>
__device__ inline void InitialiseShared(PrefillShared& shared) {
  constexpr uint32_t kReleases = kPrefillClusterCtas * kConsumerGroups * kGroupWarps + 1;  // and the clerk
  for (uint32_t stage = 0; stage < Traits::kStages; ++stage) {
    cuda::ptx::mbarrier_init(&shared.full[stage], 1);
    cuda::ptx::mbarrier_init(&shared.empty[stage], uint32_t{kReleases});
  }
  for (uint32_t slot = 0; slot < kItemSlots; ++slot) {
    cuda::ptx::mbarrier_init(&shared.item_full[slot], 1);
    cuda::ptx::mbarrier_init(&shared.item_empty[slot], uint32_t{kItemReaders});
  }
  cuda::ptx::mbarrier_init(&shared.wanted, 1);
  shared.ready_chunks.Store(0);
}

template <class Traits>
__global__ __cluster_dims__(kPrefillClusterCtas, 1, 1)
    __launch_bounds__(kPrefillThreads, 1) void PrefillGemm(const __grid_constant__ PrefillParams p) {
  // Phase 1: shared memory. A fetcher's lies over a multiplier's.
  extern __shared__ uint8_t raw[];
  uint8_t* const ring = raw + (kSwizzleAtomBytes - ptx::SharedAddress(raw) % kSwizzleAtomBytes) % kSwizzleAtomBytes;
  uint8_t* const control = ring + Traits::kRingBytes + Traits::kStagingBytes;
  auto& shared = *reinterpret_cast<PrefillShared*>(control);
  auto& fetch = *reinterpret_cast<FetchShared*>(control);
  const uint32_t warp = __shfl_sync(~0u, threadIdx.x / kWarpThreads, 0);  // tells the compiler that it is uniform
  const uint32_t lane = threadIdx.x % kWarpThreads;
  const uint32_t rank = ptx::ClusterRank();
  const bool fetches = blockIdx.x < p.fetchers;  // both CTAs of a cluster, or none

  // Phase 2: barriers. A stage is full when its producer has said how many bytes come and they came, empty when every
  // consumer warp of the cluster has read it and the clerk has seen it.
  if (threadIdx.x == 0) {
    if (fetches) {
      InitialiseFetch(fetch);
    } else {
      InitialiseShared<Traits>(shared);
    }
    cuda::ptx::fence_mbarrier_init(cuda::ptx::sem_release, cuda::ptx::scope_cluster);
  }
  cuda::ptx::barrier_cluster_arrive();
  cuda::ptx::barrier_cluster_wait();
  ptx::WaitForPreviousGrid();
  if (!fetches) ptx::ReleaseNextGrid();

  // Phase 3: roles. The first warpgroup moves data, the others multiply.
  if (fetches) {
    Fetch(p, ring, fetch, warp, lane);
  } else if (warp < kGroupWarps) {
    ptx::GiveRegisters<kProducerRegisters>();
    if (warp == 0 && lane == 0) {
      Producer<Traits>(p, ring, shared, rank).Run();
    } else if (warp == 1) {
      Watch(p, shared, rank);
    } else if (warp == 2 && lane == 0) {
      CrossOff<Traits>(p, shared);
    } else if (warp == 3 && lane == 0 && rank == 0) {
      Schedule(p, shared);
    }
  } else {
    ptx::TakeRegisters<kConsumerRegisters>();
    Consume<Traits>(p, ring, shared, warp / kGroupWarps - 1, rank);
  }

  // Phase 4: the other CTA may still arrive at this one's barriers.
  __syncwarp();
  cuda::ptx::barrier_cluster_arrive();
  cuda::ptx::barrier_cluster_wait();
}

// ---- Launching ------------------------------------------------------------------------------------------------------

template <class Traits>
cudaError_t Launch(const PrefillParams& params, bool overlap_previous, cudaStream_t stream) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = overlap_previous ? 1 : 0;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(params.clusters * kPrefillClusterCtas + params.fetchers);
  config.blockDim = dim3(kPrefillThreads);
  config.dynamicSmemBytes = Traits::kLaunchBytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, PrefillGemm<Traits>, params);
}

// Calls `visit` with the traits of the instance for such tiles; false if there is none.
template <class Visitor>
bool ForTile(uint32_t row_boxes, bool f16, bool epilogue, const Visitor& visit) {
  const auto with = [&](auto boxes, auto has_epilogue) {
    if (f16) {
      visit(PrefillInstance<boxes(), true, has_epilogue()>());
    } else {
      visit(PrefillInstance<boxes(), false, has_epilogue()>());
    }
    return true;
  };
  const auto with_boxes = [&](auto boxes) {
    return epilogue ? with(boxes, std::true_type()) : with(boxes, std::false_type());
  };
  if (row_boxes == 4) return with_boxes(std::integral_constant<int, 4>());
  if (row_boxes == 2) return with_boxes(std::integral_constant<int, 2>());
  return false;
}

bool IsSound(const PrefillLaunch& launch) {
  const PrefillPlan& plan = launch.plan;
  const PrefillLayout& layout = plan.layout;
  if (plan.clusters == 0 || layout.group_tiles == 0 || layout.tiles == 0) return false;
  if (plan.fetchers > kMaxPrefillFetchers || plan.fetchers % kPrefillClusterCtas != 0) return false;
  if ((plan.fetchers == 0) != (layout.remote_boxes == 0) || layout.Items() >= kNoItem) return false;
  for (uint32_t i = 0; i < layout.Groups(); ++i) {
    if (uint64_t{PrefillGroup(layout, i).count} * layout.k_chunks > kPrefillRingSlots) return false;
  }
  return true;
}

}  // namespace

cudaError_t PreparePrefillGemm() {
  cudaError_t error = cudaSuccess;
  for (const uint32_t row_boxes : {2u, 4u}) {
    for (const bool f16 : {false, true}) {
      for (const bool epilogue : {false, true}) {
        ForTile(row_boxes, f16, epilogue, [&](auto instance) {
          using Traits = decltype(instance);
          if (error != cudaSuccess) return;
          error = cudaFuncSetAttribute(PrefillGemm<Traits>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       Traits::kLaunchBytes);
        });
      }
    }
  }
  return error;
}

cudaError_t LaunchPrefillGemm(const PrefillLaunch& launch, cudaStream_t stream) {
  if (!IsSound(launch)) return cudaErrorInvalidValue;
  PrefillParams params{};
  params.base.x_map = launch.x_map;
  params.base.w_local_map = launch.w_local_map;
  params.base.w_remote_map = launch.w_remote_map;
  params.base.y = launch.y;
  params.base.epilogue = launch.epilogue;
  params.base.n = launch.n;
  params.base.local_rows = launch.local_rows;
  params.base.batch = launch.batch;
  params.base.k = static_cast<uint32_t>(launch.k);
  params.base.k_chunks = launch.plan.layout.k_chunks;
  params.base.control = launch.control;
  params.base.report = launch.report;
  params.base.workspace.link = launch.workspace.link;
  params.base.ns_per_clock = launch.ns_per_clock;
  params.y_columns = launch.epilogue.swiglu ? launch.n / 2 : launch.n;
  params.y_map = launch.y_map;
  params.has_y_map = launch.has_y_map;
  params.layout = launch.plan.layout;
  params.workspace = launch.workspace;
  params.clusters = launch.plan.clusters;
  params.fetchers = launch.plan.fetchers;
  params.keep_x = launch.plan.keep_x;
  const DecodeEpilogue& epilogue = launch.epilogue;
  const bool has_epilogue = epilogue.bias != nullptr || epilogue.residual != nullptr || epilogue.swiglu;
  cudaError_t error = cudaErrorInvalidValue;
  ForTile(launch.plan.layout.row_boxes, launch.f16, has_epilogue,
          [&](auto instance) { error = Launch<decltype(instance)>(params, launch.overlap_previous, stream); });
  return error;
}

}  // namespace dak::kernels

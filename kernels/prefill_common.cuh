// What the roles of the prefill kernel share: parameters, shared memory, the passing of items.
#ifndef DAK_KERNELS_PREFILL_COMMON_CUH_
#define DAK_KERNELS_PREFILL_COMMON_CUH_

#include "kernels/decode_common.cuh"
#include "kernels/prefill_launch.h"
#include "kernels/ptx/cluster.h"

namespace dak::kernels {

inline constexpr uint32_t kConsumerGroups = 2;
inline constexpr uint32_t kGroupWarps = kWarpgroupThreads / kWarpThreads;
inline constexpr uint32_t kPrefillThreads = (1 + kConsumerGroups) * kWarpgroupThreads;
inline constexpr uint32_t kMaxPrefillStages = 6;
inline constexpr uint32_t kItemSlots = 2;
inline constexpr uint32_t kNoItem = ~0u;
// An item is taken when the one before it has so many chunks to load: not sooner, or others would have none.
inline constexpr uint32_t kTakeAheadChunks = 8;

struct PrefillParams {
  DecodeParams base;  // what the link's half of the decode kernel needs, and the maps
  CUtensorMap y_map;
  PrefillLayout layout;
  PrefillWorkspace workspace;
  uint64_t y_columns;
  uint32_t clusters;
  uint32_t fetchers;
  bool has_y_map;
  bool keep_x;
};

// How a template instance lies in shared memory: stages of x's and W's chunks, then what y is staged in: two boxes of
// 64 x 64 for each consumer.
template <int kRowBoxes, bool kF16Elements, bool kHasEpilogue>
struct PrefillInstance {
  static constexpr int kBoxes = kRowBoxes;
  static constexpr int kN = kRowBoxes * static_cast<int>(kBoxRows);
  static constexpr bool kF16 = kF16Elements;
  static constexpr bool kEpilogue = kHasEpilogue;  // bias, residual or activation
  static constexpr uint32_t kXBytes = kPrefillBatchTile * kChunkColumns * 2;
  static constexpr uint32_t kStageBytes = kXBytes + kRowBoxes * kBoxBytes;
  static constexpr uint32_t kStages = kRowBoxes == 4 ? 4 : 6;
  static constexpr uint32_t kRingBytes = kStages * kStageBytes;
  static constexpr uint32_t kStagedBoxes = 2;
  static constexpr uint32_t kStagingBytes = kConsumerGroups * kStagedBoxes * kBoxBytes;
  static constexpr uint32_t kLaunchBytes = kRingBytes + kStagingBytes + kControlBytes + kSwizzleAtomBytes;
  static_assert(kLaunchBytes <= kSharedBytes);
  static_assert(kStages <= kMaxPrefillStages && kRowBoxes % 2 == 0 && kN <= 256);
  static_assert(kStageBytes % kSwizzleAtomBytes == 0, "operands must lie on the swizzle's 1024-byte pattern");
};

// Behind the rings.
struct PrefillShared {
  uint64_t full[kMaxPrefillStages];
  uint64_t empty[kMaxPrefillStages];
  uint64_t item_full[kItemSlots];
  uint64_t item_empty[kItemSlots];  // this and the next are used in the cluster's first CTA alone
  uint64_t wanted;                  // the producer will soon have loaded its item
  volatile uint32_t items[kItemSlots];
  Polled<uint32_t> ready_chunks;  // chunks, since the start, whose remote boxes are in the ring
};
static_assert(sizeof(PrefillShared) <= kControlBytes);

// The roles that read items: in each CTA the producer, the watcher, the clerk and every consumer warp.
inline constexpr uint32_t kItemReaders = kPrefillClusterCtas * (3 + kConsumerGroups * kGroupWarps);

__device__ inline void WaitForCluster(uint64_t* barrier, uint32_t phase) {
  while (!cuda::ptx::mbarrier_try_wait_parity(cuda::ptx::sem_acquire, cuda::ptx::scope_cluster, barrier, phase)) {
  }
}

struct Item {
  uint32_t tile;
  uint32_t pair;
};

// A role's view of the items of its cluster, in order.
class ItemReader {
 public:
  __device__ ItemReader(const PrefillParams& p, PrefillShared& shared) : shared_(shared), pairs_(p.layout.pairs) {}

  // By one thread. False after the last item.
  __device__ bool Next(Item& item) {
    const uint32_t number = Read();
    ptx::ArriveAtCta(ptx::MapToCta(&shared_.item_empty[place_.stage], 0));
    return Take(number, item);
  }

  // The same by a whole warp.
  __device__ bool NextOfWarp(Item& item) {
    const uint32_t number = Read();
    __syncwarp();
    if (threadIdx.x % kWarpThreads == 0) ptx::ArriveAtCta(ptx::MapToCta(&shared_.item_empty[place_.stage], 0));
    return Take(number, item);
  }

 private:
  __device__ uint32_t Read() const {
    WaitForCluster(&shared_.item_full[place_.stage], place_.phase);
    return shared_.items[place_.stage];
  }

  __device__ bool Take(uint32_t number, Item& item) {
    place_.Advance(kItemSlots);
    if (number == kNoItem) return false;
    item = {number / pairs_, number % pairs_};
    return true;
  }

  PrefillShared& shared_;
  uint32_t pairs_;
  RingPlace place_;
};

// Ends a cluster's or a fetcher's part of the launch; the last one leaves the counters as they were found. True for
// the last one.
__device__ inline bool FinishPart(const PrefillParams& p) {
  PrefillCounters& counters = *p.workspace.counters;
  __threadfence();
  if (atomicAdd(&counters.finished, 1u) + 1 < p.clusters + p.fetchers) return false;
  __threadfence();
  counters.next_item = 0;
  counters.finished = 0;
  for (uint64_t& fetched : counters.fetched) fetched = 0;
  for (uint64_t& carried : counters.carried) carried = 0;
  __threadfence();
  return true;
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_PREFILL_COMMON_CUH_

// What the roles of the decode kernel share: parameters, shared memory, the division of work.
#ifndef DAK_KERNELS_DECODE_COMMON_CUH_
#define DAK_KERNELS_DECODE_COMMON_CUH_

#include <cuda.h>

#include <cstdint>
#include <cuda/ptx>

#include "kernels/gemm_launch.h"
#include "kernels/ptx/launch.h"
#include "kernels/ptx/memory.h"
#include "kernels/ptx/tma.h"

namespace dak::kernels {

inline constexpr uint32_t kWarpThreads = 32;
inline constexpr uint32_t kWarpgroupThreads = 128;
// What a CTA of sm_90 can have alone on its SM, and beside another: of 228 KiB an SM, 1 KiB a CTA is the system's.
inline constexpr uint32_t kSharedBytes = 227 * 1024;
inline constexpr uint32_t kHalfSharedBytes = 113 * 1024;
inline constexpr uint32_t kSwizzleAtomBytes = 1024;
inline constexpr uint32_t kControlBytes = 2048;  // after the ring
inline constexpr uint32_t kMaxStages = 24;

struct DecodeParams {
  CUtensorMap x_map;
  CUtensorMap w_local_map;
  CUtensorMap w_remote_map;
  void* y;
  uint64_t n;
  uint64_t local_rows;
  uint32_t batch;
  uint32_t k_chunks;
  uint32_t k;
  uint32_t remote_ctas;
  uint32_t remote_workers;  // remote CTAs that have work
  uint32_t local_clusters;
  const v1::LinkControl* control;
  v1::LinkReport* report;
  DecodeWorkspace workspace;
  float ns_per_clock;
};

// How a template instance lies in shared memory.
template <int kBatchTile, int kRowBoxes, int kCluster, bool kF16Elements>
struct DecodeTraits {
  static constexpr int kN = kBatchTile;
  static constexpr int kBoxes = kRowBoxes;
  static constexpr int kCtas = kCluster;
  static constexpr bool kF16 = kF16Elements;
  static constexpr uint32_t kWStageBytes = kRowBoxes * kBoxBytes;
  static constexpr uint32_t kXStageBytes = kBatchTile * kChunkColumns * 2;
  static constexpr uint32_t kXSliceRows = kBatchTile / kCluster;
  static constexpr uint32_t kXSliceBytes = kXStageBytes / kCluster;
  static constexpr uint32_t kStageBytes = kWStageBytes + kXStageBytes;
  // Small tiles leave room for a CTA of the next launch, which fills its ring while this launch ends.
  static constexpr int kCtasPerSm = kBatchTile <= 64 ? 2 : 1;
  static constexpr uint32_t kCtaBytes = kCtasPerSm == 2 ? kHalfSharedBytes : kSharedBytes;
  static constexpr uint32_t kFit = (kCtaBytes - kSwizzleAtomBytes - kControlBytes) / kStageBytes;
  static constexpr uint32_t kStages = kFit < kMaxStages ? kFit : kMaxStages;
  static constexpr uint32_t kLaunchBytes = kStages * kStageBytes + kSwizzleAtomBytes + kControlBytes;
  static constexpr uint32_t kConsumerWarps = kRowBoxes * kWarpgroupThreads / kWarpThreads;
  static constexpr uint32_t kThreads = (kConsumerWarps + 2) * kWarpThreads;  // and the producer's and the meter's
  static_assert(kStages >= 4, "too few stages to hide a read");
  static_assert(kStageBytes % kSwizzleAtomBytes == 0 && kXSliceBytes % kSwizzleAtomBytes == 0,
                "operands must lie on the swizzle's 1024-byte pattern");
  static_assert(kN % 8 == 0 && kN <= kMaxBatch && kCluster <= 4 && kRowBoxes <= 2);
};

// Behind the ring. What one thread writes and another polls is volatile.
struct DecodeShared {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
  uint64_t issue_clock[kMaxStages];  // remote: when the stage's read was issued
  uint32_t issue_bytes[kMaxStages];  // and its size
  uint32_t last_arriver[2];          // one a consumer warpgroup
  volatile uint32_t share_boxes;     // remote: reads that this CTA may have in flight
  volatile float ns_per_clock;
  volatile uint32_t stop_meter;
  volatile uint32_t meter_stopped;
};
static_assert(sizeof(DecodeShared) <= kControlBytes);

// What a CTA works on: chunks [begin, begin + count) of its kind's part, k_chunks of them a tile.
struct WorkRange {
  bool remote;
  uint32_t worker;  // this CTA's (local: its cluster's) number among the kind's
  uint32_t workers;
  uint32_t tile_rows;    // of the whole cluster
  uint32_t first_box;    // this CTA's first box in the tile, in rows
  uint64_t part_rows;    // rows of the part
  uint64_t part_offset;  // of the part in W
  uint64_t total;        // chunks of the part
  uint64_t begin;
  uint64_t count;

  __device__ uint64_t BeginOf(uint32_t i) const { return total * i / workers; }
  __device__ uint32_t OwnerOf(uint64_t chunk) const {
    return static_cast<uint32_t>(((chunk + 1) * workers - 1) / total);
  }
};

template <class Traits>
__device__ inline WorkRange DivideWork(const DecodeParams& p, uint32_t rank) {
  WorkRange work;
  work.remote = blockIdx.x < p.remote_ctas;
  const uint64_t remote_rows = p.n - p.local_rows;
  work.worker = work.remote ? blockIdx.x : (blockIdx.x - p.remote_ctas) / Traits::kCtas;
  work.workers = work.remote ? p.remote_workers : p.local_clusters;
  work.tile_rows = work.remote ? kBoxRows : kBoxRows * Traits::kBoxes * Traits::kCtas;
  work.first_box = work.remote ? 0 : rank * Traits::kBoxes * kBoxRows;
  work.part_rows = work.remote ? remote_rows : p.local_rows;
  work.part_offset = work.remote ? p.local_rows : 0;
  work.total = (work.part_rows + work.tile_rows - 1) / work.tile_rows * p.k_chunks;
  work.begin = work.worker < work.workers ? work.BeginOf(work.worker) : work.total;
  work.count = work.worker < work.workers ? work.BeginOf(work.worker + 1) - work.begin : 0;
  return work;
}

// A place in a ring of stages: the phase flips with every round.
struct RingPlace {
  uint32_t stage = 0;
  uint32_t phase = 0;
  __device__ void Advance(uint32_t stages) {
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

__device__ inline void WaitFor(uint64_t* barrier, uint32_t phase) {
  while (!cuda::ptx::mbarrier_try_wait_parity(barrier, phase)) {
  }
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_DECODE_COMMON_CUH_

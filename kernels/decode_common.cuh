// What the roles of the decode kernel share: parameters, shared memory, the division of work.
#ifndef DAK_KERNELS_DECODE_COMMON_CUH_
#define DAK_KERNELS_DECODE_COMMON_CUH_

#include <cuda.h>

#include <cstdint>
#include <cuda/ptx>

#include "kernels/gemm_launch.h"
#include "kernels/polled.cuh"
#include "kernels/ptx/launch.h"
#include "kernels/ptx/memory.h"
#include "kernels/ptx/tma.h"

namespace dak::kernels {

inline constexpr uint32_t kWarpThreads = 32;
inline constexpr uint32_t kWarpgroupThreads = 128;
inline constexpr uint32_t kSharedBytes = 227 * 1024;  // what a CTA of sm_90 can have
inline constexpr uint32_t kSwizzleAtomBytes = 1024;
inline constexpr uint32_t kControlBytes = 2048;  // after the rings
inline constexpr uint32_t kMaxWStages = 24;
inline constexpr uint32_t kMaxXStages = 8;
inline constexpr uint32_t kUnitPlaces = 4;
// Of three warpgroups, 168 each at first: one that moves data, two that multiply.
inline constexpr int kProducerRegisters = 56;
inline constexpr int kConsumerRegisters = 224;

struct DecodeParams {
  CUtensorMap x_map;
  CUtensorMap w_local_map;
  CUtensorMap w_remote_map;
  void* y;
  DecodeEpilogue epilogue;
  uint64_t n;
  uint64_t local_rows;
  uint32_t batch;
  uint32_t k;
  uint32_t k_chunks;
  uint32_t remote_ctas;
  uint32_t local_ctas;
  uint32_t local_inflight_stages;
  bool whole_tiles;
  bool halves;
  bool early_link;
  bool early_release;
  RemoteUnits remote_units;
  const v1::LinkControl* control;
  v1::LinkReport* report;
  DecodeWorkspace workspace;
  float ns_per_clock;
};

// How a template instance lies in shared memory: a ring of W's stages, one of x's. They are apart since W comes from
// far and x from L2: W needs many bytes in flight all the time, and with a large batch x has the larger stages.
// NOTE: a CTA takes a whole SM. With half of one, so that the next launch's rings fill while this one ends, operations
// in HBM took 7 to 26 % longer on an H100.
//
// In a cluster, local CTAs work on the same chunks of neighbouring rows: each loads its slice of x's rows for all.
template <int kBatchTile, int kRowBoxes, bool kF16Elements, int kClusterCtas = 1>
struct DecodeTraits {
  static constexpr bool kRemote = false;
  static constexpr int kN = kBatchTile;
  static constexpr uint32_t kCluster = kClusterCtas;
  static constexpr int kBoxes = kRowBoxes;
  // Consumer warpgroups that share a box's columns, so that the end of a large batch's tile takes half as long.
  static constexpr uint32_t kColumnGroups = kBatchTile > 128 ? 2 : 1;
  static constexpr int kGroupN = kBatchTile / static_cast<int>(kColumnGroups);
  static constexpr bool kF16 = kF16Elements;
  static constexpr uint32_t kXStageBytes = kBatchTile * kChunkColumns * 2;
  static constexpr uint32_t kXStages = kBatchTile <= 64 ? 8 : kBatchTile <= 128 ? 8 / kRowBoxes : 5;
  static constexpr uint32_t kXRingBytes = kXStages * kXStageBytes;
  static constexpr uint32_t kXSlices = kClusterCtas;  // that a stage of x is read in
  static constexpr uint32_t kXSliceRows = kBatchTile / kClusterCtas;
  static constexpr uint32_t kXSliceBytes = kXStageBytes / kClusterCtas;
  static constexpr bool kCanHalve = kBatchTile >= kLeastHalvedTile && kClusterCtas == 1;
  static constexpr uint32_t kWStageBytes = kRowBoxes * kBoxBytes;
  static constexpr uint32_t kRoom = kSharedBytes - kSwizzleAtomBytes - kControlBytes;
  static constexpr uint32_t kWFit = (kRoom - kXRingBytes) / kWStageBytes;
  static constexpr uint32_t kWStages = kWFit < kMaxWStages ? kWFit : kMaxWStages;
  static constexpr uint32_t kWRingBytes = kWStages * kWStageBytes;
  static constexpr uint32_t kLaunchBytes = kWRingBytes + kXRingBytes + kSwizzleAtomBytes + kControlBytes;
  static constexpr uint32_t kBoxWarps = kColumnGroups * kWarpgroupThreads / kWarpThreads;  // consumers of one box
  static constexpr uint32_t kConsumerWarps = kRowBoxes * kBoxWarps;
  // W's producer's, x's and the meter's warp come after the consumers. Two warpgroups of consumers have registers from
  // them, for which the three make a warpgroup with a fourth.
  static constexpr bool kMovesRegisters = kConsumerWarps * kWarpThreads == 2 * kWarpgroupThreads;
  static constexpr uint32_t kThreads = (kConsumerWarps + (kMovesRegisters ? 4 : 3)) * kWarpThreads;
  static_assert(kWRingBytes >= 48 * 1024, "too little of W in flight to hide a read");
  static_assert(kXStages >= 4 && kXStages <= kMaxXStages);
  static_assert(kWStageBytes % kSwizzleAtomBytes == 0 && kXStageBytes % kSwizzleAtomBytes == 0,
                "operands must lie on the swizzle's 1024-byte pattern");
  static_assert(kN % 8 == 0 && kN <= kMaxBatch && kRowBoxes <= 2);
  static_assert(kColumnGroups * kRowBoxes <= 2, "there are registers for two warpgroups");
  static_assert(kXSliceBytes % kSwizzleAtomBytes == 0, "a slice must keep the swizzle's pattern");
};

// The same for a remote CTA of that instance, whose tiles are one box high. Its boxes of W come seldom, so a short ring
// of x is enough where x is large, and W's is the longer: reads go on while the consumers finish a unit.
template <class Local>
struct RemoteTraits : Local {
  static constexpr bool kRemote = true;
  static constexpr uint32_t kCluster = 1;
  static constexpr int kBoxes = 1;
  static constexpr uint32_t kXStages = Local::kN <= 64 ? Local::kXStages : Local::kN <= 128 ? 4 : 3;
  static constexpr uint32_t kXRingBytes = kXStages * Local::kXStageBytes;
  static constexpr bool kCanHalve = false;
  static constexpr uint32_t kWStageBytes = kBoxBytes;
  static constexpr uint32_t kWFit = (Local::kWRingBytes + Local::kXRingBytes - kXRingBytes) / kWStageBytes;
  static constexpr uint32_t kWStages = kWFit < kMaxWStages ? kWFit : kMaxWStages;
  static constexpr uint32_t kWRingBytes = kWStages * kWStageBytes;
  static constexpr uint32_t kConsumerWarps = Local::kBoxWarps;
  static_assert(kXStages <= Local::kXStages);
};

// Behind the rings.
struct DecodeShared {
  uint64_t w_full[kMaxWStages];
  uint64_t w_empty[kMaxWStages];
  uint64_t x_full[kMaxXStages];
  uint64_t x_empty[kMaxXStages];
  // A remote CTA's units, from W's producer to the others.
  uint64_t unit_full[kUnitPlaces];
  uint64_t unit_empty[kUnitPlaces];
  volatile uint32_t units[kUnitPlaces];
  // A remote CTA's.
  uint2 issues[kMaxWStages];  // W's producer's: the clock's low word, and the bytes
  LinkWords words;
};
static_assert(sizeof(DecodeShared) <= kControlBytes);

// Chunks of one tile, one after another.
struct Unit {
  uint32_t tile;
  uint32_t chunk;
  uint32_t chunks;  // 0: there are no more units
};

// A chunk of a part, and how many a CTA does from it on before it goes back to the start of its range.
struct Cursor {
  uint32_t tile;
  uint32_t chunk;
  uint32_t until_wrap;
};

// What a CTA works on. A local one: chunks [begin, end) of the part, k_chunks of them a tile, a contiguous range; of
// whole tiles, or wherever it begins and ends. The chunks of the last tile come first if another CTA finishes it: then
// that one needn't wait for them at its own end. A remote one draws units (decode_units.cuh). A cluster of local CTAs
// is one worker, whose tiles are as many times higher.
//
// NOTE: chunks are counted in 32 bits (LaunchDecodeGemm checks that they can be). A division of 64-bit numbers takes as
// long as a read of L2, and these stand between the launch before and the first product.
struct WorkRange {
  bool remote;
  uint32_t worker;  // this CTA's or cluster's number among its kind's
  uint32_t workers;
  uint32_t rank;  // in the cluster, of a local CTA
  bool halves;    // as GemmPlan's, of a local CTA
  uint32_t tile_rows;
  uint32_t row_offset;  // in a tile, of this CTA's rows
  uint32_t k_chunks;
  uint32_t grain;        // chunks that aren't parted: k_chunks or 1
  uint32_t each;         // grains that every worker has at least...
  uint32_t more;         // ...and that so many of the first have one more than
  uint64_t part_rows;    // rows of the part
  uint64_t part_offset;  // of the part in W
  uint32_t begin;
  uint32_t end;

  __device__ uint32_t Count() const { return end - begin; }
  __device__ uint32_t BeginOf(uint32_t i) const { return (each * i + min(i, more)) * grain; }
  // Where grains are chunks.
  __device__ uint32_t OwnerOf(uint32_t chunk) const {
    const uint32_t longer = (each + 1) * more;
    return chunk < longer ? chunk / (each + 1) : more + (chunk - longer) / each;
  }
  __device__ Cursor At(uint32_t position) const { return {position / k_chunks, position % k_chunks, end - position}; }
  __device__ Cursor Start() const {
    const uint32_t last_tile_begin = end / k_chunks * k_chunks;
    return At(last_tile_begin == end || last_tile_begin < begin ? begin : last_tile_begin);
  }
};

// The units of a local CTA: what it has of each tile.
class LocalUnits {
 public:
  explicit __device__ LocalUnits(const WorkRange& work) : work_(work), at_(work.Start()), left_(work.Count()) {}

  __device__ Unit Next() {
    const Unit unit{at_.tile, at_.chunk, min(min(work_.k_chunks - at_.chunk, at_.until_wrap), left_)};
    left_ -= unit.chunks;
    at_.chunk += unit.chunks;
    at_.until_wrap -= unit.chunks;
    if (at_.until_wrap == 0) {
      at_ = work_.At(work_.begin);
    } else if (at_.chunk == work_.k_chunks) {
      at_.chunk = 0;
      ++at_.tile;
    }
    return unit;
  }

 private:
  const WorkRange& work_;
  Cursor at_;
  uint32_t left_;
};

template <class Traits>
__device__ inline WorkRange DivideWork(const DecodeParams& p) {
  WorkRange work;
  work.remote = blockIdx.x < p.remote_ctas;
  work.worker = work.remote ? blockIdx.x : (blockIdx.x - p.remote_ctas) / Traits::kCluster;
  work.workers = work.remote ? p.remote_ctas : p.local_ctas / Traits::kCluster;
  work.rank = work.remote ? 0 : (blockIdx.x - p.remote_ctas) % Traits::kCluster;
  work.halves = !work.remote && Traits::kCanHalve && p.halves;
  work.tile_rows = work.remote ? kBoxRows : kBoxRows * Traits::kBoxes * Traits::kCluster;
  work.row_offset = work.rank * kBoxRows * Traits::kBoxes;
  work.k_chunks = p.k_chunks;
  work.part_rows = work.remote ? p.n - p.local_rows : p.local_rows;
  work.part_offset = work.remote ? p.local_rows : 0;
  const uint32_t tiles = static_cast<uint32_t>((work.part_rows + work.tile_rows - 1) / work.tile_rows);
  const bool whole = !work.remote && p.whole_tiles;
  work.grain = whole ? p.k_chunks : 1;
  const uint32_t grains = whole ? tiles : tiles * p.k_chunks;
  work.each = grains / work.workers;
  work.more = grains % work.workers;
  work.begin = work.BeginOf(work.worker);
  work.end = work.BeginOf(work.worker + 1);
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

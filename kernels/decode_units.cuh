// How remote CTAs share out their part: as they go.
//
// The link isn't equally fast for all SMs, so equal ranges would end apart, and what is left then is too little in
// flight to fill it. The part is cut in units (CutRemote) and a CTA takes the next one whenever it starts its last: W's
// producer draws it from a counter and passes it on to the CTA's other warps.
//
// A tile of several units is finished by whoever comes last, 16 rows at a time: a warp leaves its share and counts
// itself in, and the last one adds all, in the order of units, so that equal inputs give equal bits. So nobody waits
// for a unit that isn't multiplied yet, and an operation also ends where the window lets only one CTA read.
#ifndef DAK_KERNELS_DECODE_UNITS_CUH_
#define DAK_KERNELS_DECODE_UNITS_CUH_

#include "kernels/decode_common.cuh"
#include "kernels/decode_remote.cuh"

namespace dak::kernels {

__device__ inline void InitialiseUnits(DecodeShared& shared, uint32_t readers) {
  for (uint32_t place = 0; place < kUnitPlaces; ++place) {
    cuda::ptx::mbarrier_init(&shared.unit_full[place], 1);
    cuda::ptx::mbarrier_init(&shared.unit_empty[place], readers);
  }
}

__device__ inline Unit UnitAt(const DecodeParams& p, uint32_t i) {
  if (i >= p.remote_units.count) return {0, 0, 0};
  const RemoteUnits& units = p.remote_units;
  if (i < units.whole) return {i, 0, p.k_chunks};
  i -= units.whole;
  const uint32_t chunk = i % units.per_tile * units.chunks;
  return {units.whole + i / units.per_tile, chunk, min(units.chunks, p.k_chunks - chunk)};
}

// W's producer: draws units and passes them on.
class UnitSource {
 public:
  __device__ UnitSource(const DecodeParams& p, const WorkRange& work, DecodeShared& shared, uint32_t launch)
      : p_(p), workers_(work.workers), shared_(shared), parity_(launch % 2), next_(work.worker) {}

  // The first one without asking; after that the answer has been on its way since the last one.
  __device__ Unit Next() {
    WaitFor(&shared_.unit_empty[place_.stage], place_.phase ^ 1);
    shared_.units[place_.stage] = next_;
    cuda::ptx::mbarrier_arrive(&shared_.unit_full[place_.stage]);
    place_.Advance(kUnitPlaces);
    const Unit unit = UnitAt(p_, next_);
    if (unit.chunks > 0) {
      next_ = workers_ + static_cast<uint32_t>(atomicAdd(Word(&p_.workspace.link->drawn_units[parity_]), 1ull));
    } else {
      Leave();
    }
    return unit;
  }

 private:
  // The last to leave clears the counters: nobody of this launch draws any more, and the launch that uses them next
  // starts when this one has ended.
  __device__ void Leave() {
    LinkCounters& link = *p_.workspace.link;
    if (atomicAdd(Word(&link.idle_workers[parity_]), 1ull) + 1 < workers_) return;
    ptx::StoreRelaxedGpu(&link.drawn_units[parity_], 0);
    ptx::StoreRelaxedGpu(&link.idle_workers[parity_], 0);
    __threadfence();
  }

  const DecodeParams& p_;
  uint32_t workers_;
  DecodeShared& shared_;
  uint32_t parity_;
  uint32_t next_;
  RingPlace place_;
};

// The other warps' view of it. Call with the threads of a warp that are in `mask`; one of them says that the unit was
// read, when all have.
class UnitReader {
 public:
  explicit __device__ UnitReader(DecodeShared& shared) : shared_(shared) {}

  __device__ uint32_t Next(uint32_t mask, bool speaks) {
    WaitFor(&shared_.unit_full[place_.stage], place_.phase);
    const uint32_t unit = shared_.units[place_.stage];
    __syncwarp(mask);
    if (speaks) cuda::ptx::mbarrier_arrive(&shared_.unit_empty[place_.stage]);
    place_.Advance(kUnitPlaces);
    return unit;
  }

 private:
  DecodeShared& shared_;
  RingPlace place_;
};

// Counts a warp in that has left its share of its 16 rows of `tile`; whether it is the last.
__device__ inline bool IsLastOfTile(const DecodeParams& p, uint32_t tile, uint32_t warp, uint32_t lane) {
  uint32_t* arrivals = &p.workspace.link->unit_arrivals[tile - p.remote_units.whole][warp];
  uint32_t before = 0;
  if (lane == 0) before = atomicAdd(arrivals, 1u);
  before = __shfl_sync(~0u, before, 0);
  if (before + 1 < p.remote_units.per_tile) return false;
  if (lane == 0) atomicExch(arrivals, 0u);
  return true;
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_DECODE_UNITS_CUH_

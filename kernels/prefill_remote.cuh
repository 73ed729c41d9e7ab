// The fetchers of the prefill kernel, and what its other CTAs know of the ring that they fill.
//
// Fetcher f of F brings the chunks with sequence numbers f, f + F, ... from the link into its shared memory, within its
// share of the window, and writes them to the ring as they lie there, swizzled. Slot s % kPrefillRingSlots holds chunk
// s. Each slot has a word in HBM: (s + 1) << 16 | how many CTAs have still to read it. A slot is free when nobody has,
// and holds chunk s for a reader while the word's upper part is s + 1 and the lower one isn't 0: a word that an earlier
// launch left has 0 there, and a chunk of this launch isn't through before each of its readers has read it.
//
// The window is shared out as in the decode kernel (decode_remote.cuh), but a fetcher without a share would stop those
// with one, since the ring is filled in order. So a window of fewer boxes than fetchers is used by one after another:
// chunk s is read when all before it are in the ring. The window is then a box.
//
// A turn ends when the session's figures have the whole of it, its start and its end. The chunk in the ring isn't
// enough: its fetcher may have been too slow to enter even the start, so that the figures show nothing in flight; the
// next one reads, and then both starts are entered before the first one's end: two boxes, where there was never more
// than one on the link.
#ifndef DAK_KERNELS_PREFILL_REMOTE_CUH_
#define DAK_KERNELS_PREFILL_REMOTE_CUH_

#include "kernels/decode_remote.cuh"
#include "kernels/prefill_common.cuh"

namespace dak::kernels {

struct FetchTraits {
  static constexpr uint32_t kWStages = kMaxWStages;
};
inline constexpr uint32_t kStorers = 8;
static_assert(FetchTraits::kWStages % kStorers == 0);
static_assert(FetchTraits::kWStages * kBoxBytes <= PrefillInstance<4, false, false>::kRingBytes);

struct FetchShared {
  DecodeShared link;
  uint64_t stored;          // a barrier: every storer is done
  Polled<uint32_t> serial;  // the window holds fewer boxes than there are fetchers
  Polled<uint64_t> ended;   // chunks, since the start, that have come back by the reading thread's books
};
static_assert(sizeof(FetchShared) <= kControlBytes);

__device__ inline uint64_t SlotWord(uint64_t sequence, uint32_t readers) { return (sequence + 1) << 16 | readers; }
__device__ inline bool IsFree(uint64_t word) { return (word & 0xFFFF) == 0; }
__device__ inline bool Holds(uint64_t word, uint64_t sequence) { return word >> 16 == sequence + 1 && !IsFree(word); }

// What every CTA of an item reads once: a chunk's slot is read by both CTAs of every pair.
__device__ inline uint32_t ReadersOf(const PrefillLayout& layout) { return layout.pairs * kPrefillClusterCtas; }

// A fetcher's share of the window. The meter asks for it between two entries of the figures (RunMeter): what had ended
// when it asked the last time has been entered since.
struct FetchShare {
  // Turns last until the figures have them.
  static constexpr uint32_t kMostPauseClocks = kMeterPauseClocks;
  static constexpr uint32_t kPausesPerCarry = 1;

  const PrefillParams& p;
  FetchShared& shared;
  mutable uint64_t ended = 0;    // when the meter asked the last time
  mutable uint64_t carried = 0;  // that others know of

  __device__ uint32_t operator()(uint32_t boxes, const LinkState& /*state*/, uint32_t /*launch*/,
                                 const WorkRange& work) const {
    SayCarried(work);
    shared.serial.Store(boxes < work.workers ? 1 : 0);
    if (boxes < work.workers) return kBoxBytes;
    return (boxes / work.workers + (work.worker < boxes % work.workers ? 1 : 0)) * kBoxBytes;
  }

  // `ended` grows only where turns are taken.
  __device__ void SayCarried(const WorkRange& work) const {
    if (ended != carried) {
      __threadfence();
      ptx::StoreRelaxedGpu(&p.workspace.counters->carried[work.worker], ended);
      carried = ended;
    }
    ended = shared.ended.Load();
  }
};

// One thread that reads the fetcher's chunks from the link. What it does for a chunk is what bounds a fetcher: no
// division, nothing of turns where none are taken.
class Fetcher {
 public:
  __device__ Fetcher(const PrefillParams& p, const WorkRange& work, uint8_t* stages, FetchShared& shared)
      : p_(p), work_(work), stages_(stages), shared_(shared), policy_(ptx::EvictFirstPolicy()), gate_(shared.link) {
    last_box_bytes_ = (static_cast<uint32_t>((work.part_rows - 1) % kBoxRows) + 1) * kChunkColumns * 2;
    last_chunk_columns_ = (p.base.k - 1) % kChunkColumns + 1;
  }

  __device__ void Run() {
    ptx::PrefetchTensorMap(&p_.base.w_remote_map);
    OpenLink(p_.base, work_, shared_.link);
    ptx::ReleaseNextGrid();
    uint64_t next = work_.worker;
    for (uint32_t i = 0; i < p_.layout.Groups(); ++i) {
      const PrefillGroup group(p_.layout, i);
      if (group.count == 0) continue;
      const auto offset = static_cast<uint32_t>(next - group.begin);  // a group fits in the ring
      uint32_t box = offset % group.count;
      for (uint32_t chunk = offset / group.count; chunk < p_.layout.k_chunks; next += work_.workers) {
        Fetch(next, group.first + box, chunk);
        for (box += work_.workers; box >= group.count; box -= group.count) ++chunk;
      }
    }
    gate_.Drain();
    shared_.ended.Store(issued_);
    WaitFor(&shared_.stored, 0);
    shared_.link.words.drained.Store(1);
  }

 private:
  __device__ void Fetch(uint64_t sequence, uint32_t box, uint32_t chunk) {
    uint32_t bytes = box + 1 == p_.layout.remote_boxes ? last_box_bytes_ : kBoxBytes;
    if (chunk + 1 == p_.layout.k_chunks) bytes = bytes / kChunkColumns * last_chunk_columns_;
    WaitFor(&shared_.link.w_empty[place_.stage], place_.phase ^ 1);
    gate_.WaitForRoom(bytes);
    if (shared_.serial.Load() != 0) AwaitTurn(sequence, bytes);
    gate_.OnIssue(place_.stage, bytes);
    ++issued_;
    uint64_t* full = &shared_.link.w_full[place_.stage];
    cuda::ptx::mbarrier_arrive_expect_tx(cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared, full,
                                         uint32_t{kBoxBytes});
    ptx::TmaLoad(stages_ + place_.stage * kBoxBytes, &p_.base.w_remote_map, static_cast<int32_t>(chunk * kChunkColumns),
                 static_cast<int32_t>(box * kBoxRows), full, policy_);
    place_.Advance(FetchTraits::kWStages);
  }

  __device__ void AwaitTurn(uint64_t sequence, uint32_t bytes) {
    while (shared_.serial.Load() != 0) {
      gate_.Drain();
      shared_.ended.Store(issued_);
      if (AllBeforeAreIn(sequence) && NoneIsInFlight()) break;
    }
    gate_.WaitForRoom(bytes);
  }

  __device__ bool AllBeforeAreIn(uint64_t sequence) const {
    for (uint32_t i = 0; i < work_.workers; ++i) {
      if (i == work_.worker || sequence <= i) continue;
      const uint64_t needed = (sequence - i + work_.workers - 1) / work_.workers;
      if (ptx::LoadAcquireGpu(&p_.workspace.counters->fetched[i]) < needed) return false;
      if (ptx::LoadAcquireGpu(&p_.workspace.counters->carried[i]) < needed) return false;
    }
    return true;
  }

  // Nor what was read before turns were taken: a window that becomes narrow finds reads of later chunks under way.
  __device__ bool NoneIsInFlight() const { return ptx::LoadRelaxedGpu(&p_.base.workspace.link->inflight_bytes) == 0; }

  const PrefillParams& p_;
  const WorkRange& work_;
  uint8_t* stages_;
  FetchShared& shared_;
  uint64_t policy_;
  RemoteGate<FetchTraits> gate_;
  RingPlace place_;
  uint32_t last_box_bytes_;  // of the last box's rows in a whole chunk
  uint32_t last_chunk_columns_;
  uint64_t issued_ = 0;
};

// Writes one chunk to its slot, frees its stage and lets its readers have it.
__device__ inline void PutIntoRing(const PrefillParams& p, const uint8_t* chunk, uint64_t sequence, uint64_t* empty) {
  // The slot was seen free by an ordinary load, and is written by the asynchronous proxy.
  cuda::ptx::fence_proxy_async(cuda::ptx::space_global);
  const uint64_t slot = sequence % kPrefillRingSlots;
  cuda::ptx::cp_async_bulk(cuda::ptx::space_global, cuda::ptx::space_shared, p.workspace.ring + slot * kBoxBytes, chunk,
                           uint32_t{kBoxBytes});
  cuda::ptx::cp_async_bulk_commit_group();
  cuda::ptx::cp_async_bulk_wait_group_read(cuda::ptx::n32_t<0>());
  cuda::ptx::mbarrier_arrive(empty);
  cuda::ptx::cp_async_bulk_wait_group(cuda::ptx::n32_t<0>());
  cuda::ptx::fence_proxy_async(cuda::ptx::space_global);
  ptx::StoreReleaseGpu(&p.workspace.slots[slot], SlotWord(sequence, ReadersOf(p.layout)));
}

// The fetcher's count in HBM, of chunks that one of its storers has put into the ring. It is for a window of less than
// a box a fetcher.
class StoredCount {
 public:
  __device__ explicit StoredCount(uint64_t* fetched) : fetched_(fetched) {}

  __device__ void Add(uint32_t chunks) { unsaid_ += chunks; }
  __device__ void Say() {
    if (unsaid_ == 0) return;
    __threadfence();
    ptx::AddRelaxedGpu(fetched_, unsaid_);
    unsaid_ = 0;
  }

 private:
  uint64_t* fetched_;
  uint32_t unsaid_ = 0;
};

// How many lanes from the first on have `condition`.
__device__ inline uint32_t LeadingLanes(bool condition) {
  const uint32_t mask = __ballot_sync(~0u, condition);
  return mask == ~0u ? kWarpThreads : static_cast<uint32_t>(__ffs(static_cast<int>(~mask)) - 1);
}

// One warp of kStorers that move what has come into the ring, a stage a lane. A write to HBM and its flag take much
// longer than a read takes at the link's rate, so many must be under way; and a stage that waits reads nothing, so a
// slot is looked at before its chunk is there, and a stage is free when it was read, not when HBM has it.
__device__ inline void StoreFetched(const PrefillParams& p, const WorkRange& work, const uint8_t* stages,
                                    FetchShared& shared, uint32_t storer) {
  constexpr uint32_t kStages = FetchTraits::kWStages;
  const uint32_t lane = threadIdx.x % kWarpThreads;
  const uint32_t stage = storer + lane * kStorers;
  const uint64_t all = p.layout.RemoteChunks();
  const uint64_t count = all > work.worker ? (all - work.worker - 1) / work.workers + 1 : 0;  // this fetcher's
  StoredCount count_in_hbm(&p.workspace.counters->fetched[work.worker]);
  uint64_t mine = stage < kStages ? stage : count;  // the next chunk of this lane's stage
  bool has_slot = false;
  while (__any_sync(~0u, mine < count)) {
    if (lane == 0 && shared.serial.Load() != 0) count_in_hbm.Say();
    const uint64_t sequence = work.worker + mine * work.workers;
    if (mine < count && !has_slot) {
      has_slot = IsFree(ptx::LoadAcquireGpu(&p.workspace.slots[sequence % kPrefillRingSlots]));
    }
    const bool stores = has_slot && cuda::ptx::mbarrier_test_wait_parity(&shared.link.w_full[stage],
                                                                         static_cast<uint32_t>(mine / kStages % 2));
    if (stores) {
      PutIntoRing(p, stages + stage * kBoxBytes, sequence, &shared.link.w_empty[stage]);
      mine += kStages;
      has_slot = false;
    }
    count_in_hbm.Add(static_cast<uint32_t>(__popc(__ballot_sync(~0u, stores))));
  }
  if (lane != 0) return;
  count_in_hbm.Say();
  cuda::ptx::mbarrier_arrive(&shared.stored);
}

__device__ inline void InitialiseFetch(FetchShared& shared) {
  for (uint32_t stage = 0; stage < FetchTraits::kWStages; ++stage) {
    cuda::ptx::mbarrier_init(&shared.link.w_full[stage], 1);
    cuda::ptx::mbarrier_init(&shared.link.w_empty[stage], 1);
  }
  shared.link.words.Reset();
  shared.serial.Store(0);
  shared.ended.Store(0);
  cuda::ptx::mbarrier_init(&shared.stored, uint32_t{kStorers});
}

// A fetcher CTA's warps.
__device__ inline void Fetch(const PrefillParams& p, uint8_t* stages, FetchShared& shared, uint32_t warp,
                             uint32_t lane) {
  WorkRange work{};
  work.remote = true;
  work.worker = blockIdx.x;
  work.workers = p.fetchers;
  work.part_rows = p.base.n - p.base.local_rows;
  if (warp == 0 && lane == 0) {
    Fetcher(p, work, stages, shared).Run();
  } else if (warp == 1 && lane == 0) {
    const FetchShare share{p, shared};
    RunMeter(p.base, work, shared.link, share);
    share.SayCarried(work);  // what had ended when it was asked the last time, and then the rest
    share.SayCarried(work);
    FinishPart(p);
  } else if (warp >= 2 && warp < 2 + kStorers) {
    StoreFetched(p, work, stages, shared, warp - 2);
  }
}

// ---- Readers --------------------------------------------------------------------------------------------------------

// Between two looks of a watcher that saw nothing new: all of them read the same few words.
inline constexpr uint32_t kWatchPauseNs = 100;

// A warp that looks ahead for the producer: which of its CTA's boxes have come. A chunk a lane.
__device__ inline void Watch(const PrefillParams& p, PrefillShared& shared, uint32_t rank) {
  const PrefillLayout& layout = p.layout;
  const uint32_t lane = threadIdx.x % kWarpThreads;
  const uint32_t first_box = rank * layout.row_boxes / 2;
  ItemReader items(p, shared);
  uint32_t ready = 0;
  for (Item item; items.NextOfWarp(item);) {
    const PrefillTile tile = layout.Tile(item.tile);
    const uint32_t end_box = min(tile.remote, first_box + layout.row_boxes / 2);
    const PrefillGroup group(layout, item.tile / layout.group_tiles);
    uint32_t chunk = first_box < end_box ? 0 : layout.k_chunks;  // nothing to wait for
    if (chunk == layout.k_chunks) ready += layout.k_chunks;
    while (chunk < layout.k_chunks) {
      bool here = chunk + lane < layout.k_chunks;
      for (uint32_t box = first_box; here && box < end_box; ++box) {
        const uint64_t sequence = group.Of(tile.remote_first + box, chunk + lane);
        here = Holds(ptx::LoadAcquireGpu(&p.workspace.slots[sequence % kPrefillRingSlots]), sequence);
      }
      const uint32_t count = LeadingLanes(here);
      if (count == 0) {
        __nanosleep(kWatchPauseNs);
        continue;
      }
      chunk += count;
      ready += count;
      __threadfence_block();
      __syncwarp();
      if (lane == 0) shared.ready_chunks.Store(ready);
    }
    if (lane == 0) shared.ready_chunks.Store(ready);
  }
}

// A thread that crosses off what its CTA has read from the ring. It takes part in freeing stages so that it never
// misses one, and so mustn't be slow: many chunks share a fence.
template <class Traits>
__device__ inline void CrossOff(const PrefillParams& p, PrefillShared& shared) {
  constexpr uint32_t kFencedChunks = 16;
  const PrefillLayout& layout = p.layout;
  ItemReader items(p, shared);
  RingPlace place;
  for (Item item; items.Next(item);) {
    const PrefillTile tile = layout.Tile(item.tile);
    const PrefillGroup group(layout, item.tile / layout.group_tiles);
    for (uint32_t chunk = 0; chunk < layout.k_chunks; ++chunk) {
      WaitFor(&shared.full[place.stage], place.phase);
      cuda::ptx::mbarrier_arrive(&shared.empty[place.stage]);
      place.Advance(Traits::kStages);
      const bool last = chunk + 1 == layout.k_chunks;
      if (tile.remote == 0 || !(last || chunk % kFencedChunks == kFencedChunks - 1)) continue;
      __threadfence();
      for (uint32_t done = chunk / kFencedChunks * kFencedChunks; done <= chunk; ++done) {
        for (uint32_t box = 0; box < tile.remote; ++box) {
          const uint64_t sequence = group.Of(tile.remote_first + box, done);
          ptx::AddRelaxedGpu(&p.workspace.slots[sequence % kPrefillRingSlots], ~uint64_t{0});
        }
      }
    }
  }
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_PREFILL_REMOTE_CUH_

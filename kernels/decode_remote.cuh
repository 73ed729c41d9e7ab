// The remote kind's half of the decode kernel: how many reads a CTA may have in flight, and what it reports.
//
// The window is shared out without communication: of `boxes` boxes that the window holds, the i-th of the u CTAs that
// aren't done gets boxes / u, and one more if i < boxes % u. Shares only grow as CTAs finish, so CTAs that see the mask
// of finished ones at different times never hold more than the window together. The first unfinished CTA always gets
// at least one box, so that a window of 0 ends too.
//
// Remote rows are read ahead of the launch before: its x isn't needed to read W, and the link would idle between two
// launches. LinkCounters::link_state keeps the windows apart. It holds the number of a launch's remote CTAs and a bit
// for each that is done. While it shows a launch that isn't complete, the next one's CTAs don't read. When all of them
// have seen it complete, the one with the highest number makes it theirs, and only then lets another launch start.
// Attention reads its remote pages by the same rules: what is a template here takes its parameters too.
#ifndef DAK_KERNELS_DECODE_REMOTE_CUH_
#define DAK_KERNELS_DECODE_REMOTE_CUH_

#include "kernels/decode_common.cuh"

namespace dak::kernels {

inline constexpr uint32_t kMeterPauseClocks = 1500;  // a bit less than a microsecond
inline constexpr uint32_t kPausesPerWindowRead = 8;  // a read of host memory takes two or three pauses
inline constexpr uint32_t kPausesPerPublish = 32;
// A round trip that took longer waited for its process' turn of the GPU, and tells nothing of the link: without MPS a
// turn is a millisecond or more, and 16 MB in flight take 0.34 ms.
inline constexpr uint32_t kMostRoundTripClocks = 1'000'000;
inline constexpr uint64_t kLeastCalibrationNs = 20'000;  // globaltimer may tick as coarsely as 1 us
static_assert(kMaxRemoteCtas <= 32, "link_state has 32 bits for them");

__device__ inline unsigned long long* Word(uint64_t* word) { return reinterpret_cast<unsigned long long*>(word); }

// ---- The link's state -----------------------------------------------------------------------------------------------

__device__ inline uint64_t StateOf(uint32_t workers) { return uint64_t{workers} << 32; }
__device__ inline bool IsComplete(uint64_t state) {
  return __popc(static_cast<uint32_t>(state)) == static_cast<int>(state >> 32);
}

// The CTAs of this launch that are done. A complete state is still the launch's before: this CTA isn't done.
__device__ inline uint32_t FinishedMask(uint64_t state) { return IsComplete(state) ? 0 : static_cast<uint32_t>(state); }

// Waits until the launch before has nothing in flight, and makes the state this launch's.
template <class Params, class Work, class Shared>
__device__ inline void OpenLink(const Params& p, const Work& work, Shared& shared) {
  LinkCounters& link = *p.workspace.link;
  while (!IsComplete(ptx::LoadAcquireGpu(&link.link_state))) {
  }
  shared.words.link_open.Store(1);
  ptx::AddRelaxedGpu(&link.arrived_workers, 1);
  // The one with the highest number waits for the others: CTAs start in the order of their numbers.
  if (work.worker + 1 < work.workers) return;
  while (ptx::LoadAcquireGpu(&link.arrived_workers) != work.workers) {
  }
  ptx::StoreRelaxedGpu(&link.arrived_workers, 0);
  __threadfence();
  ptx::StoreRelaxedGpu(&link.link_state, StateOf(work.workers));
  __threadfence();
}

// ---- W's producer ---------------------------------------------------------------------------------------------------

// The reads in flight of one CTA's producer thread. Touches shared memory alone: a producer that waits for global
// memory once a read is slower than the link.
template <class Traits, class Shared = DecodeShared>
class RemoteGate {
 public:
  explicit __device__ RemoteGate(Shared& shared) : shared_(shared) {}

  // Returns when a read of `bytes` is within the share. What has come back is looked at only when there seems to be no
  // room.
  __device__ void WaitForRoom(uint32_t bytes) {
    while (inflight_ == Traits::kWStages || inflight_bytes_ + bytes > shared_.words.share_bytes.Load()) {
      if (inflight_ > 0) RetireOldest();
    }
  }

  // To be called just before `bytes` are read into `stage`; stages follow one another.
  __device__ void OnIssue(uint32_t stage, uint32_t bytes) {
    shared_.issues[stage] = make_uint2(static_cast<uint32_t>(clock()), bytes);
    ++inflight_;
    inflight_bytes_ += bytes;
    issued_bytes_ += bytes;
    shared_.words.issued_bytes.Store(issued_bytes_);
    if (inflight_bytes_ > most_bytes_) {
      most_bytes_ = inflight_bytes_;
      shared_.words.most_inflight_bytes.Store(most_bytes_);
    }
  }

  // Waits for all that is in flight.
  __device__ void Drain() {
    while (inflight_ > 0) RetireOldest();
  }

 private:
  // A round trip is sampled only where this thread was waiting when it ended: else its end wasn't seen.
  __device__ void RetireOldest() {
    uint64_t* full = &shared_.w_full[oldest_.stage];
    const bool sampled = !cuda::ptx::mbarrier_test_wait_parity(full, oldest_.phase);
    if (sampled) WaitFor(full, oldest_.phase);
    Retire(sampled);
  }

  __device__ void Retire(bool sampled) {
    const uint2 issue = shared_.issues[oldest_.stage];
    const uint32_t clocks = static_cast<uint32_t>(clock()) - issue.x;  // right over one turn of the low word
    if (sampled && clocks <= kMostRoundTripClocks) {
      clocks_ += clocks;
      shared_.words.round_trip_clocks.Store(clocks_);
      shared_.words.round_trips.Store(++samples_);
    }
    inflight_bytes_ -= issue.y;
    returned_bytes_ += issue.y;
    shared_.words.returned_bytes.Store(returned_bytes_);
    oldest_.Advance(Traits::kWStages);
    --inflight_;
  }

  Shared& shared_;
  RingPlace oldest_;
  uint32_t inflight_ = 0;
  uint32_t inflight_bytes_ = 0;
  uint32_t most_bytes_ = 0;
  uint32_t samples_ = 0;
  uint64_t issued_bytes_ = 0;
  uint64_t returned_bytes_ = 0;
  uint64_t clocks_ = 0;
};

// ---- The meter ------------------------------------------------------------------------------------------------------

template <class Params>
__device__ inline void Publish(const Params& p) {
  LinkCounters& link = *p.workspace.link;
  ptx::StoreRelaxedSys(&p.report->bytes, ptx::LoadRelaxedGpu(&link.bytes));
  ptx::StoreRelaxedSys(&p.report->round_trip_ns, ptx::LoadRelaxedGpu(&link.round_trip_ns));
  ptx::StoreRelaxedSys(&p.report->round_trips, ptx::LoadRelaxedGpu(&link.round_trips));
  ptx::StoreRelaxedSys(&p.report->inflight_bytes, ptx::LoadRelaxedGpu(&link.inflight_bytes));
  ptx::StoreRelaxedSys(&p.report->inflight_peak_bytes, ptx::LoadRelaxedGpu(&link.inflight_peak_bytes));
  ptx::StoreRelaxedSys(&p.report->passes, ptx::LoadRelaxedGpu(&link.passes));
}

// A CTA's share, in bytes of whole boxes.
template <class Work>
__device__ inline uint32_t ShareOf(uint64_t window_bytes, uint32_t finished_mask, const Work& work) {
  const uint32_t all = work.workers == 32 ? ~0u : (1u << work.workers) - 1;
  const uint32_t unfinished = all & ~finished_mask;
  const uint32_t count = max(1, __popc(unfinished));
  const uint32_t rank = __popc(unfinished & ((1u << work.worker) - 1));
  const uint64_t held = window_bytes / kBoxBytes;
  const auto boxes = static_cast<uint32_t>(held < 1 ? 1 : held > 0xFFFF ? 0xFFFF : held);
  return (boxes / count + (rank < boxes % count ? 1 : 0)) * kBoxBytes;
}

// Carries one CTA's figures over to the session's.
template <class Shared>
class Account {
 public:
  template <class Params>
  __device__ Account(const Params& p, Shared& shared)
      : link_(*p.workspace.link), shared_(shared), ns_per_clock_(p.ns_per_clock) {}

  __device__ void SetRate(float ns_per_clock) { ns_per_clock_ = ns_per_clock; }

  // The peak is the others' bytes in flight, by their own last word, and this CTA's now; at the end its own most. What
  // an atomic returned is looked at in the next call, so that this one doesn't wait for it.
  __device__ void Carry() {
    RaisePeak(seen_);
    // What was in flight at one moment: of a read that comes back and a next one that starts between two looks, both
    // would count, and more than the share would seem to be in flight.
    uint64_t returned = 0;
    uint64_t inflight = 0;
    do {
      returned = shared_.words.returned_bytes.Load();
      inflight = shared_.words.issued_bytes.Load() - returned;
    } while (shared_.words.returned_bytes.Load() != returned);
    const uint64_t change = inflight - inflight_;
    seen_ = atomicAdd(Word(&link_.inflight_bytes), static_cast<unsigned long long>(change)) + change;
    inflight_ = inflight;
    if (returned != returned_) ptx::AddRelaxedGpu(&link_.bytes, returned - returned_);
    returned_ = returned;
    const uint32_t trips = shared_.words.round_trips.Load();
    const uint64_t clocks = shared_.words.round_trip_clocks.Load();
    if (trips == trips_) return;
    ptx::AddRelaxedGpu(&link_.round_trips, trips - trips_);
    ptx::AddRelaxedGpu(&link_.round_trip_ns, __float2ull_rn(static_cast<float>(clocks - clocks_) * ns_per_clock_));
    trips_ = trips;
    clocks_ = clocks;
  }

  __device__ void Close() {
    Carry();
    RaisePeak(shared_.words.most_inflight_bytes.Load());
  }

 private:
  __device__ void RaisePeak(uint64_t bytes) {
    if (bytes <= peak_) return;
    peak_ = bytes;
    ptx::MaxRelaxedGpu(&link_.inflight_peak_bytes, bytes);
  }

  LinkCounters& link_;
  Shared& shared_;
  float ns_per_clock_;
  uint64_t seen_ = 0;
  uint64_t inflight_ = 0;
  uint64_t returned_ = 0;
  uint64_t clocks_ = 0;
  uint64_t peak_ = 0;
  uint32_t trips_ = 0;
};

// Ends a remote CTA's part, which lets the next launch read when it is the last; that one closes the books.
template <class Params, class Work>
__device__ inline void FinishRemote(const Params& p, const Work& work) {
  LinkCounters& link = *p.workspace.link;
  __threadfence();
  while (IsComplete(ptx::LoadRelaxedGpu(&link.link_state))) {  // not this launch's yet
  }
  const unsigned long long bit = 1ull << work.worker;
  if (!IsComplete(atomicOr(Word(&link.link_state), bit) | bit)) return;
  __threadfence();
  atomicAdd(Word(&link.passes), 1ull);
  if (p.report != nullptr) Publish(p);
}

// How much of the window a CTA has, by default.
struct EqualShare {
  template <class Work>
  __device__ uint32_t operator()(uint64_t window_bytes, uint32_t finished_mask, const Work& work) const {
    return ShareOf(window_bytes, finished_mask, work);
  }
};

// The meter's thread: keeps the share up to date and carries figures to the session's, and to the report page. Its
// loads are used one pause or more after they were made: it must not be waiting for one when the last read is back.
template <class Share = EqualShare, class Params, class Work, class Shared>
__device__ inline void RunMeter(const Params& p, const Work& work, Shared& shared, const Share& share = {}) {
  uint64_t window_bytes = ~uint64_t{0};
  if (p.control != nullptr) window_bytes = ptx::LoadRelaxedSys(&p.control->window_bytes);
  while (shared.words.link_open.Load() == 0) {
  }
  Account account(p, shared);
  const uint64_t start_ns = ptx::GlobalTimerNs();
  const uint64_t start_clock = clock64();
  uint64_t state = 0;
  uint64_t next_window_bytes = window_bytes;
  for (uint32_t pause = 1; shared.words.drained.Load() == 0; ++pause) {
    shared.words.share_bytes.Store(share(window_bytes, FinishedMask(state), work));
    const uint64_t pause_start = clock64();
    while (shared.words.drained.Load() == 0 && clock64() - pause_start < kMeterPauseClocks) {
    }
    account.Carry();
    state = ptx::LoadRelaxedGpu(&p.workspace.link->link_state);
    if (p.control != nullptr && pause % kPausesPerWindowRead == 0) {
      window_bytes = next_window_bytes;
      next_window_bytes = ptx::LoadRelaxedSys(&p.control->window_bytes);
    }
    const uint64_t elapsed_ns = ptx::GlobalTimerNs() - start_ns;
    if (elapsed_ns > kLeastCalibrationNs) {
      account.SetRate(static_cast<float>(elapsed_ns) / static_cast<float>(clock64() - start_clock));
    }
    if (work.worker == 0 && p.report != nullptr && pause % kPausesPerPublish == 0) Publish(p);
  }
  account.Close();
  FinishRemote(p, work);
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_DECODE_REMOTE_CUH_

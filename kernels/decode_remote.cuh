// The remote kind's half of the decode kernel: how many reads a CTA may have in flight, and what it reports.
//
// Remote rows are read ahead of the launch before: its x isn't needed to read W, and the link would idle between two
// launches. How much of the window a CTA has, in its own launch and while the one before still reads, follows from one
// word, LinkCounters::link_state (link_state.h), without any other communication.
//
// The word is the launch's before until that one has nothing in flight and all remote CTAs have looked at it once; then
// the one with the highest number makes it theirs, and only then lets another launch start. So from its first look on a
// CTA knows which of two launches a word is of. Attention, prefill and the plain kernels read by the same rules, but
// take the link over, and hand it over, as a whole: what is a template here takes their parameters too.
#ifndef DAK_KERNELS_DECODE_REMOTE_CUH_
#define DAK_KERNELS_DECODE_REMOTE_CUH_

#include "kernels/decode_common.cuh"
#include "kernels/link_state.h"
#include "kernels/window_reader.cuh"

namespace dak::kernels {

// How often a meter looks. What it touches lies in a few lines of L2, and each slice of L2 gives a stream of HBM its
// part: what one of them does besides, all of the stream may wait for. So the longer a launch or its wait has lasted,
// the less often, as far as the kind of share allows (EqualShare).
inline constexpr uint32_t kMeterPauseClocks = 1500;  // a bit less than a microsecond
inline constexpr uint32_t kPauseShare = 64;          // of the time so far
// While the launch before gives up its part of the window: then what is seen late is link time lost.
inline constexpr uint32_t kTakingOverPauseClocks = 300;
inline constexpr uint64_t kPublishNs = 200'000;
// A round trip that took longer waited for its process' turn of the GPU, and tells nothing of the link: without MPS a
// turn is a millisecond or more, and 16 MB in flight take 0.34 ms.
inline constexpr uint32_t kMostRoundTripClocks = 1'000'000;
inline constexpr uint64_t kLeastCalibrationNs = 20'000;  // globaltimer may tick as coarsely as 1 us

__device__ inline unsigned long long* Word(uint64_t* word) { return reinterpret_cast<unsigned long long*>(word); }

// ---- The link's state -----------------------------------------------------------------------------------------------

// Says that this CTA has seen the state of the launch before. May be called when that one has let this one start.
template <class Params>
__device__ inline LinkState Arrive(const Params& p) {
  LinkCounters& link = *p.workspace.link;
  const LinkState state(ptx::LoadAcquireGpu(&link.link_state));
  ptx::AddRelaxedGpu(&link.arrived_workers, 1);
  return state;
}

// Makes the state this launch's. By its last remote CTA, when the launch before has nothing in flight, and before
// ReleaseNextGrid. `whole`: see link_state.h.
template <class Params, class Work>
__device__ inline void TakeLink(const Params& p, const Work& work, bool whole) {
  LinkCounters& link = *p.workspace.link;
  const LinkState before(ptx::LoadRelaxedGpu(&link.link_state));
  // CTAs start in the order of their numbers, so the others are under way.
  while (ptx::LoadAcquireGpu(&link.arrived_workers) != work.workers) {
  }
  ptx::StoreRelaxedGpu(&link.arrived_workers, 0);
  ptx::StoreRelaxedGpu(&link.link_state, before.NextWord(work.workers, whole));
  __threadfence();
}

// Begins at once, with what the launch before has given up. The launch's number.
template <class Params, class Shared>
__device__ inline uint32_t JoinLink(const Params& p, Shared& shared) {
  const LinkState state = Arrive(p);
  shared.words.first_state.Store(state.word());
  return state.NextLaunch();
}

// Waits until the launch before has nothing in flight, and makes the state this launch's; before ReleaseNextGrid. The
// launch's number.
template <class Params, class Work, class Shared>
__device__ inline uint32_t OpenLink(const Params& p, const Work& work, Shared& shared) {
  LinkState state = Arrive(p);
  const uint32_t launch = state.NextLaunch();
  while (state.launch() != launch && !state.IsComplete()) {
    state = LinkState(ptx::LoadAcquireGpu(&p.workspace.link->link_state));
  }
  shared.words.first_state.Store(LinkState::CompleteBefore(launch));
  if (work.worker + 1 == work.workers) TakeLink(p, work, true);
  return launch;
}

// ---- W's producer ---------------------------------------------------------------------------------------------------

// The reads in flight of one CTA's producer thread. Touches shared memory alone: a producer that waits for global
// memory once a read is slower than the link.
template <class Traits, class Shared = DecodeShared>
class RemoteGate {
 public:
  explicit __device__ RemoteGate(Shared& shared) : shared_(shared) {}

  // Returns when a read of `bytes` is within the share. What has come back is looked at only when there seems to be no
  // room. The share may grow while nothing comes back.
  __device__ void WaitForRoom(uint32_t bytes) {
    bool waited = false;
    while (inflight_ == Traits::kWStages || inflight_bytes_ + bytes > shared_.words.share_bytes.Load()) {
      if (inflight_ == 0) continue;
      if (cuda::ptx::mbarrier_test_wait_parity(&shared_.w_full[oldest_.stage], oldest_.phase)) {
        Retire(waited);
        waited = false;
      } else {
        waited = true;
      }
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
    while (inflight_ > 0) {
      uint64_t* full = &shared_.w_full[oldest_.stage];
      const bool waits = !cuda::ptx::mbarrier_test_wait_parity(full, oldest_.phase);
      if (waits) WaitFor(full, oldest_.phase);
      Retire(waits);
    }
  }

 private:
  // A round trip is sampled only where this thread was waiting when it ended: else its end wasn't seen.
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

// Counts a launch without a remote part: by one thread, once the launch before has published its figures.
template <class Params>
__device__ inline void CountLocalLaunch(const Params& p) {
  atomicAdd(Word(&p.workspace.link->passes), 1ull);
  if (p.report != nullptr) Publish(p);
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
  // Returns what is in flight now.
  __device__ uint64_t Carry() {
    RaisePeak(seen_);
    // What was in flight at one moment: of a read that comes back and a next one that starts between two looks, both
    // would count, and more than the share would seem to be in flight.
    uint64_t returned = 0;
    uint64_t inflight = 0;
    do {
      returned = shared_.words.returned_bytes.Load();
      inflight = shared_.words.issued_bytes.Load() - returned;
    } while (shared_.words.returned_bytes.Load() != returned);
    if (const uint64_t change = inflight - inflight_; change != 0) {
      seen_ = atomicAdd(Word(&link_.inflight_bytes), static_cast<unsigned long long>(change)) + change;
      inflight_ = inflight;
    }
    if (returned != returned_) ptx::AddRelaxedGpu(&link_.bytes, returned - returned_);
    returned_ = returned;
    const uint32_t trips = shared_.words.round_trips.Load();
    const uint64_t clocks = shared_.words.round_trip_clocks.Load();
    if (trips == trips_) return inflight;
    ptx::AddRelaxedGpu(&link_.round_trips, trips - trips_);
    ptx::AddRelaxedGpu(&link_.round_trip_ns, __float2ull_rn(static_cast<float>(clocks - clocks_) * ns_per_clock_));
    trips_ = trips;
    clocks_ = clocks;
    return inflight;
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

// Ends a remote CTA's part: gives its share of the window up as its last reads come back. What the account says is in
// flight is never more than what the state does. The last CTA of a launch closes the books.
template <class Params, class Work, class Shared>
__device__ inline void LeaveLink(const Params& p, const Work& work, Shared& shared, Account<Shared>& account,
                                 uint32_t launch) {
  LinkCounters& link = *p.workspace.link;
  const auto state = [&] { return LinkState(ptx::LoadRelaxedGpu(&link.link_state)); };
  bool said = false;
  uint32_t draining = 0;
  while (true) {
    const bool drained = shared.words.drained.Load() != 0;
    const auto boxes = static_cast<uint32_t>((account.Carry() + kBoxBytes - 1) / kBoxBytes);
    if (drained) break;
    if (!said) {
      const LinkState now = state();
      if (boxes == 0 || now.launch() != launch || now.IsWhole()) continue;
      said = true;
      __threadfence();
      ptx::AddRelaxedGpu(&link.link_state, LinkState::End(work.worker, boxes));
      draining = boxes;
    } else if (boxes > 0 && boxes < draining) {
      __threadfence();
      ptx::AddRelaxedGpu(&link.link_state, LinkState::Return(draining - boxes));
      draining = boxes;
    }
  }
  account.Close();
  __threadfence();
  while (!said && state().launch() != launch) {
  }
  const uint64_t change = said ? LinkState::Return(draining) : LinkState::End(work.worker, 0);
  if (!LinkState(atomicAdd(Word(&link.link_state), static_cast<unsigned long long>(change)) + change).IsComplete()) {
    return;
  }
  __threadfence();
  atomicAdd(Word(&link.passes), 1ull);
  if (p.report != nullptr) Publish(p);
}

// How much of the window a CTA has, by default, and how often the meter has to ask.
struct EqualShare {
  static constexpr uint32_t kMostPauseClocks = 6000;
  static constexpr uint32_t kPausesPerCarry = 4;  // that what changed is carried over once in

  template <class Work>
  __device__ uint32_t operator()(uint32_t boxes, const LinkState& state, uint32_t launch, const Work& work) const {
    return state.ShareOf(launch, work.worker, work.workers, max(boxes, 1)) * kBoxBytes;
  }
};

// The meter's thread: keeps the share up to date and carries figures to the session's, and to the report page. Its
// loads are used one pause or more after they were made: it must not be waiting for one when the last read is back.
template <class Share = EqualShare, class Params, class Work, class Shared>
__device__ inline void RunMeter(const Params& p, const Work& work, Shared& shared, const Share& share = {}) {
  WindowReader window(p);
  uint64_t word = LinkWords::kNotBegun;
  while (word == LinkWords::kNotBegun) word = shared.words.first_state.Load();
  window.Begin();
  const uint32_t launch = LinkState(word).NextLaunch();
  Account account(p, shared);
  const uint64_t start_ns = ptx::GlobalTimerNs();
  const uint64_t start_clock = clock64();
  uint64_t publish_ns = start_ns + kPublishNs;
  const auto is_at_end = [&] { return shared.words.issued_all.Load() != 0 || shared.words.drained.Load() != 0; };
  for (uint32_t pause = 1; !is_at_end(); ++pause) {
    const LinkState state(word);
    shared.words.share_bytes.Store(share(window.boxes(), state, launch, work));
    const bool is_own = state.launch() == launch;
    const uint64_t pause_start = clock64();
    const uint64_t least_clocks = is_own || state.IsComplete() ? kMeterPauseClocks : kTakingOverPauseClocks;
    const uint64_t pause_clocks =
        min(max((pause_start - start_clock) / kPauseShare, least_clocks), uint64_t{Share::kMostPauseClocks});
    while (!is_at_end() && clock64() - pause_start < pause_clocks) {
    }
    if (pause % Share::kPausesPerCarry == 0) account.Carry();
    word = ptx::LoadRelaxedGpu(&p.workspace.link->link_state);
    // While the launch before still reads, its CTAs look after the window.
    window.Update(is_own ? state.UnfinishedBefore(work.worker) : work.worker + 1);
    const uint64_t now_ns = ptx::GlobalTimerNs();
    const uint64_t elapsed_ns = now_ns - start_ns;
    if (elapsed_ns > kLeastCalibrationNs) {
      account.SetRate(static_cast<float>(elapsed_ns) / static_cast<float>(clock64() - start_clock));
    }
    // Not before the launch before has published its last word.
    if (is_own && work.worker == 0 && p.report != nullptr && now_ns > publish_ns) {
      publish_ns = now_ns + kPublishNs;
      Publish(p);
    }
  }
  LeaveLink(p, work, shared, account, launch);
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_DECODE_REMOTE_CUH_

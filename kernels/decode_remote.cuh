// The remote kind's half of the decode kernel: how many reads a CTA may have in flight, and what it reports.
//
// The window is shared out without communication: of `boxes` boxes that the window holds, the i-th of the u CTAs that
// aren't done gets boxes / u, and one more if i < boxes % u. Shares only grow as CTAs finish, so CTAs that see the mask
// of finished ones at different times never hold more than the window together. The first unfinished CTA always gets
// at least one box, so that a window of 0 ends too.
#ifndef DAK_KERNELS_DECODE_REMOTE_CUH_
#define DAK_KERNELS_DECODE_REMOTE_CUH_

#include "kernels/decode_common.cuh"

namespace dak::kernels {

inline constexpr uint32_t kMeterPauseNs = 1000;
inline constexpr uint32_t kPausesPerWindowRead = 8;  // a read of host memory takes about 2 us itself
inline constexpr uint32_t kPausesPerPublish = 32;
inline constexpr uint64_t kLeastCalibrationNs = 20'000;  // globaltimer may tick as coarsely as 1 us

// The reads in flight of one CTA's producer thread.
template <class Traits>
class RemoteGate {
 public:
  __device__ RemoteGate(const DecodeParams& p, DecodeShared& shared) : link_(*p.workspace.link), shared_(shared) {}

  // Returns when one more read is within the share.
  __device__ void WaitForRoom() {
    while (true) {
      while (inflight_ > 0 && cuda::ptx::mbarrier_test_wait_parity(&shared_.full[oldest_.stage], oldest_.phase)) {
        Retire(/*sampled=*/false);
      }
      const uint32_t share = shared_.share_boxes;
      if (inflight_ < (share < Traits::kStages ? share : Traits::kStages)) return;
      if (inflight_ > 0) {
        RetireOldest();
      } else {
        __nanosleep(kMeterPauseNs / 4);
      }
    }
  }

  // To be called just before `bytes` are read into `stage`; stages follow one another.
  __device__ void OnIssue(uint32_t stage, uint32_t bytes) {
    // The sum's old value is looked at one read later, so that this thread doesn't wait for it.
    peak_ = peak_ > seen_ ? peak_ : seen_;
    seen_ = atomicAdd(Word(&link_.inflight_bytes), static_cast<unsigned long long>(bytes)) + bytes;
    shared_.issue_clock[stage] = clock64();
    shared_.issue_bytes[stage] = bytes;
    ++inflight_;
  }

  // Waits for all that is in flight.
  __device__ void Drain() {
    while (inflight_ > 0) RetireOldest();
    peak_ = peak_ > seen_ ? peak_ : seen_;
    ptx::MaxRelaxedGpu(&link_.inflight_peak_bytes, peak_);
  }

 private:
  static __device__ unsigned long long* Word(uint64_t* word) { return reinterpret_cast<unsigned long long*>(word); }

  // A round trip is sampled only where this thread was waiting when it ended: else its end wasn't seen.
  __device__ void RetireOldest() {
    const bool sampled = !cuda::ptx::mbarrier_test_wait_parity(&shared_.full[oldest_.stage], oldest_.phase);
    if (sampled) WaitFor(&shared_.full[oldest_.stage], oldest_.phase);
    Retire(sampled);
  }

  __device__ void Retire(bool sampled) {
    const uint64_t clocks = clock64() - shared_.issue_clock[oldest_.stage];
    const uint64_t bytes = shared_.issue_bytes[oldest_.stage];
    ptx::AddRelaxedGpu(&link_.inflight_bytes, ~bytes + 1);
    ptx::AddRelaxedGpu(&link_.bytes, bytes);
    if (sampled) {
      ptx::AddRelaxedGpu(&link_.round_trip_ns, __float2uint_rn(static_cast<float>(clocks) * shared_.ns_per_clock));
      ptx::AddRelaxedGpu(&link_.round_trips, 1);
    }
    oldest_.Advance(Traits::kStages);
    --inflight_;
  }

  LinkCounters& link_;
  DecodeShared& shared_;
  RingPlace oldest_;
  uint32_t inflight_ = 0;
  uint64_t peak_ = 0;
  uint64_t seen_ = 0;
};

__device__ inline void Publish(const DecodeParams& p) {
  LinkCounters& link = *p.workspace.link;
  ptx::StoreRelaxedSys(&p.report->bytes, ptx::LoadRelaxedGpu(&link.bytes));
  ptx::StoreRelaxedSys(&p.report->round_trip_ns, ptx::LoadRelaxedGpu(&link.round_trip_ns));
  ptx::StoreRelaxedSys(&p.report->round_trips, ptx::LoadRelaxedGpu(&link.round_trips));
  ptx::StoreRelaxedSys(&p.report->inflight_bytes, ptx::LoadRelaxedGpu(&link.inflight_bytes));
  ptx::StoreRelaxedSys(&p.report->inflight_peak_bytes, ptx::LoadRelaxedGpu(&link.inflight_peak_bytes));
  ptx::StoreRelaxedSys(&p.report->passes, ptx::LoadRelaxedGpu(&link.passes));
}

// This CTA's share, in boxes.
__device__ inline uint32_t ShareOf(uint64_t window_bytes, uint64_t finished_mask, uint32_t worker, uint32_t workers) {
  const uint64_t all = workers == 64 ? ~uint64_t{0} : (uint64_t{1} << workers) - 1;
  const uint64_t unfinished = all & ~finished_mask;
  const uint32_t count = max(1, __popcll(unfinished));
  const uint32_t rank = __popcll(unfinished & ((uint64_t{1} << worker) - 1));
  const uint64_t held = window_bytes / kBoxBytes;
  const auto boxes = static_cast<uint32_t>(held < 1 ? 1 : held > 0xFFFF ? 0xFFFF : held);
  return boxes / count + (rank < boxes % count ? 1 : 0);
}

// The meter's thread: keeps the share and the clock's rate up to date, and the report page while the kernel runs.
__device__ inline void RunMeter(const DecodeParams& p, const WorkRange& work, DecodeShared& shared) {
  uint64_t window_bytes = ~uint64_t{0};
  // Before the wait: this read of host memory overlaps the end of the launch before.
  if (p.control != nullptr) window_bytes = ptx::LoadRelaxedSys(&p.control->window_bytes);
  ptx::WaitForPreviousGrid();
  const uint64_t start_ns = ptx::GlobalTimerNs();
  const uint64_t start_clock = clock64();
  for (uint32_t pause = 1; shared.stop_meter == 0; ++pause) {
    const uint64_t mask = ptx::LoadRelaxedGpu(&p.workspace.link->finished_mask);
    shared.share_boxes = ShareOf(window_bytes, mask, work.worker, work.workers);
    __nanosleep(kMeterPauseNs);
    if (pause % kPausesPerWindowRead == 0 && p.control != nullptr) {
      window_bytes = ptx::LoadRelaxedSys(&p.control->window_bytes);
    }
    const uint64_t elapsed_ns = ptx::GlobalTimerNs() - start_ns;
    if (elapsed_ns > kLeastCalibrationNs) {
      shared.ns_per_clock = static_cast<float>(elapsed_ns) / static_cast<float>(clock64() - start_clock);
    }
    if (work.worker == 0 && p.report != nullptr && pause % kPausesPerPublish == 0) Publish(p);
  }
  __threadfence_block();
  shared.meter_stopped = 1;
}

// Ends a remote CTA's part: the last of them closes the operation's books.
__device__ inline void FinishRemote(const DecodeParams& p, const WorkRange& work, DecodeShared& shared) {
  shared.stop_meter = 1;
  while (shared.meter_stopped == 0) {
  }
  LinkCounters& link = *p.workspace.link;
  __threadfence();
  const uint64_t bit = uint64_t{1} << work.worker;
  const uint64_t all = work.workers == 64 ? ~uint64_t{0} : (uint64_t{1} << work.workers) - 1;
  const uint64_t mask =
      atomicOr(reinterpret_cast<unsigned long long*>(&link.finished_mask), static_cast<unsigned long long>(bit)) | bit;
  if (mask != all) return;
  __threadfence();
  link.finished_mask = 0;
  ptx::AddRelaxedGpu(&link.passes, 1);
  __threadfence();
  if (p.report != nullptr) Publish(p);
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_DECODE_REMOTE_CUH_

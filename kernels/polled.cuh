// Words of shared memory through which the warps of a CTA tell each other how far they are, without a barrier.
//
// One thread writes such a word, others poll it, and it carries nothing but its own value: what is ordered against
// other memory goes through barriers. Its accesses are volatile, which PTX takes for relaxed ones, so they are no data
// race. compute-sanitizer's racecheck knows barriers alone and reports every one of them; scripts/racecheck takes
// reports whose both ends lie in this file for what they are.
#ifndef DAK_KERNELS_POLLED_CUH_
#define DAK_KERNELS_POLLED_CUH_

#include <cstdint>

namespace dak::kernels {

// Up to 8 bytes, which are read and written whole.
template <class T>
class Polled {
 public:
  __device__ T Load() const { return value_; }
  __device__ void Store(T value) { value_ = value; }

 private:
  static_assert(sizeof(T) <= 8);
  volatile T value_;
};

// Between the thread that reads from the link and its CTA's meter (decode_remote.cuh).
struct LinkWords {
  static constexpr uint64_t kNotBegun = ~uint64_t{0};
  // Written by the former...
  Polled<uint64_t> issued_bytes;
  Polled<uint64_t> returned_bytes;
  Polled<uint64_t> round_trip_clocks;
  Polled<uint32_t> round_trips;
  Polled<uint32_t> most_inflight_bytes;
  Polled<uint64_t> first_state;  // LinkCounters::link_state, when this thread may begin; kNotBegun before
  Polled<uint32_t> issued_all;   // what this thread reads is in flight or back...
  Polled<uint32_t> drained;      // ...or all back, and nothing is left to do: it implies the former
  // ...and by the meter.
  Polled<uint32_t> share_bytes;  // that this CTA may have in flight

  // By one thread, before a barrier of the CTA.
  __device__ void Reset() {
    issued_bytes.Store(0);
    returned_bytes.Store(0);
    round_trip_clocks.Store(0);
    round_trips.Store(0);
    most_inflight_bytes.Store(0);
    first_state.Store(kNotBegun);
    issued_all.Store(0);
    drained.Store(0);
    share_bytes.Store(0);
  }
};

}  // namespace dak::kernels

#endif  // DAK_KERNELS_POLLED_CUH_

// A model of the link between a GPU and its remote tiers, as the emulated device runs it.
//
// With b bytes in flight in all, reads from remote tiers are served at min(b / round_trip, bandwidth), shared in
// proportion to each reader's bytes in flight, with a round trip of max(round_trip, b / bandwidth). Past `cliff_bytes`
// in flight the HBM rate falls as (cliff_bytes / b)^3, down to `cliff_floor` of what it was. The defaults and the
// exponent are fitted to an H100 (docs/hardware.md); the model has no notion of how the bytes in flight are spread
// over SMs, which alone makes a factor of 3 in HBM bandwidth in the middle of the cliff.
//
// Edge cases: a bandwidth of 0 is a dead link (nothing is served, the round trip of a waiting read is infinite); a
// cliff of 0 means that there is none; a total that is less than the reader's own bytes is taken to be the reader's.
//
// Thread safety: values; functions are pure.
#ifndef DAK_ALLOCATOR_DEVICE_LINK_MODEL_H_
#define DAK_ALLOCATOR_DEVICE_LINK_MODEL_H_

#include <cstdint>

namespace dak {

struct LinkModel {
  uint64_t bandwidth_bytes_per_s = 51'100'000'000;
  uint64_t round_trip_ns = 1'800;  // unloaded
  uint64_t cliff_bytes = 1'500'000;
  uint64_t local_bandwidth_bytes_per_s = 2'990'000'000'000;
  double cliff_floor = 0.022;  // share of local bandwidth, 0 to 1
};

struct LinkLoad {
  uint64_t own_inflight_bytes = 0;    // the reader's
  uint64_t total_inflight_bytes = 0;  // everybody's, the reader's included
};

struct LinkResponse {
  double bytes_per_s = 0;  // the reader's share of the link
  double round_trip_ns = 0;
  double local_bytes_per_s = 0;  // what HBM gives beside this load
};

LinkResponse RespondTo(const LinkModel& model, const LinkLoad& load);

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_LINK_MODEL_H_

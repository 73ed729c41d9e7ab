// What a session says of itself, and what of it can be believed.
//
// Thread safety: values and pure functions.
#ifndef DAK_DAEMON_CONGESTION_REPORT_H_
#define DAK_DAEMON_CONGESTION_REPORT_H_

#include <cstdint>

namespace dak::congestion {

// From the profile; nothing here is a constant of one machine.
struct LinkProfile {
  double bandwidth_bytes_per_s = 51.1e9;
  uint64_t round_trip_ns = 1'800;    // unloaded
  uint64_t cliff_bytes = 1'000'000;  // the sum of windows never passes half of this
};

// What one session's report page said (cumulative, as in proto/dak/v1/control_page.h). Not trusted: counters that go
// backwards or claim more than the link could carry are clamped and flagged.
struct SessionReport {
  uint64_t session_id = 0;
  uint64_t bytes = 0;
  uint64_t round_trip_ns = 0;
  uint64_t round_trips = 0;
  uint64_t inflight_bytes = 0;
  uint64_t inflight_peak_bytes = 0;
};

// One interval of one session.
struct Measured {
  double bytes_per_s = 0;       // at most a quarter more than the link's
  double round_trip_ns = 0;     // mean; 0 if there is no sample that can be true
  uint64_t inflight_bytes = 0;  // the most that it owns up to: the gauge, or the peak if that grew
  bool suspect = false;         // something in it can't be true
  bool still = false;           // nothing came back: it reads nothing, or its process waits for a turn of the GPU
};

// What happened between two reports that were taken `elapsed_ns` (not 0) apart.
Measured Compare(const LinkProfile& profile, const SessionReport& before, const SessionReport& after,
                 uint64_t elapsed_ns);

}  // namespace dak::congestion

#endif  // DAK_DAEMON_CONGESTION_REPORT_H_

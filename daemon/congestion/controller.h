// Rations one link among sessions by the bytes that each may have in flight.
//
// Facts behind it (docs/congestion.md): the link is full at about the bandwidth-delay product; more in flight buys
// latency, and past the cliff destroys HBM bandwidth; bandwidth is shared in proportion to bytes in flight. So the
// controller holds the sum of windows near twice the bandwidth-delay product, splits it by weight among sessions that
// are active, gives an idle session's share away, and moves the sum with the measured round trip.
//
// Deterministic: time comes in with every call, and nothing else is read. Thread safety: none; one owner.
// Errors: AddSession refuses what is there (ALREADY_EXISTS) and weights out of 1..1000 (INVALID_ARGUMENT).
#ifndef DAK_DAEMON_CONGESTION_CONTROLLER_H_
#define DAK_DAEMON_CONGESTION_CONTROLLER_H_

#include <cstdint>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"

namespace dak::congestion {

// From the profile; nothing here is a constant of one machine.
struct LinkProfile {
  double bandwidth_bytes_per_s = 51.1e9;
  uint64_t round_trip_ns = 1'800;    // unloaded
  uint64_t cliff_bytes = 1'000'000;  // the sum of windows never passes half of this
};

struct Parameters {
  double target_bdp = 2.0;              // sum of windows, in bandwidth-delay products, before adaptation
  uint64_t min_window_bytes = 8 * 1024;  // of an active session: one tile
  uint64_t idle_after_ns = 20'000'000;  // without a byte for this long, a session is idle
  uint64_t interval_ns = 5'000'000;     // how often Tick is meant to be called
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

struct SessionState {
  uint64_t session_id = 0;
  uint32_t weight = 100;
  bool active = false;
  bool violating = false;  // in flight past its window since the last tick (one interval's grace after a cut)
  uint64_t window_bytes = 0;
  double bytes_per_s = 0;    // last interval
  double round_trip_ns = 0;  // mean of the last interval, 0 if nothing was read
  uint64_t inflight_peak_bytes = 0;
};

class Controller {
 public:
  explicit Controller(LinkProfile profile, Parameters parameters = {});

  absl::Status AddSession(uint64_t session_id, uint32_t weight, uint64_t now_ns);
  absl::Status RemoveSession(uint64_t session_id, uint64_t now_ns);
  absl::Status SetWeight(uint64_t session_id, uint32_t weight, uint64_t now_ns);
  // Bytes in flight that the daemon's own copies (migration, publishing) may have: at lower priority than sessions.
  void SetBackgroundDemand(bool wants, uint64_t now_ns);
  uint64_t background_window_bytes() const { return background_window_bytes_; }

  // Takes all sessions' reports and sets the windows anew. A clock that stands still or jumps back changes nothing.
  void Tick(uint64_t now_ns, absl::Span<const SessionReport> reports);

  uint64_t target_bytes() const { return target_bytes_; }
  // In order of session id.
  std::vector<SessionState> Sessions() const;
  // 0 for a session that isn't there.
  uint64_t WindowOf(uint64_t session_id) const;

 private:
  struct Entry {
    SessionState state;
    SessionReport last;
    uint64_t last_byte_ns = 0;
    uint64_t window_before_bytes = 0;  // the larger of the last two windows: the grace
  };
  void Divide(uint64_t now_ns);

  LinkProfile profile_;
  Parameters parameters_;
  absl::btree_map<uint64_t, Entry> sessions_;
  uint64_t target_bytes_ = 0;
  uint64_t background_window_bytes_ = 0;
  bool background_wants_ = false;
  uint64_t last_tick_ns_ = 0;
  double smoothed_round_trip_ns_ = 0;
};

}  // namespace dak::congestion

#endif  // DAK_DAEMON_CONGESTION_CONTROLLER_H_

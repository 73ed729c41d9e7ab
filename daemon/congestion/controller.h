// Rations one link among sessions by the bytes that each may have in flight.
//
// Facts behind it (docs/congestion.md): the link is full at about the bandwidth-delay product; more in flight buys
// latency, and past the cliff destroys HBM bandwidth; bandwidth is shared in proportion to bytes in flight. So the
// controller holds the sum of windows near twice the bandwidth-delay product, splits it by weight among sessions that
// want it, gives away what idle or slow sessions leave, and moves the sum with the measured round trip.
//
// Windows are whole tiles of `min_window_bytes`; the parts of tiles that rounding takes are paid back in later
// intervals, so shares are exact on average. Sessions that don't use theirs keep a standing window where there is room
// under half the cliff, so that they can start at once; without room it is 0, with which kernels still keep a tile in
// flight. The sum of windows passes half the cliff only where more sessions want the link than that has tiles.
//
// Deterministic: time comes in with every call, and nothing else is read. Thread safety: none; one owner.
// Errors: AddSession refuses what is there (ALREADY_EXISTS) and weights out of 1..1000 (INVALID_ARGUMENT, also from
// SetWeight); NOT_FOUND (UNKNOWN_SESSION) for what isn't there. A call that fails changed nothing.
#ifndef DAK_DAEMON_CONGESTION_CONTROLLER_H_
#define DAK_DAEMON_CONGESTION_CONTROLLER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "daemon/congestion/division.h"
#include "daemon/congestion/report.h"

namespace dak::congestion {

struct Parameters {
  double target_bdp = 2.0;               // sum of windows, in bandwidth-delay products, before adaptation
  uint64_t min_window_bytes = 8 * 1024;  // of an active session: one tile
  uint64_t idle_after_ns = 20'000'000;   // without a byte for this long, a session is idle
  uint64_t interval_ns = 5'000'000;      // how often Tick is meant to be called while anything changes
};

struct SessionState {
  uint64_t session_id = 0;
  uint32_t weight = 100;
  bool active = false;
  // In flight past its window by more than a tile since the last tick (one interval's grace after a cut, more for who
  // had no turn of the GPU), or its report can't be true.
  bool violating = false;
  bool implausible = false;  // the latter
  uint64_t window_bytes = 0;
  double bytes_per_s = 0;            // last interval
  double round_trip_ns = 0;          // mean of the last interval, 0 if nothing was read
  uint64_t inflight_peak_bytes = 0;  // as reported
  uint64_t inflight_bytes = 0;       // mean of the last interval, as far as it can be known
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

  // Takes all sessions' reports and sets the windows anew. A clock that stands still (or moves less than an eighth of
  // the interval) or jumps back changes nothing; after a jump back, time counts from there. Reports of sessions that
  // aren't there are passed over; a session without a report has read nothing.
  void Tick(uint64_t now_ns, absl::Span<const SessionReport> reports);

  // Instead of Tick, for a round in which no report said anything new. False, and nothing done, unless that changes
  // nothing: every session is idle, and was in the Tick before.
  bool Rest(uint64_t now_ns);

  // When Tick or Rest is meant to be called next, after the last of them or after a call that changed something: the
  // interval, or more of them while nothing changes (docs/congestion.md), but not over 20 ms because of that.
  uint64_t NextIntervalNs() const;

  // What the windows of sessions that want the link add up to, but for rounding and for neighbours of a violator.
  uint64_t target_bytes() const { return static_cast<uint64_t>(target_bytes_); }
  // Bytes in flight that the measured round trip shows and nobody's report accounts for; 0 while round trips are as
  // expected. Hidden reads, or traffic on the link that isn't dak's.
  uint64_t unexplained_bytes() const { return static_cast<uint64_t>(unexplained_bytes_); }
  // In order of session id. What a reference refers to stays until sessions are added or removed.
  size_t session_count() const { return sessions_.size(); }
  const SessionState& SessionAt(size_t i) const { return sessions_[i].state; }
  std::vector<SessionState> Sessions() const;
  // 0 for a session that isn't there.
  uint64_t WindowOf(uint64_t session_id) const;

 private:
  struct Entry {
    SessionState state;
    SessionReport last;
    uint64_t since_ns = 0;      // when `last` was taken
    uint64_t last_byte_ns = 0;  // or when it was added
    bool fresh = true;          // nothing was read yet: taken to want all it can get
    bool hungry = true;         // uses the window it gets
    Measured measured;
    double used_bytes = 0;  // of its window; falls slowly
    double carry_tiles = 0;
    // Windows in force since the last tick, and the largest of an interval earlier, or since it last read: the grace.
    uint64_t least_window_bytes = 0;
    uint64_t most_window_bytes = 0;
    uint64_t most_before_bytes = 0;
  };
  // What the cuts of the last ticks cost together.
  struct Cut {
    bool made = false;
    double target_bytes = 0;  // before the first
    double round_trip_ns = 0;
    double bytes_per_s = 0;
  };
  // Whether a round trip that was learned holds.
  struct Trial {
    int ticks = 0;            // until it ends; 0: there is none
    double target_bytes = 0;  // and what was carried with it, before the windows were made larger again
    double bytes_per_s = 0;
  };
  // All sessions together, over the last interval.
  struct Load {
    double round_trip_ns = 0;  // 0: nothing was measured
    double bytes_per_s = 0;
    double honest_bytes = 0;     // in flight by sessions within their windows
    double violating_bytes = 0;  // in flight by the others
    bool hungry = false;         // somebody honest wants more
    bool modest = false;         // somebody reads and doesn't
    bool turned = false;         // somebody turned hungry, or no longer is
    bool violating = false;      // somebody is
    bool news = false;           // somebody is violating, reads at another rate or turned hungry, modest or idle
  };

  // nullptr for a session that isn't there.
  const Entry* Find(uint64_t session_id) const;
  Entry* Find(uint64_t session_id);
  // The same, after the sessions that came before it: reports mostly come in the sessions' order.
  Entry* FindNext(uint64_t session_id, size_t* next);

  // Measuring (judgement.cc).
  void Measure(uint64_t now_ns, uint64_t elapsed_ns, absl::Span<const SessionReport> reports);
  void Rebase(uint64_t now_ns, absl::Span<const SessionReport> reports);
  double MeasuredRoundTrip() const;
  void Judge(Entry& entry, uint64_t now_ns, double use_kept);
  void SumUp();

  // The target (adaptation.cc).
  double Product() const { return profile_.bandwidth_bytes_per_s * round_trip_ns_ * 1e-9; }
  double CapBytes() const;
  double ExpectedNs() const;
  double GoalBytes() const;
  double LeastBytes() const;
  double SafeBytes() const;
  void Adapt(uint64_t elapsed_ns);
  bool LearnFromCut();
  void TryLearned();

  // The windows (controller.cc).
  bool AllAreIdle() const;
  void Divide(bool settle_rounding);
  Budget SessionsBudget() const;
  // Whether another division would lead to what the last one did.
  bool IsDivided() const;
  double CompensatedBytes(const std::vector<Share>& shares, double violators_windows_bytes) const;
  void SetWindow(Entry& entry, const Share& share);

  LinkProfile profile_;
  Parameters parameters_;
  std::vector<Entry> sessions_;  // in order of session id; a tick goes through all of them, so they lie side by side
  uint64_t last_tick_ns_ = 0;
  uint64_t rested_ns_ = 0;  // until when reports are known to have stood still
  int idle_ticks_ = 0;      // since anybody was active or anything was changed from outside
  uint64_t calm_ns_ = 0;    // since anything was news
  Load load_;
  double round_trip_ns_ = 0;  // unloaded: the profile's, until a cut shows that it is longer
  uint64_t learned_ns_ = 0;   // for which that is still believed
  Trial trial_;
  uint64_t doubted_ns_ = 0;  // for which nothing is learned
  double target_bytes_ = 0;
  Cut cut_;
  double planned_bytes_ = 0;  // in flight through floors and violators: more than the target, and no surprise
  double unexplained_bytes_ = 0;
  uint64_t background_window_bytes_ = 0;
  bool background_wants_ = false;
  Budget divided_;        // last
  bool settled_ = false;  // by a tick, beside nobody modest or violating, and each is owed what it was before
};

}  // namespace dak::congestion

#endif  // DAK_DAEMON_CONGESTION_CONTROLLER_H_

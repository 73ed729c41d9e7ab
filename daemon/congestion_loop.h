// The thread that turns report pages into windows: reads what each session's kernels report, feeds one
// congestion::Controller a link, each with its link's profile, and writes the windows into the control pages.
//
// It sleeps while there are no sessions, and otherwise ticks as often as the controllers want it to, which is the more
// seldom the less changes. A session has its first window before Add returns. What a report page says is clamped to
// what the link could have carried since the last tick.
//
// Thread safety: all methods may be called from any thread. Lock order: the loop's mutex is taken before no other but
// the EventLog's, and none of a session's.
#ifndef DAK_DAEMON_CONGESTION_LOOP_H_
#define DAK_DAEMON_CONGESTION_LOOP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "daemon/congestion/controller.h"
#include "daemon/events/event_log.h"
#include "daemon/profile/links.h"
#include "daemon/session/pages.h"
#include "monitoring/metrics.h"

namespace dak::daemon {

// One session on one link.
struct SessionLinkState {
  congestion::SessionState state;
  std::string name;
  uint64_t remote_bytes = 0;       // counted since the session opened
  uint64_t round_trip_ns_sum = 0;  // the same
  uint64_t round_trips = 0;        // the same
};

struct LinkSnapshot {
  NodeLink link;
  uint64_t target_bytes = 0;
  uint64_t background_bytes_per_s = 0;  // what the daemon's own copies may take; 0 while there are none
  uint64_t unexplained_bytes = 0;
  std::vector<SessionLinkState> sessions;  // in order of id
};

class CongestionLoop {
 public:
  // `events` and `metrics` outlive the loop.
  CongestionLoop(std::vector<NodeLink> links, const congestion::Parameters& parameters, EventLog* events,
                 monitoring::Metrics* metrics);
  ~CongestionLoop();

  void Start();
  void Stop();

  absl::Status Add(uint64_t session_id, const std::string& name, uint32_t weight, std::shared_ptr<SessionPages> pages);
  void Remove(uint64_t session_id);
  void SetPlanVersion(uint64_t session_id, uint64_t version);

  uint32_t link_count() const { return static_cast<uint32_t>(links_.size()); }

  // The daemon's own copies over a link. While at least one is between Begin and End, the division leaves them a share,
  // at lower priority than sessions (docs/congestion.md); each may copy at the rate that BackgroundBytesPerS says at
  // the time.
  void BeginBackground(uint32_t link);
  void EndBackground(uint32_t link);
  double BackgroundBytesPerS(uint32_t link) const;

  std::vector<LinkSnapshot> Snapshot() const;  // by link

  // How long the thread waits between two rounds as things are: what the most eager of the controllers wants.
  uint64_t NextIntervalNs() const;

  // One round at `now_ns`, as the thread runs it: for tests of a loop that wasn't started.
  void TickOnce(uint64_t now_ns);

 private:
  struct Entry {
    std::string name;
    std::shared_ptr<SessionPages> pages;
  };
  // What a round needs of one session on one link, one after the other. Between two rounds others use the caches, so a
  // round costs about what it touches: a control page only where there is something to write, a session's entry only
  // where there is something to tell.
  struct Slot {
    uint64_t session_id = 0;
    SessionPages* pages = nullptr;           // the entry's
    const v1::LinkReport* report = nullptr;  // theirs
    LinkReportValues last;                   // as reported
    LinkReportValues total;                  // clamped
    uint64_t window_bytes = 0;               // as written
    uint64_t neighbours_bytes = 0;           // the same
    bool violating = false;
  };
  struct Violation {
    uint64_t session_id = 0;
    std::string name;
    std::string message;
  };
  void Run();
  uint64_t LeastIntervalNs() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes over what the pages say; false if none says anything new.
  bool ReadPages(uint32_t link, uint64_t elapsed_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TickLink(uint32_t link, uint64_t now_ns, uint64_t elapsed_ns, std::vector<Violation>* violations)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WritePages(uint32_t link) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ChangeBackground(uint32_t link, uint64_t users) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  double BackgroundRate(uint32_t link) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::vector<NodeLink> links_;
  const congestion::Parameters parameters_;
  EventLog* const events_;
  monitoring::Metrics* const metrics_;

  mutable absl::Mutex mutex_;
  std::vector<congestion::Controller> controllers_ ABSL_GUARDED_BY(mutex_);  // by link
  std::vector<uint64_t> background_users_ ABSL_GUARDED_BY(mutex_);           // the same
  absl::btree_map<uint64_t, Entry> sessions_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<Slot>> slots_ ABSL_GUARDED_BY(mutex_);            // by link, in order of session id
  std::vector<congestion::SessionReport> reports_ ABSL_GUARDED_BY(mutex_);  // of the link of the latest ReadPages
  uint64_t last_tick_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_CONGESTION_LOOP_H_

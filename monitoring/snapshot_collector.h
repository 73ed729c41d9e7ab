// Turns a Snapshot into metric families at each scrape.
//
// Thread safety: Collect and CountViolation may be called from any thread, at once. Errors: none.
#ifndef DAK_MONITORING_SNAPSHOT_COLLECTOR_H_
#define DAK_MONITORING_SNAPSHOT_COLLECTOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/synchronization/mutex.h"
#include "monitoring/metrics.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace dak::monitoring {

// Sessions that get series of their own; the rest count in dak_sessions_unlisted.
inline constexpr size_t kMaxListedSessions = 1024;

class SnapshotCollector : public prometheus::Collectable {
 public:
  explicit SnapshotCollector(std::function<Snapshot()> snapshot);

  std::vector<prometheus::MetricFamily> Collect() const override;
  // Counts for the session as long as it is in the snapshots. At most 2 * kMaxListedSessions sessions are held between
  // scrapes; past that the oldest are forgotten.
  void CountViolation(uint64_t session_id);

 private:
  struct Violations {
    uint64_t count = 0;
    uint64_t last_scrape = 0;  // scrapes begun when it last grew
  };
  // By session id: violations of the sessions in `snapshot`. Forgets sessions that are gone.
  absl::btree_map<uint64_t, uint64_t> TakeViolations(const Snapshot& snapshot, uint64_t scrape) const;

  const std::function<Snapshot()> snapshot_;
  mutable absl::Mutex mutex_;
  mutable uint64_t scrapes_ ABSL_GUARDED_BY(mutex_) = 0;
  mutable absl::btree_map<uint64_t, Violations> violations_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dak::monitoring

#endif  // DAK_MONITORING_SNAPSHOT_COLLECTOR_H_

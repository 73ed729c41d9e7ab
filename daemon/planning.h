// All sessions' plans, kept up to date: planner::NodePlan with the node's pools and quotas, its clock, and a thread for
// what is due later.
//
// A plan is published in this order: the session's plan (GetPlan), the version in its control page, the event
// PLAN_CHANGED. Versions of a session only grow.
// The HBM that described passes share is the pool's, less what is published and what sessions without a described pass
// hold; the same for the remote tiers.
//
// Thread safety: all methods may be called from any thread. Lock order: this class's mutex before a session's, the
// ledger's, the congestion loop's and the event log's; none of the manager's is taken under it.
#ifndef DAK_DAEMON_PLANNING_H_
#define DAK_DAEMON_PLANNING_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "daemon/congestion_loop.h"
#include "daemon/planner/node_plan.h"
#include "daemon/session/session.h"

namespace dak::daemon {

class Planning {
 public:
  // Everything that is pointed at outlives this.
  Planning(const planner::Profile& profile, const planner::ReplanPolicy& policy, SessionEnvironment* environment,
           CongestionLoop* congestion);
  ~Planning();

  void Start();
  void Stop();

  // The profile with the node's remote tiers: those of its pools, under their names.
  const planner::Profile& profile() const { return profile_; }

  // The session's pass from now on; has_rows is SessionPlan's. Its plan is in force when this returns; others may
  // follow.
  absl::StatusOr<SessionPlanPtr> Describe(const std::shared_ptr<Session>& session, planner::PassDescription description,
                                          std::vector<bool> has_rows);
  // The session is gone: the others are planned anew, soon.
  void Remove(uint64_t session_id);
  // A quota or a pool's use changed: the same.
  void Refresh();

 private:
  struct Described {
    std::shared_ptr<Session> session;
    std::shared_ptr<const std::vector<std::string>> names;
    std::vector<bool> has_rows;
  };

  void Run();
  void Replan() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeLimits(uint64_t joining_session) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Publish(const std::vector<uint64_t>& changed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t HbmLimit(uint64_t session_id) const;

  const planner::Profile profile_;
  SessionEnvironment* const environment_;
  CongestionLoop* const congestion_;

  absl::Mutex mutex_;
  planner::NodePlan node_ ABSL_GUARDED_BY(mutex_);
  absl::btree_map<uint64_t, Described> described_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool due_ ABSL_GUARDED_BY(mutex_) = false;      // replan at once
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;  // look at the time again
  std::thread thread_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_PLANNING_H_

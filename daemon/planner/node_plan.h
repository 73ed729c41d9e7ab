// The plans of all sessions of a node: what is in force, and when it changes.
//
// Every session describes its pass; PlanAll splits all of them over the HBM, the link and the tiers that they share.
// A session that comes, goes or describes another pass changes the others' optimum, and moving costs, so what is in
// force follows in steps:
//   * HBM that is in force for sessions together never passes the capacity. A session that comes gets what is free, and
//     more when others have given it up. Only one whose pass can't do with that is planned beyond it.
//   * Others give HBM up for it if that saves at least `min_gain` of all sessions' weighted time, or must be, and not
//     more often than every `min_interval_s`.
//   * Each session's own step is DecideReplan's (replan.h): worth its copies, at most `max_move_bytes`.
// A session whose rows are as before keeps its version, also if it describes a pass that takes another time.
//
// Thread safety: none; one owner. Time comes in with each call. Errors: those of PlanAll, with "operations[3].rows" and
// the like for what is wrong with a description; a call that fails changed nothing.
#ifndef DAK_DAEMON_PLANNER_NODE_PLAN_H_
#define DAK_DAEMON_PLANNER_NODE_PLAN_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/planner/planner.h"
#include "daemon/planner/replan.h"

namespace dak::planner {

// A session's pass. `splits` has one entry an operation; rows * row_bytes is what the operation stores.
struct PassDescription {
  Pass pass;
  std::vector<RowSplit> splits;
};

// In force. The plan's ratios are those of the rows, and its times those of the ratios.
struct NodePassPlan {
  uint64_t version = 0;
  PassPlan plan;
  std::vector<uint64_t> remote_rows;
  std::vector<size_t> tiers;  // by operation, in the profile's order; matters only where rows are remote
  uint64_t moved_bytes = 0;   // between the version before and this one
  double target_s = 0;        // of the node's optimum, which further steps may come closer to
};

class NodePlan {
 public:
  NodePlan(Profile profile, ReplanPolicy policy) : profile_(std::move(profile)), policy_(policy) {}

  // What described passes may hold together, and what the remote tiers have for them (by the profile's order).
  void SetCapacities(uint64_t hbm_bytes, const std::vector<uint64_t>& remote_bytes);

  // Adds a session or replaces its description, and replans. Returns the sessions whose version changed.
  // Operations of the same names and splits as before keep their rows and move from there; others start anew.
  absl::StatusOr<std::vector<uint64_t>> Describe(PassDescription description, uint64_t hbm_limit_bytes, double now_s);
  // A bound on a session's HBM beside its own budget (its quota); nothing happens before the next Replan.
  void SetLimit(uint64_t session_id, uint64_t hbm_bytes);
  // False if there is none. The others may want another plan then: Replan.
  bool Remove(uint64_t session_id);
  // Another look at all sessions.
  absl::StatusOr<std::vector<uint64_t>> Replan(double now_s);

  // When Replan should be called although nothing changed: a step wasn't the last one, or came too soon. Infinite if
  // never.
  double next_replan_s() const { return next_replan_s_; }
  const NodePassPlan* Find(uint64_t session_id) const;  // null if there is none; good until the next call
  bool empty() const { return sessions_.empty(); }

 private:
  struct Session {
    std::shared_ptr<const PassDescription> description;
    uint64_t hbm_limit_bytes = kUnlimitedBytes;
    NodePassPlan in_force;  // version 0: none yet
    double last_step_s = -std::numeric_limits<double>::infinity();
  };
  using Sessions = absl::btree_map<uint64_t, Session>;
  class Round;  // one Replan

  absl::StatusOr<std::vector<uint64_t>> Commit(Sessions sessions, double now_s);

  Profile profile_;
  ReplanPolicy policy_;
  uint64_t hbm_bytes_ = kUnlimitedBytes;
  Sessions sessions_;
  double last_shift_s_ = -std::numeric_limits<double>::infinity();  // of HBM between sessions
  double next_replan_s_ = std::numeric_limits<double>::infinity();
};

}  // namespace dak::planner

#endif  // DAK_DAEMON_PLANNER_NODE_PLAN_H_

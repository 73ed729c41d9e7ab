// The baseline: one ratio for every operation of a session, within the same limits. Internal; pure, thread-safe.
#ifndef DAK_DAEMON_PLANNER_UNIFORM_H_
#define DAK_DAEMON_PLANNER_UNIFORM_H_

#include <vector>

#include "daemon/planner/problem.h"

namespace dak::planner::internal {

struct UniformPlan {
  std::vector<double> ratio;  // by session, before clipping to an operation's bounds
  PerTier mix{};              // how every remote share is spread; sums to 1 if anything is remote
};

// The smallest ratios that meet every session's own need and then, raised to a common one, the shared need; spread so
// that the slowest tier ends as early as one mix for all allows within the capacities.
UniformPlan PlanUniform(const Problem& problem);

}  // namespace dak::planner::internal

#endif  // DAK_DAEMON_PLANNER_UNIFORM_H_

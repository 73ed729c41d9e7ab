// The greedy over segments, for all sessions at once, at given prices of the remote tiers' bytes. Internal.
//
// Minimises the sum over operations of weight * seconds + sum of price_k * bytes on tier k, under every bound except
// the tiers' capacities. Pure functions, thread-safe.
#ifndef DAK_DAEMON_PLANNER_GREEDY_H_
#define DAK_DAEMON_PLANNER_GREEDY_H_

#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "daemon/planner/cost_curve.h"
#include "daemon/planner/problem.h"

namespace dak::planner::internal {

// All segments below `slope` are taken, and `fraction` of every one at it: ties share alike, so compute-bound
// operations keep the same relative distance from where their transfer would show.
struct Threshold {
  double slope = -std::numeric_limits<double>::infinity();
  double fraction = 0;
};

// The item's ratio when everything up to the threshold is taken.
double RatioAt(const Segments& segments, const Item& item, const Threshold& threshold);

struct Piece {
  double slope = 0;
  double bytes = 0;
};
// The threshold at which pieces of `needed_bytes` in all are taken, cheapest first; the last one if they aren't enough.
// Expected linear time; reorders `pieces`.
Threshold SelectThreshold(absl::Span<Piece> pieces, double needed_bytes);

struct GreedyPlan {
  PerTier prices{};
  std::vector<Threshold> thresholds;  // by session
  double weighted_s = 0;              // these two only if asked for
  PerTier used_bytes{};
};
GreedyPlan SolveAtPrices(const Problem& problem, const PerTier& prices, bool with_totals);

}  // namespace dak::planner::internal

#endif  // DAK_DAEMON_PLANNER_GREEDY_H_

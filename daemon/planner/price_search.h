// The exact optimum under the tiers' capacities: a search for the price of each full tier's bytes. Internal.
//
// The dual function of the capacities is concave and piecewise linear in the prices. For one tier its maximum lies
// where the two lines that touch it on either side meet; the search evaluates there until the point lies on the
// function. The optimal plan is the mixture of the two greedy plans that fills the tier exactly. For several tiers,
// each evaluation is itself such a search over the remaining ones. docs/planner.md has the proof.
//
// Pure functions, thread-safe.
#ifndef DAK_DAEMON_PLANNER_PRICE_SEARCH_H_
#define DAK_DAEMON_PLANNER_PRICE_SEARCH_H_

#include <vector>

#include "absl/status/statusor.h"
#include "daemon/planner/greedy.h"
#include "daemon/planner/problem.h"

namespace dak::planner::internal {

struct WeightedPlan {
  double weight = 1;
  GreedyPlan plan;
};

// Greedy plans and weights that sum to 1. The plan it stands for: every tier share is the weighted mean.
struct Mixture {
  std::vector<WeightedPlan> parts;
  double weighted_s = 0;  // these two only where a tier's capacity is limited
  PerTier used_bytes{};
};

// INTERNAL if a price search doesn't end; no input is known for which it doesn't.
absl::StatusOr<Mixture> FillTiers(const Problem& problem);

}  // namespace dak::planner::internal

#endif  // DAK_DAEMON_PLANNER_PRICE_SEARCH_H_

// The planner's problem as a linear program, solved by GLPK in exact rational arithmetic: the judge of the greedy.
//
// NOTE: glp_exact replaces every number that isn't whole by a fraction within 1e-9 of it, and the simplex in doubles
// makes use of its tolerances: neither can judge to 1e-9 as they are. So the program is written in whole numbers only,
// and the data must allow that: rates, flops and weights whole, ratio bounds multiples of 1/64.
#ifndef DAK_TESTS_UNIT_PLANNER_LP_ORACLE_H_
#define DAK_TESTS_UNIT_PLANNER_LP_ORACLE_H_

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "daemon/planner/planner.h"

namespace dak::planner {

// The least weighted sum of seconds, or nothing if no plan keeps to the limits. Written from the header's formulas; it
// shares no code with the planner. Aborts on data that isn't whole.
std::optional<double> LeastWeightedSeconds(const Profile& profile, absl::Span<const Pass> passes,
                                           uint64_t hbm_capacity_bytes);

}  // namespace dak::planner

#endif  // DAK_TESTS_UNIT_PLANNER_LP_ORACLE_H_

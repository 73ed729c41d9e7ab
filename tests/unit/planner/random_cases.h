// Random planning problems, degenerate ones on purpose: ties, zeros, fixed ratios, budgets exactly at the bounds.
#ifndef DAK_TESTS_UNIT_PLANNER_RANDOM_CASES_H_
#define DAK_TESTS_UNIT_PLANNER_RANDOM_CASES_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "daemon/planner/planner.h"

namespace dak::planner {

struct RandomCase {
  Profile profile;
  std::vector<Pass> passes;
  uint64_t hbm_capacity_bytes = kUnlimitedBytes;
};

struct CaseSize {
  size_t max_operations = 7;
  size_t max_passes = 1;
  size_t max_tiers = 1;
  bool limited_tiers = false;
  bool extreme = false;    // bytes and tera-bytes side by side, anything from read rarely to read millions of times
  bool own_links = false;  // of all tiers but one, or all
};

// Ratio bounds are multiples of 1/64 and sizes below 2^46, so sums are exact and "exactly at the bound" means
// it; rates, flops and weights are whole, as the oracle needs them.
RandomCase MakeCase(std::mt19937_64& random, const CaseSize& size);

// For failure messages: enough to write the case down as a test of its own.
std::string Describe(const RandomCase& random_case);

}  // namespace dak::planner

#endif  // DAK_TESTS_UNIT_PLANNER_RANDOM_CASES_H_

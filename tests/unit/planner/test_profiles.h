// Profiles and passes that several of the planner's tests use.
#ifndef DAK_TESTS_UNIT_PLANNER_TEST_PROFILES_H_
#define DAK_TESTS_UNIT_PLANNER_TEST_PROFILES_H_

#include <vector>

#include "daemon/planner/planner.h"

namespace dak::planner {

// Round numbers: HBM 100 bytes/s, link 25 bytes/s (so the sweet spot is at 20 %), 10 flops/s.
inline Profile RoundProfile() {
  Profile profile;
  profile.hbm_bytes_per_s = 100;
  profile.link_bytes_per_s = 25;
  profile.flops_per_s = 10;
  profile.remote_tiers = {RemoteTier{}};
  return profile;
}

inline Operation MakeOperation(uint64_t bytes, double flops = 0, double min_ratio = 0, double max_ratio = 1) {
  Operation operation;
  operation.bytes = bytes;
  operation.flops = flops;
  operation.min_ratio = min_ratio;
  operation.max_ratio = max_ratio;
  return operation;
}

inline Pass MakePass(std::vector<Operation> operations, uint64_t hbm_budget_bytes, double weight = 1) {
  Pass pass;
  pass.weight = weight;
  pass.hbm_budget_bytes = hbm_budget_bytes;
  pass.operations = std::move(operations);
  return pass;
}

}  // namespace dak::planner

#endif  // DAK_TESTS_UNIT_PLANNER_TEST_PROFILES_H_

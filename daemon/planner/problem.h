// The planner's problem in numbers alone: what the solver works on. Internal to daemon/planner.
//
// Pure values and functions, thread-safe.
#ifndef DAK_DAEMON_PLANNER_PROBLEM_H_
#define DAK_DAEMON_PLANNER_PROBLEM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "daemon/planner/planner.h"

namespace dak::planner::internal {

// By remote tier, in the profile's order; entries past the profile's tiers are 0.
using PerTier = std::array<double, kMaxRemoteTiers>;

struct Item {
  double read_bytes = 0;
  double stored_bytes = 0;
  double compute_s = 0;
  double own_s = 0;     // beside everything else
  double remote_s = 0;  // before remote reads; at most what it takes with nothing remote
  double hbm_bytes_per_s = 0;
  double link_share = 1;  // of the rates of the link and the tiers
  double min_ratio = 0;
  double max_ratio = 1;
};

struct SessionTerms {
  double weight = 1;
  double least_hbm_bytes_per_s = 0;  // of any operation
  double least_link_share = 1;       // the same
  double link_bytes_per_s = 0;
  PerTier tier_bytes_per_s{};  // own rates; infinite where only the link limits
  double needed_bytes = 0;     // at least so many stored bytes are remote
  size_t first_item = 0;
  size_t end_item = 0;
};

struct Problem {
  size_t tiers = 0;
  PerTier capacity_bytes{};        // infinite where unlimited
  double shared_needed_bytes = 0;  // at least so many of all sessions together are remote
  double total_bytes = 0;          // stored, of all sessions
  std::vector<SessionTerms> sessions;
  std::vector<Item> items;
};

// What the links give. The planner's term for all remote reads together uses their sum: where every link has one tier
// it never binds (docs/planner.md), and where no tier has its own link it is the shared one's.
struct LinkRates {
  double all_bytes_per_s = 0;
  PerTier tier_bytes_per_s{};  // infinite where only the link limits
};
LinkRates LinkRatesOf(const Profile& profile);

Item ItemOf(const Profile& profile, const Operation& operation);

// Checks every field and that a plan exists. `single_pass`: fields are named without "passes[0].".
absl::StatusOr<Problem> BuildProblem(const Profile& profile, absl::Span<const Pass> passes, uint64_t hbm_capacity_bytes,
                                     bool single_pass);

}  // namespace dak::planner::internal

#endif  // DAK_DAEMON_PLANNER_PROBLEM_H_

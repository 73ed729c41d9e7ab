// Which share of each operation's bytes is remote: the exact greedy of docs/planner.md.
//
// Operation i moves C_i bytes and needs F_i floating-point operations. With share x_k of it on remote tier k and
// x = sum of x_k, it takes
//     t_i = max( F_i / P,  C_i (1 - x) / B_hbm,  C_i x_k / B_k for every tier k,  C_i x / B_link for a shared link ).
// Plan() minimises sum t_i over all operations of all sessions, subject to lo_i <= x_i <= hi_i, each session's HBM
// budget, and each remote tier's capacity. Every t_i is convex and piecewise linear in x_i, so taking segments in
// order of slope is exact. O(n log n) in the operations.
//
// Units: bytes, seconds, bytes per second. Thread safety: pure functions. Errors: INVALID_ARGUMENT names the field
// ("operations[3].bytes"); RESOURCE_EXHAUSTED with the shortfall where nothing fits even at the highest ratios.
// Source: arXiv 2604.26074, the section on greedy offload ratios; the model of several tiers and sessions is dak's own.
#ifndef DAK_DAEMON_PLANNER_PLANNER_H_
#define DAK_DAEMON_PLANNER_PLANNER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace dak::planner {

// A remote tier as the model sees it.
struct RemoteTier {
  std::string name = "host";
  double bytes_per_s = 0;       // its own rate; 0: only the shared link limits it
  uint64_t capacity_bytes = 0;  // 0: unlimited
};

struct Profile {
  double hbm_bytes_per_s = 0;
  double link_bytes_per_s = 0;  // what all remote tiers share, by SM reads
  double copy_engine_bytes_per_s = 0;
  double flops_per_s = 0;
  uint64_t round_trip_ns = 0;
  uint64_t knee_bytes = 0;
  uint64_t cliff_bytes = 0;
  std::vector<RemoteTier> remote_tiers;  // at least one; in order of preference among equals
};

struct Operation {
  std::string name;
  uint64_t bytes = 0;
  double flops = 0;
  double min_ratio = 0;
  double max_ratio = 1;
};

struct Pass {
  uint64_t session_id = 0;
  double weight = 1;              // of the session's time in the sum
  uint64_t hbm_budget_bytes = 0;  // what of the pass's bytes may stay in HBM
  std::vector<Operation> operations;
};

struct OperationPlan {
  double ratio = 0;                 // remote share in all
  std::vector<double> tier_ratios;  // by remote tier, sums to `ratio`
  double predicted_s = 0;
};

struct PassPlan {
  uint64_t session_id = 0;
  std::vector<OperationPlan> operations;
  double predicted_s = 0;
  double uniform_s = 0;  // the same budget, one ratio for all (clipped to each operation's bounds)
  double all_hbm_s = 0;
  uint64_t remote_bytes = 0;
};

// The model's time of one operation.
double OperationSeconds(const Profile& profile, const Operation& operation, absl::Span<const double> tier_ratios);

// One pass.
absl::StatusOr<PassPlan> Plan(const Profile& profile, const Pass& pass);
// All sessions at once: they also share the remote tiers' capacity, and each sees the link's rate scaled by its
// weight's share. Plans are in the order of `passes`.
absl::StatusOr<std::vector<PassPlan>> PlanAll(const Profile& profile, absl::Span<const Pass> passes);

// Ratios to whole tiles: remote rows of each operation's matrix (`rows` of them, in tiles of `tile_rows`), such that
// no more bytes stay in HBM than the budget allows, and the fewest more than the plan are remote.
struct RowSplit {
  uint64_t rows = 0;
  uint64_t tile_rows = 64;
  uint64_t row_bytes = 0;
};
absl::StatusOr<std::vector<uint64_t>> RoundToTiles(const PassPlan& plan, absl::Span<const RowSplit> splits,
                                                   uint64_t hbm_budget_bytes);

// Defaults: an H100 on PCIe 5 and a GH200 on NVLink-C2C, for planning where no such machine is ("h100-pcie", "gh200");
// NOT_FOUND lists the names.
absl::StatusOr<Profile> NamedProfile(const std::string& name);

}  // namespace dak::planner

#endif  // DAK_DAEMON_PLANNER_PLANNER_H_

// Which share of each operation's bytes is remote: the exact greedy of docs/planner.md.
//
// Operation i reads C_i bytes a pass, occupies S_i bytes, and needs F_i floating-point operations. With share x_k of
// its rows on remote tier k and x = sum of x_k, it takes
//     t_i = o + max( F_i / P,  C_i (1 - x) / H,  r + C_i x_k / (e B_k) for every tier k,  r + C_i x / (e B_link) )
// (where a tier has a link of its own, B_k is that link's and B_link the sum over all links: see docs/planner.md),
// where P, H, e and the times o and r depend on its batch, if the profile has such rates (BatchRate). r is the start of
// remote reads, as far as it isn't hidden in what the operation takes with nothing remote.
// Plan() minimises the sum of weight * t_i over all operations of all sessions, subject to lo_i <= x_i <= hi_i, each
// session's HBM budget, the HBM that all share, and each remote tier's capacity. Less than the budget is used where an
// operation gets faster by reading part of its bytes remotely.
//
// Every t_i is convex and piecewise linear, so taking segments in order of slope is exact while no tier is full. A tier
// that is full gets a price per byte, found by an exact search on the dual function; the plan is then a mixture of the
// greedy plans on both sides of that price. docs/planner.md proves both.
//
// Cost: linear in the operations (selection, not sorting); with c tiers that are full, some ten times that per such
// tier, multiplied up.
// Units: bytes, seconds, bytes per second. Thread safety: pure functions. Errors: INVALID_ARGUMENT names the field
// ("operations[3].bytes"; in PlanAll "passes[1].operations[3].bytes"); RESOURCE_EXHAUSTED with the shortfall where
// nothing fits even at the highest ratios.
// Source: arXiv 2604.26074, the section on greedy offload ratios; the model of several tiers and sessions is dak's own.
#ifndef DAK_DAEMON_PLANNER_PLANNER_H_
#define DAK_DAEMON_PLANNER_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace dak::planner {

inline constexpr uint64_t kUnlimitedBytes = std::numeric_limits<uint64_t>::max();
inline constexpr size_t kMaxRemoteTiers = 4;
inline constexpr uint64_t kMaxOperationBytes = uint64_t{1} << 50;
inline constexpr uint64_t kMaxTotalBytes = uint64_t{1} << 53;  // stored by all operations of all passes together

// A remote tier as the model sees it.
struct RemoteTier {
  std::string name = "host";
  double bytes_per_s = 0;  // its own rate; 0: only the shared link limits it
  uint64_t capacity_bytes = kUnlimitedBytes;
  uint64_t round_trip_ns = 0;  // this and the next two: 0: the shared link's; the planner itself doesn't use them
  uint64_t knee_bytes = 0;
  uint64_t cliff_bytes = 0;
  // It is read over a link of its own, of bytes_per_s (above 0), and not over the shared one. At most one other tier
  // then uses that.
  bool own_link = false;
};

// What the matrix products' kernels reach at one batch, and what each operation takes beside.
struct BatchRate {
  uint64_t batch = 0;
  double hbm_bytes_per_s = 0;   // H
  double flops_per_s = 0;       // P
  double operation_s = 0;       // o: its start and its end
  double link_bytes_per_s = 0;  // of the whole link; over the profile's it is e; 0: the profile's
  double remote_s = 0;          // r
};
inline constexpr size_t kMaxBatchRates = 64;

struct Profile {
  double hbm_bytes_per_s = 0;
  double link_bytes_per_s = 0;          // what remote tiers without a link of their own share, by SM reads
  double copy_engine_bytes_per_s = 0;   // to HBM; 0: unknown; the planner itself doesn't use it
  double copy_to_host_bytes_per_s = 0;  // the same
  double flops_per_s = 0;
  uint64_t round_trip_ns = 0;  // this and the next two: 0 if unknown; the planner itself doesn't use them
  uint64_t knee_bytes = 0;
  uint64_t cliff_bytes = 0;
  std::vector<RemoteTier> remote_tiers;  // 1 to kMaxRemoteTiers; in order of preference among equals
  // By ascending batch. An operation has those of the next batch up (kernels pad to it), past the last the last's.
  std::vector<BatchRate> batch_rates;  // may be empty: the rates above at every batch
};

struct Operation {
  std::string name;
  uint64_t bytes = 0;         // read in one pass; at most kMaxOperationBytes
  uint64_t stored_bytes = 0;  // occupied, hence what budgets count; 0: as many as are read. They differ where a pass
                              // reads only some of what is stored (embeddings, experts) or reads it several times.
  double flops = 0;
  double min_ratio = 0;  // 0 <= min <= max <= 1
  double max_ratio = 1;
  uint64_t batch = 0;  // of a matrix product; 0: none, or unknown: the profile's plain rates
};

struct Pass {
  uint64_t session_id = 0;
  double weight = 1;              // of the session's time in the sum; above 0, at most 1e6
  uint64_t hbm_budget_bytes = 0;  // what of the pass's stored bytes may stay in HBM
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
  double uniform_s = 0;  // within the same limits, one ratio for all (clipped to each operation's bounds), the smallest
  double all_hbm_s = 0;  // if nothing had to be remote
  uint64_t remote_bytes = 0;  // stored remotely, rounded to whole bytes
};

// The rates that an operation of this batch has, and its own time.
BatchRate RateAt(const Profile& profile, uint64_t batch);

// The model's time of one operation, with the profile's rates. `tier_ratios` is by remote tier; missing ones are 0.
double OperationSeconds(const Profile& profile, const Operation& operation, absl::Span<const double> tier_ratios);

// The shares of an operation's tiers with `ratio` of it remote: in the plan's proportion; the first tier's alone where
// the plan has nothing remote.
std::vector<double> TierRatiosAt(const OperationPlan& operation, double ratio);

// What a session sees of `profile` when it has `share` (0 to 1) of what sessions compete for on the way to the remote
// tiers: the link's rate and each tier's own rate are scaled, everything else is unchanged.
Profile ScaledToShare(const Profile& profile, double share);

// One pass.
absl::StatusOr<PassPlan> Plan(const Profile& profile, const Pass& pass);

// All sessions at once. Each sees ScaledToShare(profile, its weight / sum of weights); they share the remote tiers'
// capacities and `hbm_capacity_bytes`, which bounds what all of them keep in HBM together, beside each one's own
// budget. Plans are in the order of `passes`. The weighted sum of predicted_s is never above that of uniform_s; where
// sessions compete for HBM or for a tier, one of them alone may be slower than its own uniform_s, for the others' good.
absl::StatusOr<std::vector<PassPlan>> PlanAll(const Profile& profile, absl::Span<const Pass> passes,
                                              uint64_t hbm_capacity_bytes = kUnlimitedBytes);

// Ratios to whole tiles. A matrix's HBM part is its first rows; the remote part is its last rows, a whole number of
// tiles of `tile_rows`, or all rows. Returns the remote rows of each operation, such that
//   * at most `hbm_budget_bytes` of all matrices' bytes stay in HBM, and no fewer are remote than the plan says;
//   * every operation is less than one tile away from its ratio;
//   * in all, less than one tile (the smallest that was rounded up) is remote beyond that; the very fewest bytes where
//     the matrices have few distinct tile sizes, as those of a model have.
// Errors: INVALID_ARGUMENT names "splits[i].field"; RESOURCE_EXHAUSTED, with the shortfall, if all of the plan's
// operations rounded up leave more in HBM than the budget (the plan was made for a larger one).
struct RowSplit {
  uint64_t rows = 0;  // 0: nothing to split
  uint64_t tile_rows = 64;
  uint64_t row_bytes = 0;
};
absl::StatusOr<std::vector<uint64_t>> RoundToTiles(const PassPlan& plan, absl::Span<const RowSplit> splits,
                                                   uint64_t hbm_budget_bytes);

// The same by time: all are rounded down, then tiles are added one by one where the model says that a byte costs the
// least, several to one operation if so, until it is at its max_ratio. A plan has most operations where another byte
// begins to cost more, so one that is rounded up there costs a tile's time, and one that is rounded down gains none.
// For tiles of one size the time is the least of all choices that round no operation down further. At least as many
// bytes are remote as above, and less than one tile more than needed. `pass` is what `plan` was made for; one entry an
// operation.
absl::StatusOr<std::vector<uint64_t>> RoundToFastestTiles(const Profile& profile, const Pass& pass,
                                                          const PassPlan& plan, absl::Span<const RowSplit> splits,
                                                          uint64_t hbm_budget_bytes);

// Machines to plan for where none is at hand. "h100-pcie": an H100 on PCIe 5 as measured (docs/planner.md). "gh200": a
// GH200 96 GB on NVLink-C2C by its public datasheet, not measured: what a datasheet doesn't say is 0.
// NOT_FOUND lists the names.
absl::StatusOr<Profile> NamedProfile(const std::string& name);

}  // namespace dak::planner

#endif  // DAK_DAEMON_PLANNER_PLANNER_H_

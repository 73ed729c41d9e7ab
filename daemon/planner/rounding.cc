#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/planner/planner.h"

namespace dak::planner {
namespace {

constexpr double kRounding = 1e-12;             // of an operation's rows: the plan's own roundings
constexpr uint64_t kMaxCombinations = 1 << 18;  // of counts by tile size, tried for the fewest bytes

// A matrix whose ratio lies between two whole tiles.
struct Candidate {
  size_t index = 0;
  uint64_t rows_up = 0;  // added by rounding up
  uint64_t bytes_up = 0;
  double wanted = 0;  // the share of them that the plan asks for
};

// Candidates with equal bytes_up, those closest to rounding up anyway first; the first `chosen` are rounded up.
struct SizeGroup {
  uint64_t bytes_up = 0;
  std::vector<Candidate> candidates;
  size_t chosen = 0;
};

absl::Status CheckSplit(const RowSplit& split, size_t index) {
  const std::string name = absl::StrCat("splits[", index, "].");
  if (split.rows == 0) return absl::OkStatus();
  if (split.tile_rows == 0) return InvalidField(name + "tile_rows", "0 is out of range", "at least 1");
  if (split.row_bytes == 0) return InvalidField(name + "row_bytes", "0 is out of range", "at least 1");
  if (split.rows > kMaxOperationBytes / split.row_bytes) {
    return InvalidField(name + "rows", absl::StrCat(split.rows, " rows of ", split.row_bytes, " bytes"),
                        absl::StrCat("at most ", kMaxOperationBytes, " bytes"));
  }
  return absl::OkStatus();
}

struct RoundedDown {
  std::vector<uint64_t> rows;
  std::vector<Candidate> candidates;
  uint64_t total_bytes = 0;
  uint64_t remote_bytes = 0;
  uint64_t needed_bytes = 0;  // what must be remote beyond remote_bytes, by the plan and the budget
};

absl::StatusOr<RoundedDown> RoundDown(const PassPlan& plan, absl::Span<const RowSplit> splits,
                                      uint64_t hbm_budget_bytes) {
  if (splits.size() != plan.operations.size()) {
    return InvalidField("splits", absl::StrCat(splits.size(), " entries"),
                        absl::StrCat("one an operation: ", plan.operations.size()));
  }
  RoundedDown down;
  double missing_bytes = 0;  // what the plan has remote beyond remote_bytes
  for (size_t i = 0; i < splits.size(); ++i) {
    const RowSplit& split = splits[i];
    DAK_RETURN_IF_ERROR(CheckSplit(split, i));
    down.total_bytes += split.rows * split.row_bytes;
    if (down.total_bytes > kMaxTotalBytes) {
      return InvalidField("splits", "too many bytes", absl::StrCat("at most ", kMaxTotalBytes));
    }
    const double rows = static_cast<double>(split.rows);
    const double wanted = std::clamp(plan.operations[i].ratio, 0.0, 1.0) * rows;
    const double slack = kRounding * rows;
    uint64_t whole = split.rows;
    if (wanted < rows - slack) {
      whole = static_cast<uint64_t>((wanted + slack) / static_cast<double>(split.tile_rows)) * split.tile_rows;
    }
    const double missing = wanted - static_cast<double>(whole);
    if (missing > slack) {
      const uint64_t up = std::min(split.tile_rows, split.rows - whole);
      down.candidates.push_back({i, up, up * split.row_bytes, missing / static_cast<double>(up)});
      missing_bytes += missing * static_cast<double>(split.row_bytes);
    }
    down.rows.push_back(whole);
    down.remote_bytes += whole * split.row_bytes;
  }
  uint64_t needed = down.remote_bytes + static_cast<uint64_t>(missing_bytes);
  if (down.total_bytes > hbm_budget_bytes) needed = std::max(needed, down.total_bytes - hbm_budget_bytes);
  down.needed_bytes = needed - down.remote_bytes;
  return down;
}

std::vector<SizeGroup> GroupBySize(const std::vector<Candidate>& candidates) {
  std::map<uint64_t, SizeGroup> by_size;
  for (const Candidate& candidate : candidates) {
    SizeGroup& group = by_size[candidate.bytes_up];
    group.bytes_up = candidate.bytes_up;
    group.candidates.push_back(candidate);
  }
  std::vector<SizeGroup> groups;
  for (auto& [bytes_up, group] : by_size) {
    std::stable_sort(group.candidates.begin(), group.candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.wanted > b.wanted; });
    groups.push_back(std::move(group));
  }
  return groups;
}

// Tries every count of all groups but the last, which takes what is left.
class FewestBytes {
 public:
  explicit FewestBytes(std::vector<SizeGroup>& groups) : groups_(groups), counts_(groups.size()) {}
  void Choose(uint64_t missing_bytes) {
    Try(0, missing_bytes, 0);
    for (size_t g = 0; g < groups_.size(); ++g) groups_[g].chosen = best_counts_[g];
  }

 private:
  void Try(size_t g, uint64_t missing, uint64_t taken) {
    const uint64_t size = groups_[g].bytes_up;
    const size_t enough = (missing + size - 1) / size;
    const size_t most = std::min(enough, groups_[g].candidates.size());
    if (g + 1 == groups_.size()) {
      if (enough > most || taken + most * size >= best_bytes_) return;
      counts_[g] = most;
      best_bytes_ = taken + most * size;
      best_counts_ = counts_;
      return;
    }
    for (counts_[g] = 0; counts_[g] <= most; ++counts_[g]) {
      const uint64_t bytes = counts_[g] * size;
      Try(g + 1, missing - std::min(missing, bytes), taken + bytes);
    }
  }

  std::vector<SizeGroup>& groups_;
  std::vector<size_t> counts_;
  std::vector<size_t> best_counts_;
  uint64_t best_bytes_ = kUnlimitedBytes;
};

// Rounds up from the largest tile on until enough, then takes back what proved too much: less than any tile that is
// still rounded up is left over.
void ChooseGreedily(std::vector<SizeGroup>& groups, uint64_t missing_bytes) {
  uint64_t taken = 0;
  for (size_t g = groups.size(); g-- > 0 && taken < missing_bytes;) {
    const uint64_t size = groups[g].bytes_up;
    groups[g].chosen = std::min<size_t>(groups[g].candidates.size(), (missing_bytes - taken + size - 1) / size);
    taken += groups[g].chosen * size;
  }
  for (size_t g = groups.size(); g-- > 0;) {
    const size_t back = std::min<size_t>(groups[g].chosen, (taken - missing_bytes) / groups[g].bytes_up);
    groups[g].chosen -= back;
    taken -= back * groups[g].bytes_up;
  }
}

bool FewCombinations(std::vector<SizeGroup>& groups) {
  std::stable_sort(groups.begin(), groups.end(),
                   [](const SizeGroup& a, const SizeGroup& b) { return a.candidates.size() < b.candidates.size(); });
  uint64_t combinations = 1;
  for (size_t g = 0; g + 1 < groups.size(); ++g) {
    combinations *= groups[g].candidates.size() + 1;
    if (combinations > kMaxCombinations) return false;
  }
  return true;
}

absl::Status TooSmall(const RoundedDown& down, uint64_t hbm_budget_bytes, uint64_t possible_bytes) {
  const std::string limit = absl::StrCat("at least ", down.total_bytes - down.remote_bytes - possible_bytes);
  return WithDetail(absl::ResourceExhaustedError(
                        absl::StrCat("hbm_budget_bytes: ", hbm_budget_bytes, " (", limit, " for this plan's ratios)")),
                    {.field = "hbm_budget_bytes",
                     .reason = "QUOTA_EXCEEDED",
                     .limit = limit,
                     .shortfall_bytes = down.needed_bytes - possible_bytes});
}

// An operation whose next tile may become remote, and what that costs.
struct NextTile {
  size_t index = 0;
  uint64_t rows = 0;
  uint64_t bytes = 0;
  double seconds_per_byte = 0;

  bool operator<(const NextTile& other) const {  // of a heap whose top is the cheapest
    return seconds_per_byte != other.seconds_per_byte ? seconds_per_byte > other.seconds_per_byte : index > other.index;
  }
};

// The operations of a pass with whole tiles remote, and what their next ones cost by the model.
class Tiles {
 public:
  Tiles(const Profile& profile, const Pass& pass, const PassPlan& plan, absl::Span<const RowSplit> splits)
      : profile_(profile), pass_(pass), plan_(plan), splits_(splits) {}

  // None where the operation's ratio mustn't grow.
  std::optional<NextTile> After(size_t index, uint64_t remote_rows) const {
    const RowSplit& split = splits_[index];
    const double rows = static_cast<double>(split.rows);
    if (static_cast<double>(remote_rows) >= pass_.operations[index].max_ratio * rows - kRounding * rows) return {};
    NextTile next{.index = index, .rows = std::min(split.tile_rows, split.rows - remote_rows)};
    next.bytes = next.rows * split.row_bytes;
    next.seconds_per_byte =
        (Seconds(index, remote_rows + next.rows) - Seconds(index, remote_rows)) / static_cast<double>(next.bytes);
    return next;
  }

 private:
  double Seconds(size_t index, uint64_t remote_rows) const {
    const double ratio = static_cast<double>(remote_rows) / static_cast<double>(splits_[index].rows);
    return OperationSeconds(profile_, pass_.operations[index], TierRatiosAt(plan_.operations[index], ratio));
  }

  const Profile& profile_;
  const Pass& pass_;
  const PassPlan& plan_;
  absl::Span<const RowSplit> splits_;
};

}  // namespace

std::vector<double> TierRatiosAt(const OperationPlan& operation, double ratio) {
  if (operation.ratio <= 0 || operation.tier_ratios.empty()) return {ratio};
  std::vector<double> tier_ratios = operation.tier_ratios;
  for (double& tier_ratio : tier_ratios) tier_ratio *= ratio / operation.ratio;
  return tier_ratios;
}

absl::StatusOr<std::vector<uint64_t>> RoundToTiles(const PassPlan& plan, absl::Span<const RowSplit> splits,
                                                   uint64_t hbm_budget_bytes) {
  DAK_ASSIGN_OR_RETURN(RoundedDown down, RoundDown(plan, splits, hbm_budget_bytes));
  if (down.needed_bytes == 0) return std::move(down.rows);
  uint64_t possible = 0;
  for (const Candidate& candidate : down.candidates) possible += candidate.bytes_up;
  if (possible < down.needed_bytes) return TooSmall(down, hbm_budget_bytes, possible);
  std::vector<SizeGroup> groups = GroupBySize(down.candidates);
  ChooseGreedily(groups, down.needed_bytes);
  if (FewCombinations(groups)) FewestBytes(groups).Choose(down.needed_bytes);
  for (const SizeGroup& group : groups) {
    for (size_t c = 0; c < group.chosen; ++c) down.rows[group.candidates[c].index] += group.candidates[c].rows_up;
  }
  return std::move(down.rows);
}

absl::StatusOr<std::vector<uint64_t>> RoundToFastestTiles(const Profile& profile, const Pass& pass,
                                                          const PassPlan& plan, absl::Span<const RowSplit> splits,
                                                          uint64_t hbm_budget_bytes) {
  if (pass.operations.size() != plan.operations.size()) {
    return InvalidField("pass.operations", absl::StrCat(pass.operations.size(), " entries"),
                        absl::StrCat("as the plan: ", plan.operations.size()));
  }
  DAK_ASSIGN_OR_RETURN(RoundedDown down, RoundDown(plan, splits, hbm_budget_bytes));
  const Tiles tiles(profile, pass, plan, splits);
  std::priority_queue<NextTile> cheapest;
  for (size_t i = 0; down.needed_bytes > 0 && i < splits.size(); ++i) {
    if (const auto next = tiles.After(i, down.rows[i])) cheapest.push(*next);
  }
  std::vector<NextTile> taken;
  uint64_t taken_bytes = 0;
  while (taken_bytes < down.needed_bytes) {
    if (cheapest.empty()) return TooSmall(down, hbm_budget_bytes, taken_bytes);
    const NextTile next = cheapest.top();
    cheapest.pop();
    down.rows[next.index] += next.rows;
    taken_bytes += next.bytes;
    taken.push_back(next);
    if (const auto after = tiles.After(next.index, down.rows[next.index])) cheapest.push(*after);
  }
  // The last one may be a large one where a small one before it wasn't needed then. Back go the dearest first, of one
  // operation the last first.
  for (auto tile = taken.rbegin(); tile != taken.rend(); ++tile) {
    if (tile->bytes > taken_bytes - down.needed_bytes) continue;
    down.rows[tile->index] -= tile->rows;
    taken_bytes -= tile->bytes;
  }
  return std::move(down.rows);
}

}  // namespace dak::planner

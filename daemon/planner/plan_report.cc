#include "daemon/planner/plan_report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/planner/size_text.h"

namespace dak::planner {
namespace {

PrefetchEstimate EstimatePrefetch(const PlanQuestion& question, const DecodePass& pass, const PlanReport& report) {
  PrefetchEstimate prefetch;
  prefetch.known = question.profile.copy_engine_bytes_per_s > 0;
  prefetch.pass_s = report.all_hbm_s;
  if (!prefetch.known || report.over_hbm_bytes == 0) return prefetch;
  const uint64_t layers = question.config.layers;
  const uint64_t layer = pass.layer_weight_bytes;
  prefetch.buffer_bytes = std::min<uint64_t>(2, layers) * layer;
  const uint64_t to_offload = report.over_hbm_bytes + prefetch.buffer_bytes;
  prefetch.layers_offloaded = std::min(layers, (to_offload + layer - 1) / layer);
  prefetch.remote_bytes = prefetch.layers_offloaded * layer;
  if (prefetch.remote_bytes < to_offload) prefetch.shortfall_bytes = to_offload - prefetch.remote_bytes;
  prefetch.pass_s =
      std::max(report.all_hbm_s, static_cast<double>(prefetch.remote_bytes) / question.profile.copy_engine_bytes_per_s);
  return prefetch;
}

bool SameGroup(const OperationGroup& group, const ModelOperation& operation, double group_ratio, double ratio) {
  const bool follows =
      operation.layer == kNoLayer ? group.last_layer == kNoLayer : operation.layer == group.last_layer + 1;
  if (group.kind != operation.kind || !follows) return false;
  const double tile = static_cast<double>(operation.split.tile_rows) / static_cast<double>(operation.split.rows);
  return std::abs(group_ratio - ratio) <= tile * 1.001;
}

// By kind in order of first appearance, then by layer.
class GroupMaker {
 public:
  void Add(const ModelOperation& operation, uint64_t remote_rows, double seconds, double hbm_seconds) {
    const double ratio = static_cast<double>(remote_rows) / static_cast<double>(operation.split.rows);
    auto position = groups_.end();
    for (auto it = groups_.begin(); it != groups_.end(); ++it) {
      if (it->kind == operation.kind) position = it;
    }
    const size_t index = position - groups_.begin();
    if (position == groups_.end() || !SameGroup(*position, operation, first_ratio_[index], ratio)) {
      const size_t at = position == groups_.end() ? groups_.size() : index + 1;
      OperationGroup fresh;
      fresh.kind = operation.kind;
      fresh.first_layer = operation.layer;
      position = groups_.insert(groups_.begin() + at, fresh);
      first_ratio_.insert(first_ratio_.begin() + at, ratio);
    }
    position->last_layer = operation.layer;
    position->operations += 1;
    position->stored_bytes += operation.split.rows * operation.split.row_bytes;
    position->remote_bytes += remote_rows * operation.split.row_bytes;
    position->seconds += seconds;
    position->hbm_seconds += hbm_seconds;
  }
  std::vector<OperationGroup> Take() { return std::move(groups_); }

 private:
  std::vector<OperationGroup> groups_;
  std::vector<double> first_ratio_;
};

// The plan's numbers, in whole tiles: the tiers' shares of an operation change in proportion.
absl::Status FillFromPlan(const PlanQuestion& question, const DecodePass& pass, const Pass& planned,
                          const PassPlan& plan, PlanReport& report) {
  std::vector<RowSplit> splits;
  for (const ModelOperation& operation : pass.operations) splits.push_back(operation.split);
  DAK_ASSIGN_OR_RETURN(const std::vector<uint64_t> remote_rows,
                       RoundToFastestTiles(question.profile, planned, plan, splits, planned.hbm_budget_bytes));
  GroupMaker groups;
  for (size_t i = 0; i < pass.operations.size(); ++i) {
    const ModelOperation& operation = pass.operations[i];
    const double rounded = static_cast<double>(remote_rows[i]) / static_cast<double>(operation.split.rows);
    const double seconds =
        OperationSeconds(question.profile, operation.operation, TierRatiosAt(plan.operations[i], rounded));
    report.pass_s += seconds;
    report.remote_bytes += remote_rows[i] * operation.split.row_bytes;
    groups.Add(operation, remote_rows[i], seconds, OperationSeconds(question.profile, operation.operation, {}));
  }
  report.groups = groups.Take();
  report.uniform_s = plan.uniform_s;
  report.all_hbm_s = plan.all_hbm_s;
  report.prefetch = EstimatePrefetch(question, pass, report);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PlanReport> MakePlanReport(const PlanQuestion& question) {
  DAK_ASSIGN_OR_RETURN(const DecodePass pass, DescribeDecode(question.config, question.shape));
  PlanReport report;
  report.weight_bytes = pass.weight_bytes;
  report.kv_bytes = pass.kv_bytes;
  report.needed_bytes = pass.weight_bytes + pass.kv_bytes + question.reserve_bytes;
  if (report.needed_bytes > question.hbm_bytes) report.over_hbm_bytes = report.needed_bytes - question.hbm_bytes;
  const uint64_t fixed = question.reserve_bytes + pass.fixed_bytes;
  if (fixed > question.hbm_bytes) {
    report.shortfall_bytes = fixed - question.hbm_bytes;
    report.does_not_fit = absl::StrCat("the reserve and what can't leave HBM take ", FormatSize(fixed), ", ",
                                       FormatSize(report.shortfall_bytes), " more than there is");
    return report;
  }
  Pass planned;
  planned.hbm_budget_bytes = question.hbm_bytes - fixed;
  for (const ModelOperation& operation : pass.operations) planned.operations.push_back(operation.operation);
  const absl::StatusOr<PassPlan> plan = Plan(question.profile, planned);
  if (plan.status().code() == absl::StatusCode::kResourceExhausted) {
    report.shortfall_bytes = DetailOf(plan.status()).shortfall_bytes;
    report.does_not_fit = absl::StrCat(FormatSize(report.over_hbm_bytes), " must be remote, ",
                                       FormatSize(report.shortfall_bytes), " more than the remote tiers take");
    return report;
  }
  if (!plan.ok()) return plan.status();
  DAK_RETURN_IF_ERROR(FillFromPlan(question, pass, planned, *plan, report));
  return report;
}

}  // namespace dak::planner

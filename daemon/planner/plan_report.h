// What `dakctl plan` finds out: whether a model fits, how dak would split it, and what else would take how long.
//
// All alternatives get the same HBM. Prefetch (whole layers copied ahead by the copy engine, as vLLM and Accelerate do)
// needs two layers' worth of buffers in it, so it must keep more on the host; nothing else is held against it: its
// copies are taken as free of cost to HBM and always hidden behind one another.
//
// Thread safety: pure functions. Errors: as Plan's and DescribeDecode's.
#ifndef DAK_DAEMON_PLANNER_PLAN_REPORT_H_
#define DAK_DAEMON_PLANNER_PLAN_REPORT_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/planner/decode_pass.h"
#include "daemon/planner/model_config.h"
#include "daemon/planner/planner.h"

namespace dak::planner {

struct PlanQuestion {
  ModelConfig config;
  DecodeShape shape;
  Profile profile;
  std::string profile_name;
  uint64_t hbm_bytes = 0;
  uint64_t reserve_bytes = 0;  // of it, for activations and the CUDA context
};

struct PrefetchEstimate {
  bool known = false;  // false: the profile has no copy-engine rate
  uint64_t layers_offloaded = 0;
  uint64_t buffer_bytes = 0;
  uint64_t remote_bytes = 0;
  uint64_t shortfall_bytes = 0;  // above 0: doesn't fit even with all layers offloaded
  double pass_s = 0;
};

// Consecutive layers of one kind whose ratios are at most a tile apart.
struct OperationGroup {
  OperationKind kind = OperationKind::kQkv;
  uint64_t first_layer = kNoLayer;
  uint64_t last_layer = kNoLayer;
  uint64_t operations = 0;
  uint64_t stored_bytes = 0;
  uint64_t remote_bytes = 0;
  double seconds = 0;
  double hbm_seconds = 0;  // had it been all in HBM
};

struct PlanReport {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t needed_bytes = 0;    // weights, KV cache and reserve
  uint64_t over_hbm_bytes = 0;  // 0: everything fits in HBM
  std::string does_not_fit;     // not empty: no plan exists, and why; nothing below is set
  uint64_t shortfall_bytes = 0;
  std::vector<OperationGroup> groups;
  uint64_t remote_bytes = 0;  // in whole tiles
  double pass_s = 0;          // of the plan in whole tiles
  double uniform_s = 0;
  double all_hbm_s = 0;
  PrefetchEstimate prefetch;
};

absl::StatusOr<PlanReport> MakePlanReport(const PlanQuestion& question);

void WriteReportText(const PlanQuestion& question, const PlanReport& report, std::ostream& out);
// One object; sizes in bytes, times in seconds.
void WriteReportJson(const PlanQuestion& question, const PlanReport& report, std::ostream& out);

}  // namespace dak::planner

#endif  // DAK_DAEMON_PLANNER_PLAN_REPORT_H_

// What a launch hands to the attention kernels.
#ifndef DAK_KERNELS_ATTENTION_PARAMS_CUH_
#define DAK_KERNELS_ATTENTION_PARAMS_CUH_

#include <type_traits>

#include "kernels/attention_launch.h"

namespace dak::kernels {

// decode_remote.cuh uses the names that DecodeParams has too.
struct AttentionParams {
  CUtensorMap local_map;
  CUtensorMap remote_map;
  const uint16_t* q;
  uint16_t* out;
  const int32_t* block_table;
  const int32_t* lengths;
  const int32_t* remote_counts;
  uint32_t batch;
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t group;
  uint32_t page_shift;  // a page holds 1 << page_shift tokens
  uint32_t max_pages;
  float scale;  // of scores, to base 2
  AttentionPlan plan;
  const v1::LinkControl* control;
  v1::LinkReport* report;
  AttentionWorkspace workspace;
  float ns_per_clock;
  uint32_t context_ready;
};

// False if no kernel runs this launch.
inline bool MakeParams(const AttentionLaunch& launch, AttentionParams& params) {
  params.local_map = launch.local_map;
  params.remote_map = launch.remote_map;
  params.q = static_cast<const uint16_t*>(launch.q);
  params.out = static_cast<uint16_t*>(launch.out);
  params.block_table = launch.block_table;
  params.lengths = launch.lengths;
  params.remote_counts = launch.remote_counts;
  params.batch = launch.batch;
  params.heads = launch.heads;
  params.kv_heads = launch.kv_heads;
  params.group = launch.heads / launch.kv_heads;
  while (1u << params.page_shift < launch.page_tokens) ++params.page_shift;
  params.max_pages = launch.max_pages;
  constexpr float kLog2E = 1.4426950408889634f;
  params.scale = launch.scale * kLog2E;
  params.plan = launch.plan;
  params.control = launch.control;
  params.report = launch.report;
  params.workspace = launch.workspace;
  params.ns_per_clock = launch.ns_per_clock;
  params.context_ready = launch.context_ready ? 1 : 0;
  const AttentionPlan& plan = launch.plan;
  return 1u << params.page_shift == launch.page_tokens && launch.page_tokens >= kBlockTokens &&
         launch.batch <= kMaxAttentionBatch && params.group <= kMaxGroup && plan.full_remote_ctas > 0 &&
         plan.full_remote_ctas < plan.ctas && plan.full_remote_ctas <= kMaxRemoteCtas && plan.inflight_blocks > 0;
}

// Calls `visit` with the Traits<head_dim, f16> of an instance, if there is one.
template <template <int, bool> class Traits, class Visitor>
void ForHeadDim(uint32_t head_dim, bool f16, const Visitor& visit) {
  const auto try_one = [&](auto dim) {
    if (head_dim != uint32_t{dim()}) return;
    if (f16) {
      visit(Traits<dim(), true>());
    } else {
      visit(Traits<dim(), false>());
    }
  };
  try_one(std::integral_constant<int, 64>());
  try_one(std::integral_constant<int, 80>());
  try_one(std::integral_constant<int, 96>());
  try_one(std::integral_constant<int, 128>());
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_ATTENTION_PARAMS_CUH_

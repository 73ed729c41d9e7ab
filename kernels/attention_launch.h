// Decode attention's CUDA side, in CUDA's own types: attention_runner.cc wraps it, the bench times it.
//
// Thread safety: LaunchAttention may be called from any thread; launches that share counters and workspace must be
// ordered among themselves on the device. Errors are CUDA's.
#ifndef DAK_KERNELS_ATTENTION_LAUNCH_H_
#define DAK_KERNELS_ATTENTION_LAUNCH_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "dak/v1/control_page.h"
#include "kernels/attention_plan.h"
#include "kernels/gemm_launch.h"

namespace dak::kernels {

// Scratch memory in HBM. Launches leave it as they found it.
struct AttentionWorkspace {
  LinkCounters* link = nullptr;  // zeroed once
  float* outputs = nullptr;      // [AttentionRows, head_dim]: pieces, not yet divided by their sums
  float2* statistics = nullptr;  // [AttentionRows]: largest score (base 2) and sum
  uint32_t* arrivals = nullptr;  // [batch x kv_heads], zeroed once: pieces of a task that are done
};

// Query heads in all pieces that a launch may leave: a task has at most one piece more than CTA borders inside it, in
// each tier.
constexpr size_t AttentionRows(uint32_t batch, uint32_t heads, uint32_t ctas) {
  return size_t{2} * batch * heads + size_t{ctas} * kMaxGroup;
}

struct AttentionLaunch {
  uint32_t batch = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t page_tokens = 0;
  uint32_t max_pages = 0;
  bool f16 = false;  // else bf16
  float scale = 0;
  CUtensorMap local_map{};  // EncodePages; ignored where no page is of that tier
  CUtensorMap remote_map{};
  const void* q = nullptr;
  void* out = nullptr;
  const int32_t* block_table = nullptr;
  const int32_t* lengths = nullptr;
  const int32_t* remote_counts = nullptr;    // or null: no page is remote
  const v1::LinkControl* control = nullptr;  // device addresses, or null
  v1::LinkReport* report = nullptr;
  AttentionWorkspace workspace;
  AttentionPlan plan;
  bool context_ready = false;  // AttentionOperands
  float ns_per_clock = 0.55f;  // of the SMs' clock, until the kernel has measured it
};

// Sets the kernels' attributes on the current device. Call once.
cudaError_t PrepareAttention();

cudaError_t LaunchAttention(const AttentionLaunch& launch, cudaStream_t stream);

struct PoolLayout {
  bool f16 = false;
  uint64_t pages = 0;
  uint32_t kv_heads = 0;
  uint32_t page_tokens = 0;
  uint32_t head_dim = 0;
};

// Encodes a pool, [pages, kv_heads, 2, page_tokens, head_dim], to be read a block at a time.
cudaError_t EncodePages(CUtensorMap* map, const void* pool, const PoolLayout& layout, CUtensorMapL2promotion promotion);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_ATTENTION_LAUNCH_H_

// How a decode attention is cut into work, and how many CTAs each tier gets: a model, not constants tuned for a shape.
//
// Work is counted in *blocks*: kBlockTokens tokens of one sequence's context for one KV head, keys and values. Blocks
// of a tier are numbered sequence by sequence, head by head; the CTAs of a *kind* (local or remote) get equal,
// contiguous ranges of their tier's blocks (stream-K), so that every SM is busy whatever the lengths are. The context
// of one head that several CTAs share is a *task* of several *pieces*, merged by the last CTA that ends one.
//
// Lengths are known only on the device and change with every step, so the host plans what depends on the device and
// the shape (PlanAttention), and the kernel divides the CTAs when it has read the lengths (DivideCtas).
//
// Pure functions on values, for host and device. Units in names.
#ifndef DAK_KERNELS_ATTENTION_PLAN_H_
#define DAK_KERNELS_ATTENTION_PLAN_H_

#include <cstdint>

#include "kernels/gemm_plan.h"

#ifdef __CUDACC__
#define DAK_HOST_DEVICE __host__ __device__
#else
#define DAK_HOST_DEVICE
#endif

namespace dak::kernels {

inline constexpr uint32_t kBlockTokens = 16;
inline constexpr uint32_t kMaxAttentionBatch = 512;
inline constexpr uint32_t kMaxContextTokens = 131'072;
inline constexpr uint32_t kMaxGroup = 64;  // query heads that share a KV head

// Keys and values of a block: one read.
constexpr uint32_t BlockBytes(uint32_t head_dim) { return kBlockTokens * head_dim * 2 * 2; }

// Stages of a ring whose blocks `takers` warps take in turn, where `fit` have room: a multiple of the warps, so that a
// stage's blocks are always the same warp's. A barrier's parity can't tell a phase from the last but one. With other
// numbers a warp whose block came early would ask for its next one's stage, where an earlier block is still on its way
// to another warp, and be told that it is in.
constexpr uint32_t RingStages(uint32_t fit, uint32_t takers) { return fit / takers * takers; }

struct AttentionPlan {
  uint32_t ctas = 0;              // of a launch: one an SM
  uint32_t full_remote_ctas = 0;  // that fill the link
  // Time of a remote block by that of a local one, each tier read at its full rate.
  float remote_by_local_time = 0;
  // Blocks that a local CTA has in flight, with and without remote reads beside it.
  uint32_t mixed_inflight_blocks = 0;
  uint32_t local_inflight_blocks = 0;
};

AttentionPlan PlanAttention(uint32_t head_dim, const DeviceTraits& device, const LinkTraits& link);

struct CtaCounts {
  uint32_t remote = 0;  // the first ones; 0 only without remote blocks
  uint32_t local = 0;   // the next; 0 only without local blocks
};

// How a launch's CTAs are divided; `tasks` is at least 1. Every CTA comes to the same result.
DAK_HOST_DEVICE inline CtaCounts DivideCtas(const AttentionPlan& plan, uint32_t tasks, uint32_t local_blocks,
                                            uint32_t remote_blocks) {
  // Under this a CTA costs more than it brings: its start and its piece to merge. One block for each consumer warp.
  constexpr uint32_t kLeastBlocks = 4;
  constexpr uint32_t kLeastEvenPercent = 94;
  CtaCounts counts;
  if (remote_blocks > 0) {
    // The share of the link's rate that ends with the local side, with a quarter in reserve.
    const float by_local = 1.25f * static_cast<float>(remote_blocks) * plan.remote_by_local_time;
    const float share = by_local < static_cast<float>(local_blocks) ? by_local / static_cast<float>(local_blocks) : 1;
    const float wanted = static_cast<float>(plan.full_remote_ctas) * share;
    counts.remote = static_cast<uint32_t>(wanted);
    if (static_cast<float>(counts.remote) < wanted) ++counts.remote;
    if (counts.remote > remote_blocks / kLeastBlocks) counts.remote = remote_blocks / kLeastBlocks;
    if (counts.remote == 0) counts.remote = 1;
  }
  if (local_blocks > 0) {
    const uint32_t room = plan.ctas - counts.remote;
    const uint32_t wanted = local_blocks / kLeastBlocks;
    counts.local = wanted < 1 ? 1 : wanted < room ? wanted : room;
    // Where contexts are equally long, and the same number of CTAs for each task uses nearly all of them, every CTA has
    // one piece. Few CTAs less don't slow a stream of HBM.
    const uint32_t even = counts.local / tasks * tasks;
    if (even * 100 >= counts.local * kLeastEvenPercent) counts.local = even;
  }
  return counts;
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_ATTENTION_PLAN_H_

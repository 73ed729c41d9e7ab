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
#include "kernels/host_device.h"

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
  uint32_t inflight_blocks = 0;  // that a local CTA has in flight
  // Time that a CTA takes to start and end a piece by that of a local block at HBM's full rate. 0: as if it took none.
  float piece_by_local_time = 0;
};

AttentionPlan PlanAttention(uint32_t head_dim, const DeviceTraits& device, const LinkTraits& link);

// Blocks of a kind and the CTAs that share them. Divides 32-bit numbers where these are enough, which is nearly always:
// a division of 64 bits is a detour of hundreds of clocks, and every piece waits for some.
struct KindWork {
  uint32_t total = 0;
  uint32_t workers = 0;

  DAK_HOST_DEVICE uint32_t BeginOf(uint32_t worker) const { return Divide(uint64_t{total} * worker, workers); }
  DAK_HOST_DEVICE uint32_t OwnerOf(uint32_t block) const { return Divide((uint64_t{block} + 1) * workers - 1, total); }

 private:
  DAK_HOST_DEVICE static uint32_t Divide(uint64_t dividend, uint32_t divisor) {
    if (dividend >> 32 == 0) return static_cast<uint32_t>(dividend) / divisor;
    return static_cast<uint32_t>(dividend / divisor);
  }
};

struct CtaCounts {
  uint32_t remote = 0;  // the first ones; 0 only without remote blocks
  uint32_t local = 0;   // the next; 0 only without local blocks
};

// Under this a CTA costs more than it brings: its start and its piece to merge. One block for each consumer warp.
inline constexpr uint32_t kLeastBlocks = 4;

// CTAs for remote blocks, of which there are some.
DAK_HOST_DEVICE inline uint32_t RemoteCtas(const AttentionPlan& plan, uint32_t tasks, uint32_t local_blocks,
                                           uint32_t remote_blocks) {
  constexpr float kReserve = 1.25f;
  const auto round_up = [](float value) {
    const auto whole = static_cast<uint32_t>(value);
    return static_cast<float>(whole) < value ? whole + 1 : whole;
  };
  const auto local_time = static_cast<float>(local_blocks);
  const float remote_time = static_cast<float>(remote_blocks) * plan.remote_by_local_time;
  // The share of the link's rate that ends with the local side.
  const float share = kReserve * remote_time < local_time ? kReserve * remote_time / local_time : 1;
  uint32_t ctas = round_up(static_cast<float>(plan.full_remote_ctas) * share);
  if (ctas > remote_blocks / kLeastBlocks) ctas = remote_blocks / kLeastBlocks;
  if (ctas == 0) ctas = 1;
  // Few remote blocks of many tasks are many short pieces, which a CTA starts and ends one after another: so many CTAs
  // that this, too, ends with the rest. They share the same window.
  const uint32_t pieces = tasks < remote_blocks ? tasks : remote_blocks;
  const float time = local_time > remote_time ? local_time : remote_time;
  const float wanted = kReserve * static_cast<float>(pieces) * plan.piece_by_local_time / time;
  uint32_t most = pieces < kMaxRemoteCtas ? pieces : kMaxRemoteCtas;
  if (most > plan.ctas / 2) most = plan.ctas / 2;
  const uint32_t for_pieces = wanted < static_cast<float>(most) ? round_up(wanted) : most;
  return ctas > for_pieces ? ctas : for_pieces;
}

// How a launch's CTAs are divided; `tasks` is at least 1. Every CTA comes to the same result.
DAK_HOST_DEVICE inline CtaCounts DivideCtas(const AttentionPlan& plan, uint32_t tasks, uint32_t local_blocks,
                                            uint32_t remote_blocks) {
  constexpr uint32_t kLeastEvenPercent = 94;
  CtaCounts counts;
  if (remote_blocks > 0) counts.remote = RemoteCtas(plan, tasks, local_blocks, remote_blocks);
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

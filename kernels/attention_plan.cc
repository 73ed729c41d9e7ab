#include "kernels/attention_plan.h"

#include <algorithm>
#include <cmath>

namespace dak::kernels {
namespace {

// One remote CTA's share of the window: its producer gets through so many reads a second, whatever their size.
constexpr double kRemoteCtaInflightBlocks = 8;
// What an SM needs in flight to read HBM at its full rate, with remote reads beside it too.
// NOTE: more is slower on an H100: 8 contexts of 65,536 tokens took 725 us with 96 KiB and 712 with 64. Nor is it less
// that remote reads want beside them: at the best ratio, one such context took 97.1 us with 48 KiB and 95.4 with 64.
constexpr uint32_t kInflightBytes = 64 * 1024;
// Of a piece's start and end, not timed by itself: on an H100 at head_dim 128, launches whose 4 remote CTAs had 64
// pieces of 3 or 4 blocks each took 253 us longer than with 16.
constexpr double kPieceSeconds = 5.3e-6;

}  // namespace

AttentionPlan PlanAttention(uint32_t head_dim, const DeviceTraits& device, const LinkTraits& link) {
  const uint32_t block_bytes = BlockBytes(head_dim);
  AttentionPlan plan;
  plan.ctas = std::max(2u, device.multiprocessors);
  const double inflight_bytes = std::max(link.window_bytes, link.bytes_per_s * link.round_trip_s);
  const double full = std::ceil(inflight_bytes / (kRemoteCtaInflightBlocks * block_bytes));
  const uint32_t most = std::min(kMaxRemoteCtas, plan.ctas / 2);
  plan.full_remote_ctas = static_cast<uint32_t>(std::clamp<double>(full, 1, most));
  plan.remote_by_local_time = static_cast<float>(device.hbm_bytes_per_s / link.bytes_per_s);
  plan.inflight_blocks = kInflightBytes / block_bytes;
  plan.piece_by_local_time = static_cast<float>(kPieceSeconds * device.hbm_bytes_per_s / block_bytes);
  return plan;
}

}  // namespace dak::kernels

#include "kernels/gemm_plan.h"

#include <algorithm>
#include <cmath>

namespace dak::kernels {
namespace {

constexpr double kElementBytes = 2;
// One remote CTA's share of the window: enough boxes that the next is on its way while one is used.
constexpr double kRemoteCtaInflightBytes = 3.0 * kBoxBytes;
// Under this a CTA costs more than it brings: its start and its share of the sum at a tile's end.
constexpr uint64_t kLeastChunksPerCta = 4;
// Few CTAs less don't slow a stream of HBM.
constexpr double kLeastEvenShare = 0.94;

uint32_t RoundUp(uint64_t value, uint32_t multiple) {
  return static_cast<uint32_t>(DivideUp(value, multiple) * multiple);
}

uint32_t RoundDown(uint64_t value, uint32_t multiple) { return static_cast<uint32_t>(value / multiple * multiple); }

// The tile's height decides how often x is read from L2 (once per tile), its width is the batch.
void ChooseTile(uint32_t batch, GemmPlan& plan) {
  plan.batch_tile = 8;
  while (plan.batch_tile < batch) plan.batch_tile *= 2;
  plan.row_boxes = plan.batch_tile <= 16 ? 1 : 2;
  plan.cluster = plan.batch_tile <= 64 ? 1 : 2;
}

uint32_t CountRemoteCtas(uint64_t remote_bytes, uint64_t local_bytes, const DeviceTraits& device,
                         const LinkTraits& link) {
  const double local_s = static_cast<double>(local_bytes) / device.hbm_bytes_per_s;
  const double remote_s = static_cast<double>(remote_bytes) / link.bytes_per_s;
  const double inflight_bytes = std::max(link.window_bytes, link.bytes_per_s * link.round_trip_s);
  const double full = std::ceil(inflight_bytes / kRemoteCtaInflightBytes);
  // The share of the link's rate that ends with the local side, with a quarter in reserve.
  const double share = local_s > remote_s ? std::min(1.0, 1.25 * remote_s / local_s) : 1.0;
  return static_cast<uint32_t>(std::max(1.0, std::ceil(full * share)));
}

}  // namespace

GemmPlan PlanGemm(uint32_t batch, uint64_t n, uint64_t k, uint64_t local_rows, const DeviceTraits& device,
                  const LinkTraits& link) {
  GemmPlan plan;
  ChooseTile(batch, plan);
  const uint64_t remote_rows = n - local_rows;
  uint32_t ctas = device.multiprocessors;
  if (plan.cluster == 2) ctas = std::min(ctas, device.cluster2_ctas);
  if (plan.cluster == 4) ctas = std::min(ctas, device.cluster4_ctas);
  const uint64_t remote_chunks = RemoteChunks(remote_rows, k);
  if (remote_rows > 0) {
    const auto row_bytes = static_cast<uint64_t>(kElementBytes) * k;
    uint64_t wanted = CountRemoteCtas(remote_rows * row_bytes, local_rows * row_bytes, device, link);
    wanted = std::min<uint64_t>(wanted, std::min(kMaxRemoteCtas, std::max(1u, ctas / 2)));
    wanted = std::max<uint64_t>(1, std::min(wanted, remote_chunks / kLeastChunksPerCta));
    plan.remote_ctas = RoundUp(wanted, plan.cluster);
  }
  if (local_rows > 0) {
    const uint64_t chunks = LocalChunks(local_rows, k, plan);
    const uint64_t clusters = std::max<uint64_t>(1, chunks / kLeastChunksPerCta);
    const uint32_t room = ctas > plan.remote_ctas ? ctas - plan.remote_ctas : 0;
    const uint32_t free_ctas = std::max(plan.cluster, RoundDown(room, plan.cluster));
    plan.local_ctas = static_cast<uint32_t>(std::min<uint64_t>(free_ctas, clusters * plan.cluster));
    // Where the same number of CTAs for every tile uses nearly all of them, fewer shares have to be added up.
    const uint64_t tiles = DivideUp(local_rows, uint64_t{plan.cluster} * plan.row_boxes * kBoxRows);
    const uint64_t even = plan.local_ctas / plan.cluster / tiles * tiles * plan.cluster;
    if (static_cast<double>(even) >= kLeastEvenShare * plan.local_ctas) plan.local_ctas = static_cast<uint32_t>(even);
  }
  return plan;
}

}  // namespace dak::kernels

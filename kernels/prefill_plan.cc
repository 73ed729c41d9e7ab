#include "kernels/prefill_plan.h"

#include <algorithm>

namespace dak::kernels {
namespace {

uint32_t Narrow(uint64_t value) { return static_cast<uint32_t>(value); }

// More fetchers must gain so much by the model: SMs that they take are gone for sure, and the gain is an estimate.
constexpr double kLeastFetcherGain = 0.03;

// The first wave's tiles are all local where the others have room: then the link is ahead of the products from the
// first wave on, and its latency doesn't show.
uint32_t FirstRemoteTile(const PrefillLayout& layout, uint32_t wave_tiles) {
  const uint32_t needed = Narrow(DivideUp(layout.remote_boxes, layout.row_boxes));
  return std::min(wave_tiles < layout.tiles ? wave_tiles : 0, layout.tiles - needed);
}

// As many tiles as run at once, unless the ring would be too small for their chunks.
uint32_t GroupTiles(const PrefillLayout& layout, uint32_t wave_tiles) {
  const auto fits = [&](uint64_t tiles) {
    const uint64_t boxes = DivideUp(tiles * layout.remote_boxes, layout.tiles - layout.first_remote_tile);
    return boxes * layout.k_chunks <= kPrefillRingSlots;
  };
  uint32_t tiles = wave_tiles;
  while (tiles > 1 && !fits(tiles)) --tiles;
  return tiles;
}

double ProductSeconds(const PrefillPlan& plan, const DeviceTraits& device, const PrefillTraits& traits) {
  const PrefillLayout& layout = plan.layout;
  const double sms = std::max(1u, device.multiprocessors);
  const double flops = 2.0 * kPrefillBatchTile * layout.row_boxes * kBoxRows * kChunkColumns;
  const double bytes = kPrefillBatchTile * kChunkColumns * 2.0 + layout.row_boxes * double{kBoxBytes} / 2;
  const double chunk_s = std::max(flops / (traits.flops_per_s / sms), bytes / (traits.l2_bytes_per_s / sms));
  const auto waves = static_cast<double>(DivideUp(layout.Items(), plan.clusters));
  return waves * (layout.k_chunks * chunk_s + traits.tile_overhead_s);
}

double RemoteSeconds(const PrefillPlan& plan, const LinkTraits& link, const PrefillTraits& traits) {
  if (plan.fetchers == 0) return 0;
  const double bytes = static_cast<double>(plan.layout.RemoteChunks()) * kBoxBytes;
  return traits.fetch_latency_s + bytes / std::min(link.bytes_per_s, plan.fetchers * traits.fetcher_bytes_per_s);
}

PrefillPlan WithFetchers(PrefillPlan plan, uint32_t fetchers, const DeviceTraits& device) {
  PrefillLayout& layout = plan.layout;
  const uint32_t all = std::max(1u, device.multiprocessors / kPrefillClusterCtas);
  const uint32_t taken = fetchers / kPrefillClusterCtas;
  plan.fetchers = fetchers;
  plan.clusters = Narrow(std::clamp<uint64_t>(layout.Items(), 1, all > taken ? all - taken : 1));
  if (fetchers == 0) return plan;
  const uint32_t wave_tiles = std::max(1u, plan.clusters / layout.pairs);
  layout.first_remote_tile = FirstRemoteTile(layout, wave_tiles);
  layout.group_tiles = GroupTiles(layout, wave_tiles);
  return plan;
}

}  // namespace

double ModelPrefillSeconds(const PrefillPlan& plan, const DeviceTraits& device, const LinkTraits& link,
                           const PrefillTraits& traits) {
  return std::max(ProductSeconds(plan, device, traits), RemoteSeconds(plan, link, traits));
}

PrefillPlan PlanPrefillTile(uint32_t row_boxes, uint32_t batch, uint64_t n, uint64_t k, uint64_t local_rows,
                            const DeviceTraits& device, const LinkTraits& link, const PrefillTraits& traits) {
  PrefillPlan plan;
  PrefillLayout& layout = plan.layout;
  layout.row_boxes = row_boxes;
  layout.pairs = Narrow(DivideUp(batch, kPrefillPairBatch));
  layout.local_boxes = Narrow(DivideUp(local_rows, kBoxRows));
  layout.remote_boxes = Narrow(DivideUp(n - local_rows, kBoxRows));
  layout.k_chunks = Narrow(DivideUp(k, kChunkColumns));
  layout.tiles = Narrow(DivideUp(layout.local_boxes + layout.remote_boxes, row_boxes));
  plan.keep_x = static_cast<double>(batch) * static_cast<double>(k) * 2 <= traits.kept_bytes;
  if (layout.remote_boxes == 0) return WithFetchers(plan, 0, device);
  PrefillPlan best = WithFetchers(plan, kPrefillClusterCtas, device);
  const uint32_t allowed = std::min({traits.most_fetchers, kMaxPrefillFetchers, device.multiprocessors / 4});
  // All would take turns in a window of fewer boxes.
  const double most = std::min<double>(allowed, link.window_bytes / kBoxBytes);
  for (uint32_t fetchers = 2 * kPrefillClusterCtas; fetchers <= most; fetchers += kPrefillClusterCtas) {
    const PrefillPlan more = WithFetchers(plan, fetchers, device);
    const double most_s = ModelPrefillSeconds(best, device, link, traits) * (1 - kLeastFetcherGain);
    if (ModelPrefillSeconds(more, device, link, traits) < most_s) best = more;
  }
  return best;
}

PrefillPlan PlanPrefill(uint32_t batch, uint64_t n, uint64_t k, uint64_t local_rows, const DeviceTraits& device,
                        const LinkTraits& link, const PrefillTraits& traits) {
  const PrefillPlan narrow = PlanPrefillTile(2, batch, n, k, local_rows, device, link, traits);
  const bool wide_fits = local_rows == n || DivideUp(k, kChunkColumns) * 4 <= kPrefillRingSlots;
  if (!wide_fits) return narrow;
  const PrefillPlan wide = PlanPrefillTile(4, batch, n, k, local_rows, device, link, traits);
  const double wide_s = ModelPrefillSeconds(wide, device, link, traits);
  return wide_s <= ModelPrefillSeconds(narrow, device, link, traits) ? wide : narrow;
}

}  // namespace dak::kernels

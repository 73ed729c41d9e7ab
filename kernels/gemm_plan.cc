#include "kernels/gemm_plan.h"

#include <algorithm>
#include <cmath>

namespace dak::kernels {
namespace {

constexpr double kElementBytes = 2;
// One remote CTA's share of the window, in boxes.
// NOTE: one CTA's producer gets through about 18 GB/s, and many slow each other down: on an H100, 256 KiB in flight in
// all, 2 CTAs read 36 GB/s, 4 read 51, 8 read 48 and 16 read 37; beside a stream of HBM 4 are the best too.
constexpr double kRemoteCtaBoxes = 8;
// Where a unit takes long to finish: more CTAs, so that others read meanwhile.
// NOTE: on an H100, 640 of 6144 rows remote at batch 256 took 107 us with eight CTAs, 109 with six, 117 with four.
constexpr double kRemoteCtaBoxes256 = 5;
// Shorter runs of a tile cost more in shares than they balance; with a batch of 256 a share is as large as these runs.
constexpr uint64_t kLeastUnitChunks = 8;
constexpr uint64_t kLeastUnitChunks256 = 16;
// And more of them take longer to add up than they balance. NOTE: on an H100, 64 of 4096 rows remote, batch 128, took
// 17 us with three or four units, 22.5 with eight; with a batch of 64 there was no difference between four and eight.
constexpr uint64_t kMostUnits64 = 8;
constexpr uint64_t kMostUnits = 4;  // for larger batches
// While one CTA still works on a whole tile, the others have something to do: two of these each, where four CTAs read.
constexpr uint64_t kCutTiles = 8;
// Under this a CTA costs more than it brings: its start and its share of the sum at a tile's end.
constexpr uint64_t kLeastChunksPerCta = 4;
// What HBM needs, and what it needs where nothing else waits behind it.
// NOTE: with 208 KB an SM in flight to HBM a read of host memory takes 1.5 times as long as with 48 KB.
// With none in flight to host memory, an H100 did best with these, by 1 to 9 %.
constexpr uint32_t kLocalInflightBoxesMixed = 6;
constexpr uint32_t kLocalInflightBoxesNarrow = 8;  // up to a batch tile of 32
constexpr uint32_t kLocalInflightBoxesMiddle = 6;
constexpr uint32_t kLocalInflightBoxesWide = 12;
// Few CTAs less don't slow a stream of HBM.
constexpr double kLeastEvenShare = 0.94;
// CTAs with whole tiles are at the same columns at the same time. Where tiles are parted they aren't, and get slower:
// then L2 reads x for each of them, and HBM gives even a stream at batch 8 up to a fifth less. So whole tiles are worth
// it even where many SMs have nothing to do.
//
// NOTE: 10,240 x 8192 on an H100, 160 tiles: with 80 CTAs 59 us at batch 16 and 89 at 256, with 132 CTAs 65 and 103.
// 28,672 x 4096 at batch 256: with 112 CTAs 104 us, with 132 125, in clusters 115.
constexpr double kLeastWholeShare = 0.6;
// Where tiles are fewer than CTAs, this matters less but for a large x, or where two boxes read it.
constexpr double kPartedCost256 = 1.25;
constexpr double kPartedCostTwoBoxes = 1.2;  // at batch 128
// What sharing a tile costs at its end, in chunks, for each column of the batch tile.
// NOTE: on an H100, 6144 x 4096 at batch 256 took 25.8 us with a CTA for each of 96 tiles, 32.2 us with 132 CTAs.
constexpr double kSharingChunksPerColumn = 1.0 / 12;
// What tiles of two boxes may give up of the SMs that work, of those of one box.
constexpr double kLeastTwoBoxShare = 0.85;

// As many workers as can have equally much: whole tiles, or where tiles are fewer, each the same number of workers.
uint64_t EvenWorkers(uint64_t tiles, uint64_t workers) {
  return tiles > workers ? DivideUp(tiles, DivideUp(tiles, workers)) : workers / tiles * tiles;
}

// The share of `workers`' time that is used then.
double EvenShare(uint64_t tiles, uint64_t workers) {
  const uint64_t all = DivideUp(tiles, workers) * workers;
  return static_cast<double>(tiles > workers ? tiles : EvenWorkers(tiles, workers)) / static_cast<double>(all);
}

// A tile of two boxes halves the reads of x, and its barriers; one of one box has smaller shares to add up where CTAs
// share tiles. So two where x is nothing, or where even so there is a tile for nearly every other SM, unless that
// leaves more SMs with nothing to do. Where tiles can't be left whole and x is much, clusters read it.
//
// NOTE: 10,240 x 8192 on an H100, 160 tiles of one box, parted: 69.9 us at batch 64 and 60.3 with two; 76.5 at batch
// 128, 73.7 in clusters and 63.4 with two. At batch 256 two boxes' sums leave the consumers too few registers for
// shares.
void ChooseTile(uint32_t batch, uint64_t local_rows, const DeviceTraits& device, GemmPlan& plan) {
  plan.batch_tile = 8;
  while (plan.batch_tile < batch) plan.batch_tile *= 2;
  plan.promote_local = plan.batch_tile <= 128;
  plan.row_boxes = plan.batch_tile <= 16 ? 2 : 1;
  plan.cluster = 1;
  if (local_rows == 0) return;
  const uint64_t tiles = DivideUp(local_rows, kBoxRows);
  const double one = EvenShare(tiles, device.multiprocessors);
  const double two = EvenShare(DivideUp(tiles, 2), device.multiprocessors);
  const bool many = tiles > device.multiprocessors;
  if (plan.batch_tile <= kMostTwoBoxTile) {
    const bool wanted = plan.batch_tile <= 16 || many;
    plan.row_boxes = wanted && two >= kLeastTwoBoxShare * one ? 2 : 1;
  }
  if (plan.batch_tile >= kLeastClusteredTile && plan.row_boxes == 1 && many && one < kLeastWholeShare) {
    plan.cluster = kClusterCtas;
  }
}

double PartedCost(const GemmPlan& plan) {
  if (plan.cluster > 1) return 1;
  if (plan.batch_tile > kMostTwoBoxTile) return kPartedCost256;
  return plan.batch_tile == kMostTwoBoxTile && plan.row_boxes > 1 ? kPartedCostTwoBoxes : 1;
}

// Whether workers should have equally much, of whole tiles or with a tile for the same number of them each.
bool IsEvenBetter(uint64_t even, uint64_t workers, uint64_t tiles, uint64_t chunks, const GemmPlan& plan) {
  const double share = static_cast<double>(even) / static_cast<double>(workers);
  if (tiles > workers && plan.cluster == 1) return EvenShare(tiles, workers) >= kLeastWholeShare;
  if (tiles > workers) return tiles % even == 0 && share >= kLeastEvenShare;
  const auto chunks_each = [&](uint64_t count) { return static_cast<double>(chunks) / static_cast<double>(count); };
  const double parted = PartedCost(plan) * chunks_each(workers) + plan.batch_tile * kSharingChunksPerColumn;
  return share >= kLeastEvenShare || chunks_each(even) <= parted;
}

uint32_t InflightBoxesAlone(uint32_t batch_tile) {
  if (batch_tile <= 32) return kLocalInflightBoxesNarrow;
  return batch_tile < kMaxBatch ? kLocalInflightBoxesMiddle : kLocalInflightBoxesWide;
}

uint32_t CountRemoteCtas(uint64_t remote_bytes, uint64_t local_bytes, uint32_t batch_tile, const DeviceTraits& device,
                         const LinkTraits& link) {
  const double local_s = static_cast<double>(local_bytes) / device.hbm_bytes_per_s;
  const double remote_s = static_cast<double>(remote_bytes) / link.bytes_per_s;
  const double inflight_bytes = std::max(link.window_bytes, link.bytes_per_s * link.round_trip_s);
  const double boxes = batch_tile == 256 ? kRemoteCtaBoxes256 : kRemoteCtaBoxes;
  const double full = std::ceil(inflight_bytes / (boxes * kBoxBytes));
  // The share of the link's rate that ends with the local side, with a quarter in reserve.
  const double share = local_s > remote_s ? std::min(1.0, 1.25 * remote_s / local_s) : 1.0;
  return static_cast<uint32_t>(std::max(1.0, std::ceil(full * share)));
}

}  // namespace

RemoteUnits CutRemote(uint32_t batch_tile, uint64_t remote_rows, uint64_t k, uint32_t most_units) {
  const uint64_t tiles = DivideUp(remote_rows, kBoxRows);
  const uint64_t cut = std::min(tiles, kCutTiles);
  const uint64_t k_chunks = DivideUp(k, kChunkColumns);
  const uint64_t least = batch_tile == kMaxBatch ? kLeastUnitChunks256 : kLeastUnitChunks;
  uint64_t wanted = std::clamp<uint64_t>(kMaxSharedUnits / cut, 1, std::max<uint64_t>(1, k_chunks / least));
  if (batch_tile >= 64) wanted = std::min(wanted, batch_tile == 64 ? kMostUnits64 : kMostUnits);
  if (most_units > 0) wanted = std::min<uint64_t>(wanted, most_units);
  RemoteUnits units;
  units.whole = static_cast<uint32_t>(tiles - cut);
  units.chunks = static_cast<uint32_t>(DivideUp(k_chunks, wanted));
  units.per_tile = static_cast<uint32_t>(DivideUp(k_chunks, units.chunks));
  units.count = units.whole + cut * units.per_tile;
  return units;
}

GemmPlan PlanGemm(uint32_t batch, uint64_t n, uint64_t k, uint64_t local_rows, const DeviceTraits& device,
                  const LinkTraits& link) {
  GemmPlan plan;
  ChooseTile(batch, local_rows, device, plan);
  PlanCtas(n, k, local_rows, device, link, plan);
  return plan;
}

void PlanCtas(uint64_t n, uint64_t k, uint64_t local_rows, const DeviceTraits& device, const LinkTraits& link,
              GemmPlan& plan) {
  plan.remote_ctas = 0;
  plan.local_ctas = 0;
  plan.whole_tiles = false;
  plan.halves = false;
  plan.local_inflight_boxes = local_rows < n ? kLocalInflightBoxesMixed : InflightBoxesAlone(plan.batch_tile);
  const uint64_t remote_rows = n - local_rows;
  uint32_t all = device.CtasIn(plan.cluster);
  if (local_rows == 0 || plan.batch_tile < kLeastClusteredTile || all < 2 * plan.cluster) {
    plan.cluster = 1;
    all = device.multiprocessors;
  }
  if (remote_rows > 0) {
    const auto row_bytes = static_cast<uint64_t>(kElementBytes) * k;
    const uint64_t wanted =
        CountRemoteCtas(remote_rows * row_bytes, local_rows * row_bytes, plan.batch_tile, device, link);
    const uint64_t most = std::min<uint64_t>(
        {kMaxRemoteCtas, std::max(1u, all / 2), CutRemote(plan.batch_tile, remote_rows, k, plan.most_units).count});
    if (most < plan.cluster) {
      plan.cluster = 1;
      all = device.multiprocessors;
    }
    // Clusters of local CTAs come after the remote ones in the grid.
    const uint64_t step = plan.cluster > 1 ? plan.cluster : plan.batch_tile >= kLeastHalvedTile && most > 1 ? 2 : 1;
    const uint64_t rounded = DivideUp(std::min(wanted, most), step) * step;
    plan.remote_ctas = static_cast<uint32_t>(rounded <= most ? rounded : most / step * step);
  }
  if (local_rows > 0) {
    const uint64_t chunks = LocalChunks(local_rows, k, plan);
    const uint32_t room = (std::max(plan.remote_ctas + plan.cluster, all) - plan.remote_ctas) / plan.cluster;
    const uint64_t workers = std::min<uint64_t>(room, std::max<uint64_t>(1, chunks / kLeastChunksPerCta));
    const uint64_t tiles = LocalTiles(local_rows, plan);
    const uint64_t even = EvenWorkers(tiles, workers);
    const bool is_even = IsEvenBetter(even, workers, tiles, chunks, plan);
    plan.local_ctas = plan.cluster * static_cast<uint32_t>(is_even ? even : workers);
    plan.whole_tiles = is_even && even <= tiles;
    plan.halves = CanHalve(local_rows, k, plan);
  }
}

}  // namespace dak::kernels

// Which tiles and how many CTAs a decode GEMM runs with: a model, not constants tuned for one shape.
//
// A CTA of the *local* kind streams W's rows in HBM, one of the *remote* kind W's remote rows. Work is counted in
// chunks, kChunkColumns columns of one tile's rows. Local CTAs get contiguous ranges of chunks: of whole tiles where
// that leaves enough of them with something to do, else equal ones (stream-K), so that every SM is busy; remote CTAs
// take units as they go, since the link isn't equally fast for all of them. A tile that several CTAs share is summed up
// at its end.
//
// How many CTAs are remote: the link is full with LinkTraits::window_bytes in flight, and few CTAs hold that much.
// Where the remote side is the longer one, the remote CTAs must fill the link; where it is the shorter one, they must
// only be done when the local side is, and the other SMs stream HBM.
//
// Pure functions on values; also used by the CPU reference's tests. Units in names.
#ifndef DAK_KERNELS_GEMM_PLAN_H_
#define DAK_KERNELS_GEMM_PLAN_H_

#include <cstdint>

namespace dak::kernels {

inline constexpr uint32_t kBoxRows = 64;       // of one TMA box, and of one matrix instruction
inline constexpr uint32_t kChunkColumns = 64;  // 128 bytes of 16-bit elements: the swizzle's width
inline constexpr uint32_t kBoxBytes = kBoxRows * kChunkColumns * 2;
inline constexpr uint32_t kMaxBatch = 256;
inline constexpr uint32_t kMaxRemoteCtas = 32;  // one bit each in half a word

// From this batch tile on, local CTAs may be in clusters of kClusterCtas; their tiles are one box high.
inline constexpr uint32_t kLeastClusteredTile = 128;
inline constexpr uint32_t kClusterCtas = 4;

// The largest batch tile whose tiles may be two boxes high: two warpgroups' registers hold no more sums.
inline constexpr uint32_t kMostTwoBoxTile = 128;

// The smallest batch tile whose tiles two CTAs can finish together.
inline constexpr uint32_t kLeastHalvedTile = 128;

struct DeviceTraits {
  uint32_t multiprocessors = 132;
  uint32_t clustered_ctas = 0;  // that run at once in clusters of kClusterCtas; 0: there are none
  double hbm_bytes_per_s = 2.99e12;

  // CTAs that run at once in clusters of 1 or kClusterCtas.
  uint32_t CtasIn(uint32_t cluster) const { return cluster > 1 ? clustered_ctas : multiprocessors; }
};

struct LinkTraits {
  double bytes_per_s = 51.1e9;
  double round_trip_s = 1.8e-6;   // unloaded
  double window_bytes = 262'144;  // expected; the kernel obeys the real one
};

struct GemmPlan {
  uint32_t batch_tile = 0;  // columns of the matrix instruction: 8, 16, 32, 64, 128 or 256
  // Boxes of 64 rows in a local CTA's tile, a consumer warpgroup each: 1, or 2 up to kMostTwoBoxTile without a cluster.
  uint32_t row_boxes = 0;
  uint32_t remote_ctas = 0;  // at most CutRemote's count and kMaxRemoteCtas
  uint32_t local_ctas = 0;   // at most LocalChunks
  // Boxes that a local CTA has in flight. More than HBM needs makes everything else wait behind them: reads of x, of
  // other CTAs' shares, and of the link.
  uint32_t local_inflight_boxes = 0;
  // Whether L2 should fetch 256 bytes where HBM is asked for 128: a few per cent where W is nearly all that L2 moves.
  bool promote_local = false;
  // That a remote tile is cut in, at most; 0: as many as balance CTAs, and no more than CutRemote allows the batch
  // tile: whoever comes last of a tile's units adds the shares of all, which takes the longer the larger the batch.
  uint32_t most_units = 0;
  // Whether local CTAs' ranges are of whole tiles, of which there are at least as many then. CTAs that are at the same
  // columns at the same time share what L2 reads of x for them, and nobody has shares to add.
  bool whole_tiles = false;
  // Whether every local tile is two CTAs', half of its chunks and, at the end, half of its columns each. They are
  // launched as a cluster, so that they can wait for each other. Only with `cluster` 1, local_ctas twice as many as
  // tiles, an even number of chunks a tile, and an even number of remote CTAs.
  bool halves = false;
  // Whether remote CTAs begin to read while the launch before still reads, with what it has given up of the window.
  bool early_link = true;
  // Whether the next launch's CTAs may start as soon as the launch before has ended, not only when local CTAs have
  // started as many reads as their rings hold.
  bool early_release = true;
  // Local CTAs that work on the same chunks of neighbouring rows, so that x comes from L2 once for all of them: 1, or
  // kClusterCtas from kLeastClusteredTile on. The counts of CTAs above are multiples of it.
  uint32_t cluster = 1;
};

// How the remote rows are cut for CTAs that take the next piece whenever they are done with one: the first tiles are
// taken whole, each of the last few in equal runs of its chunks, so that all CTAs end at nearly the same time.
struct RemoteUnits {
  uint32_t whole = 0;     // tiles
  uint32_t chunks = 0;    // of a unit of the others; a tile's last may have fewer
  uint32_t per_tile = 0;  // at most kMaxSharedUnits in all
  uint64_t count = 0;     // units of both kinds
};
inline constexpr uint32_t kMaxSharedUnits = 128;

// `batch_tile` and `most_units` as in GemmPlan; `remote_rows` and `k` at least 1.
RemoteUnits CutRemote(uint32_t batch_tile, uint64_t remote_rows, uint64_t k, uint32_t most_units = 0);

// `batch` 1 to kMaxBatch, `n`, `k` at least 1, `local_rows` at most n.
GemmPlan PlanGemm(uint32_t batch, uint64_t n, uint64_t k, uint64_t local_rows, const DeviceTraits& device,
                  const LinkTraits& link);

// The CTAs of both kinds for a tile and a cluster that are chosen already: what PlanGemm does after it has chosen one.
// A cluster that the device or the shape has no room for becomes 1.
void PlanCtas(uint64_t n, uint64_t k, uint64_t local_rows, const DeviceTraits& device, const LinkTraits& link,
              GemmPlan& plan);

constexpr uint64_t DivideUp(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

// Whether GemmPlan::halves may be true.
constexpr bool CanHalve(uint64_t local_rows, uint64_t k, const GemmPlan& plan) {
  return plan.batch_tile >= kLeastHalvedTile && plan.cluster == 1 && local_rows > 0 &&
         plan.local_ctas == 2 * DivideUp(local_rows, uint64_t{plan.row_boxes} * kBoxRows) &&
         DivideUp(k, kChunkColumns) % 2 == 0 && plan.remote_ctas % 2 == 0;
}

// Tiles of the local part, which are row_boxes boxes high for each CTA of a cluster, and their chunks.
constexpr uint64_t LocalTiles(uint64_t local_rows, const GemmPlan& plan) {
  return DivideUp(local_rows, uint64_t{plan.row_boxes} * plan.cluster * kBoxRows);
}
constexpr uint64_t LocalChunks(uint64_t local_rows, uint64_t k, const GemmPlan& plan) {
  return LocalTiles(local_rows, plan) * DivideUp(k, kChunkColumns);
}

// Chunks of the remote part, whose tiles are one box high so that a window is cut in small pieces.
constexpr uint64_t RemoteChunks(uint64_t remote_rows, uint64_t k) {
  return DivideUp(remote_rows, kBoxRows) * DivideUp(k, kChunkColumns);
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_GEMM_PLAN_H_

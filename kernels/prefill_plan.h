// Which tiles, clusters and fetchers a prefill GEMM runs with: a model, not constants tuned for one shape.
//
// Clusters of two CTAs work on items (kernels/prefill_layout.h): both CTAs need the same rows of W, each for a batch
// tile of its own. As many items as there are clusters run at once, a *wave*. *Fetchers* are CTAs that bring the remote
// chunks into a ring in HBM, where all items find them: so each remote byte crosses the link once. More of them bring
// more of the link's rate, and leave fewer clusters for the products, which may need one wave more: the plan has as
// many as take least by the model.
//
// The ring is why the kernel can't get stuck: it holds a whole group (PlanPrefill sees to it), groups are fetched one
// after another, and items are taken in order by clusters that run already. So the oldest group that is still worked
// on can always be fetched whole, however few clusters the GPU runs at once.
//
// Pure functions on values. Units in names.
#ifndef DAK_KERNELS_PREFILL_PLAN_H_
#define DAK_KERNELS_PREFILL_PLAN_H_

#include <cstdint>

#include "kernels/gemm_plan.h"
#include "kernels/prefill_layout.h"

namespace dak::kernels {

inline constexpr uint32_t kMaxPrefillBatch = 8192;
inline constexpr uint32_t kPrefillBatchTile = 128;  // of one CTA, 64 for each of two warpgroups
inline constexpr uint32_t kPrefillClusterCtas = 2;
inline constexpr uint32_t kPrefillPairBatch = kPrefillBatchTile * kPrefillClusterCtas;
inline constexpr uint32_t kMaxPrefillFetchers = 8;
inline constexpr uint32_t kPrefillRingSlots = 4096;                                     // of a chunk each
inline constexpr uint64_t kPrefillRingBytes = uint64_t{kPrefillRingSlots} * kBoxBytes;  // 32 MiB
// The largest k where rows are remote: the ring holds the chunks of a tile of two boxes.
inline constexpr uint64_t kMaxPrefillRemoteK = uint64_t{kPrefillRingSlots} / 2 * kChunkColumns;

// What the tensor cores and L2 give a chunk's work, and what fetchers bring; DeviceTraits and LinkTraits have the rest.
// The defaults are an H100's (docs/kernels-prefill.md).
struct PrefillTraits {
  double flops_per_s = 820e12;          // of the whole device, while all SMs have an item
  double l2_bytes_per_s = 7.3e12;       // into shared memory, multicast bytes counted once
  double tile_overhead_s = 1.4e-6;      // between two items of a cluster
  double fetcher_bytes_per_s = 13.8e9;  // that one fetcher brings beside products
  double fetch_latency_s = 18e-6;       // until the first chunk is there, and from the last one to the end
  // Even, 2 to kMaxPrefillFetchers. Four fill an H100's link.
  uint32_t most_fetchers = 4;
  double kept_bytes = 24e6;  // of x, that L2 holds beside W
};

struct PrefillPlan {
  PrefillLayout layout;
  uint32_t clusters = 0;  // that multiply
  uint32_t fetchers = 0;  // 0 without remote rows, else even and at most kMaxPrefillFetchers
  bool keep_x = false;    // in L2, before all else: every wave reads it again
};

// `batch` 1 to kMaxPrefillBatch, `n` and `k` at least 1, `local_rows` at most n, and `k` at most kMaxPrefillRemoteK if
// less. At least one cluster and the fetchers are planned, however small the device is.
PrefillPlan PlanPrefill(uint32_t batch, uint64_t n, uint64_t k, uint64_t local_rows, const DeviceTraits& device,
                        const LinkTraits& link, const PrefillTraits& traits = {});

// The same for a tile that is chosen already.
PrefillPlan PlanPrefillTile(uint32_t row_boxes, uint32_t batch, uint64_t n, uint64_t k, uint64_t local_rows,
                            const DeviceTraits& device, const LinkTraits& link, const PrefillTraits& traits = {});

// Seconds that a plan takes by the model: the longer of its products, in whole waves, and its remote reads.
double ModelPrefillSeconds(const PrefillPlan& plan, const DeviceTraits& device, const LinkTraits& link,
                           const PrefillTraits& traits = {});

}  // namespace dak::kernels

#endif  // DAK_KERNELS_PREFILL_PLAN_H_

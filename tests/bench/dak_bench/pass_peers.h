// How others run a pass whose weights don't fit, at the same HBM budget, buffers included.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_PASS_PEERS_H_
#define DAK_TESTS_BENCH_DAK_BENCH_PASS_PEERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/bench/dak_bench/operation.h"

namespace dak::bench {

// The linear layers of a model, in order.
struct Pass {
  std::vector<Operation> operations;  // without places
  std::vector<uint32_t> layer;        // of each operation
  std::vector<uint32_t> kind;         // likewise: its place in the layer
  uint64_t bytes() const;
};

// What is offloaded as one piece: a whole layer for kPrefetchLayers, else an operation. Pieces are spread evenly, over
// all operations for kPrefetchOperations and kZeroCopy; the others take the kinds that let them move the fewest bytes.
enum class Peer { kZeroCopy, kCopyOnUse, kPrefetchLayers, kPrefetchOperations, kPrefetchFewest };
const char* PeerName(Peer peer);

struct PeerResult {
  double seconds = 0;          // NaN if the budget is too small for its buffers
  double offloaded_share = 0;  // of the weights' bytes: buffers push weights out
  double buffer_bytes = 0;     // of HBM, that hold no weights for good
};

// Median time of a pass in steady state. `budget_bytes` of HBM hold resident weights and the peer's buffers.
PeerResult MeasurePeer(Context& context, const Pass& pass, Peer peer, uint64_t budget_bytes, double steady_s);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_PASS_PEERS_H_

// How others run a pass whose weights don't fit, at the same HBM budget, buffers included.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_PASS_PEERS_H_
#define DAK_TESTS_BENCH_DAK_BENCH_PASS_PEERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/bench/dak_bench/operation.h"

namespace dak::bench {

// The linear layers of a model, in order; `unit` of an operation is what is offloaded as one piece.
struct Pass {
  std::vector<Operation> operations;  // without places
  std::vector<uint32_t> layer;        // of each operation
  uint64_t bytes() const;
};

enum class Peer { kZeroCopy, kCopyOnUse, kPrefetchLayers, kPrefetchOperations };
const char* PeerName(Peer peer);

struct PeerResult {
  double seconds = 0;          // NaN if the budget is too small for its buffers
  double offloaded_share = 0;  // of the weights' bytes: buffers push weights out
};

// Median time of a pass in steady state. `budget_bytes` of HBM hold resident weights and the peer's buffers.
PeerResult MeasurePeer(Context& context, const Pass& pass, Peer peer, uint64_t budget_bytes);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_PASS_PEERS_H_

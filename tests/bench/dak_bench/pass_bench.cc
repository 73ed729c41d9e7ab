// `dak-bench pass`: the linear layers of a whole decode step, with more weights than the HBM budget holds.
#include <algorithm>
#include <limits>

#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/device_tools.h"
#include "tests/bench/dak_bench/operation.h"
#include "tests/bench/dak_bench/pass_peers.h"
#include "tests/bench/dak_bench/shapes.h"
#include "tests/bench/dak_bench/table.h"
#include "tests/bench/dak_bench/timing.h"

namespace dak::bench {
namespace {

constexpr uint32_t kLayers = 32;
constexpr int kPassesPerGraph = 2;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A Llama-3-8B: 14.0 GB of linear layers.
Pass MakePass(const Context& context, uint64_t batch) {
  Pass pass;
  for (uint32_t layer = 0; layer < kLayers; ++layer) {
    uint32_t kind = 0;
    for (const auto& [n, k] :
         {std::pair<uint64_t, uint64_t>{6144, 4096}, {4096, 4096}, {28'672, 4096}, {4096, 14'336}}) {
      pass.operations.push_back(
          {.batch = batch, .n = n, .k = k, .local_rows = n, .f16 = context.f16, .x = context.x, .y = context.y});
      pass.layer.push_back(layer);
      pass.kind.push_back(kind++);
    }
  }
  return pass;
}

// Every operation split at the same ratio, as near as whole tiles come to it, which is the best where all are bound by
// memory. Rows fall from both arenas.
void Split(const Context& context, Pass& pass, double ratio, bool exact) {
  std::vector<Shape> shapes;
  for (const Operation& operation : pass.operations) shapes.push_back({.name = "", .n = operation.n, .k = operation.k});
  const std::vector<uint64_t> remote_rows = RemoteRowsOfPass(shapes, ratio, exact);
  uint64_t hbm = 0;
  uint64_t host = 0;
  for (size_t i = 0; i < pass.operations.size(); ++i) {
    Operation& operation = pass.operations[i];
    operation.local_rows = operation.n - remote_rows[i];
    operation.w_local = context.hbm + hbm;
    operation.w_remote = context.TakeHost(host, operation.remote_bytes());
    hbm += operation.local_bytes();
  }
  if (hbm > context.hbm_bytes) Fail("pass", "the bench's memory is too small");
}

// The first layer's operations against float64.
void CheckNumbers(Context& context, const Pass& pass) {
  for (size_t i = 0; i < 4; ++i) {
    const Operation& op = pass.operations[i];
    DAK_CUDA(cudaMemsetAsync(op.y, 0xFF, op.batch * op.n * kElementBytes, context.stream));
    context.dak.Launch(op, context.stream);
    void* whole = nullptr;
    DAK_CUDA(cudaMalloc(&whole, op.bytes()));
    DAK_CUDA(cudaMemcpyAsync(whole, op.w_local, op.local_bytes(), cudaMemcpyDefault, context.stream));
    DAK_CUDA(cudaMemcpyAsync(static_cast<uint8_t*>(whole) + op.local_bytes(), op.w_remote, op.remote_bytes(),
                             cudaMemcpyDefault, context.stream));
    const double error = RelativeError(op.x, whole, op.y, op.batch, op.n, op.k, op.f16, context.stream);
    DAK_CUDA(cudaFree(whole));
    if (!(error < kMaxRelativeError)) Fail("pass", "wrong numbers");
  }
}

struct Sums {
  uint64_t local_bytes = 0;
  uint64_t remote_bytes = 0;
  double limit_s = 0;
};

Sums Sum(const Context& context, const Pass& pass) {
  Sums sums;
  for (const Operation& op : pass.operations) {
    sums.local_bytes += op.local_bytes();
    sums.remote_bytes += op.remote_bytes();
    sums.limit_s += context.Limit(op.local_bytes(), op.remote_bytes(), 2.0 * op.batch * op.n * op.k);
  }
  return sums;
}

double TimeDak(Context& context, const Pass& pass, double steady_s) {
  const auto enqueue = [&] {
    for (int i = 0; i < kPassesPerGraph; ++i) {
      for (const Operation& op : pass.operations) context.dak.Launch(op, context.stream);
    }
  };
  return TimeGraph(context.stream, enqueue, 7, 1, steady_s) / kPassesPerGraph;
}

}  // namespace

void RunPass(Context& context, const Options& options) {
  Table table("pass: 32 layers of Llama-3-8B's shape in a budget of HBM, buffers included, " + context.device_name,
              &context.report);
  context.dak.SetWindow(static_cast<uint64_t>(options.window_bytes));
  context.dak.SetHandover(options.handover);
  const double steady_s = options.steady ? kSteadyS : 0;
  for (const uint64_t batch : options.batches) {
    for (const double over : options.ratios) {
      Pass pass = MakePass(context, batch);
      const auto budget = static_cast<uint64_t>((1 - over) * static_cast<double>(pass.bytes()));
      Split(context, pass, over, options.exact_rows);
      CheckNumbers(context, pass);
      context.RefreshLink();
      const Sums sums = Sum(context, pass);
      if (sums.local_bytes > budget) Fail("pass", "the split is larger than the budget");
      const double dak_s = TimeDak(context, pass, steady_s);
      const auto add = [&](const char* who, double seconds, double share, double buffer_bytes) {
        table.Add(Table::Row()
                      .Number("batch", batch)
                      .Number("over", over)
                      .Number("hbm_gb", static_cast<double>(budget) * 1e-9)
                      .Text("who", who)
                      .Number("ms", seconds * 1e3)
                      .Number("by_dak", seconds / dak_s)
                      .Number("of_limit", sums.limit_s / seconds)
                      .Number("offloaded", share)
                      .Number("buffers_mb", buffer_bytes * 1e-6));
      };
      add("limit", sums.limit_s, kNan, kNan);
      add("dak", dak_s, static_cast<double>(sums.remote_bytes) / static_cast<double>(pass.bytes()), 0);
      if (context.cublas == nullptr || !options.peers) continue;
      double best = kNan;
      for (const Peer peer : {Peer::kPrefetchLayers, Peer::kPrefetchOperations, Peer::kPrefetchFewest, Peer::kCopyOnUse,
                              Peer::kZeroCopy}) {
        const PeerResult result = MeasurePeer(context, pass, peer, budget, steady_s);
        add(over > 0 ? PeerName(peer) : "cublas", result.seconds, result.offloaded_share, result.buffer_bytes);
        if (!(best < result.seconds)) best = result.seconds;
        if (over == 0) break;  // all of them are plain cuBLAS then
      }
      add("best peer", best, kNan, kNan);
    }
  }
}

}  // namespace dak::bench

// `dak-bench gemm`: one operation at a time, back to back over weights that don't fit in L2.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>

#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/device_tools.h"
#include "tests/bench/dak_bench/operation.h"
#include "tests/bench/dak_bench/shapes.h"
#include "tests/bench/dak_bench/table.h"
#include "tests/bench/dak_bench/timing.h"

namespace dak::bench {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr uint64_t kRotatedBytes = uint64_t{300} << 20;  // six times an H100's L2
constexpr double kGraphSeconds = 3e-3;                   // at least, so that its launch doesn't show
constexpr uint64_t kAlignment = 256;

// The same operation over several copies of its weights, whole ones in HBM, so that peers can use them too, and the
// remote rows again on the host.
class Rotation {
 public:
  Rotation(Context& context, const Operation& shape, double steady_s)
      : context_(context), operation_(shape), steady_s_(steady_s) {
    const uint64_t whole = Align(shape.bytes());
    const uint64_t remote = Align(shape.remote_bytes());
    uint64_t copies = std::max<uint64_t>(2, (kRotatedBytes + whole - 1) / whole);
    copies = std::min(copies, context.hbm_bytes / whole);
    if (remote > 0) copies = std::min(copies, context.host_bytes / remote);
    if (copies == 0) Fail("gemm", "the shape doesn't fit in the bench's memory");
    for (uint64_t i = 0; i < copies; ++i) {
      uint8_t* w = context.hbm + i * whole;
      uint8_t* host = context.host + i * remote;
      DAK_CUDA(cudaMemcpyAsync(host, w + shape.local_bytes(), shape.remote_bytes(), cudaMemcpyDefault, context.stream));
      Operation& copy = copies_.emplace_back(shape);
      copy.x = context.x;
      copy.y = context.y;
      copy.w_local = w;
      copy.w_remote = host;
    }
    DAK_CUDA(cudaStreamSynchronize(context.stream));
  }

  const Operation& operator[](size_t i) const { return copies_[i % copies_.size()]; }

  // Ends the program if y, poisoned before, isn't x w^T after `run`.
  template <class Run>
  double CheckNumbers(const char* what, Run run) const {
    const uint64_t y_bytes = operation_.batch * operation_.n * kElementBytes;
    DAK_CUDA(cudaMemsetAsync(context_.y, 0xFF, y_bytes, context_.stream));
    run(copies_[0]);
    const double error = RelativeError(context_.x, copies_[0].w_local, context_.y, operation_.batch, operation_.n,
                                       operation_.k, operation_.f16, context_.stream);
    if (!(error < kMaxRelativeError)) {
      std::fprintf(stderr, "%s: batch %llu n %llu k %llu local_rows %llu: relative error %g\n", what,
                   static_cast<unsigned long long>(operation_.batch), static_cast<unsigned long long>(operation_.n),
                   static_cast<unsigned long long>(operation_.k),
                   static_cast<unsigned long long>(operation_.local_rows), error);
      Fail(what, "wrong numbers");
    }
    return error;
  }

  // Seconds of one operation, when many follow each other; with steady_s, when they have for so long.
  template <class Run>
  double Time(double limit_s, Run run) const {
    const auto launches = std::max<size_t>(copies_.size(), static_cast<size_t>(kGraphSeconds / limit_s) + 1);
    const double seconds = TimeGraph(
        context_.stream,
        [&] {
          for (size_t i = 0; i < launches; ++i) run((*this)[i]);
        },
        11, 2, steady_s_);
    return seconds / static_cast<double>(launches);
  }

 private:
  static uint64_t Align(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
  Context& context_;
  Operation operation_;
  double steady_s_;
  std::vector<Operation> copies_;
};

std::string Name(const kernels::GemmPlan& plan) {
  return std::to_string(plan.batch_tile) + "x" + std::to_string(plan.row_boxes) +
         (plan.cluster > 1 ? "c" + std::to_string(plan.cluster) : "") + "r" + std::to_string(plan.remote_ctas) + "l" +
         std::to_string(plan.local_ctas);
}

constexpr double kWorthStoring = 0.99;  // of the model's time: less is noise

// Times choices that the model didn't make; none if it made the best.
std::optional<kernels::TuningChoice> Tune(Context& context, const Rotation& rotation, double limit_s,
                                          const std::string& name) {
  const kernels::GemmPlan model = context.dak.Plan(rotation[0]);
  const auto time = [&](const kernels::GemmPlan& plan) {
    const auto run = [&](const Operation& op) { context.dak.Launch(op, context.stream, plan); };
    rotation.CheckNumbers("tune", run);
    return rotation.Time(limit_s, run);
  };
  double best_s = kWorthStoring * time(model);
  std::optional<kernels::TuningChoice> best;
  std::printf("  tune %s batch %llu, limit %.1f us, model %.1f:", name.c_str(),
              static_cast<unsigned long long>(rotation[0].batch), limit_s * 1e6, best_s / kWorthStoring * 1e6);
  const auto consider = [&](const kernels::TuningChoice& choice) {
    const double seconds = time(context.dak.Plan(rotation[0], choice));
    std::printf(" %ux%u%sr%uc%u %.1f", choice.row_boxes, choice.local_inflight_boxes, choice.promote_local ? "p" : "",
                choice.remote_ctas, choice.cluster, seconds * 1e6);
    if (seconds >= best_s) return;
    best_s = seconds;
    best = choice;
  };
  for (const uint32_t boxes : {1u, 2u}) {
    if (boxes > 1 && model.batch_tile > kernels::kMostTwoBoxTile) continue;
    for (const bool promote : {false, true}) {
      for (const uint32_t inflight : {4u, 6u, 8u, 12u, 32u}) {
        const bool same_tile = boxes == model.row_boxes && promote == model.promote_local;
        if (same_tile || inflight == model.local_inflight_boxes) consider({boxes, inflight, promote, 0, 1});
      }
    }
  }
  for (const bool promote : {false, true}) {
    if (model.batch_tile < kernels::kLeastClusteredTile) break;
    for (const uint32_t inflight : {6u, 12u}) consider({1, inflight, promote, 0, kernels::kClusterCtas});
  }
  for (const uint32_t remote_ctas : {1u, 2u, 3u, 4u, 6u}) {
    if (model.remote_ctas == 0 || remote_ctas == model.remote_ctas) continue;
    consider({model.row_boxes, model.local_inflight_boxes, model.promote_local, remote_ctas, model.cluster});
  }
  // What isn't stored: that two CTAs of a tile finish it together or not, local CTAs on all SMs, and how few units a
  // remote tile may be cut in.
  if (model.halves) {
    kernels::GemmPlan whole = model;
    whole.halves = false;
    std::printf(" whole %.1f", time(whole) * 1e6);
  }
  if (model.local_ctas > 0) std::printf(" all %.1f", time(context.dak.PlanWithAllSms(rotation[0])) * 1e6);
  for (const uint32_t units : {2u, 3u, 4u, 6u, 8u, 12u}) {
    if (model.remote_ctas == 0) break;
    std::printf(" units%u %.1f", units, time(context.dak.PlanWithUnits(rotation[0], units)) * 1e6);
  }
  std::printf("\n");
  return best;
}

struct Peers {
  double cublas_s = kNan;
  double zero_copy_s = kNan;
  double copy_on_use_s = kNan;
};

Peers MeasurePeers(Context& context, const Rotation& rotation, double limit_s, bool wanted) {
  Peers peers;
  if (!wanted || context.cublas == nullptr) return peers;
  const auto gemm = [&](const Operation& op, const void* w, uint64_t first_row, uint64_t rows) {
    if (rows == 0) return;
    context.cublas->Gemm(op.x, w, static_cast<uint8_t*>(op.y) + first_row * kElementBytes, op.batch, rows, op.k, op.n,
                         op.f16, context.stream);
  };
  const auto all_hbm = [&](const Operation& op) { gemm(op, op.w_local, 0, op.n); };
  rotation.CheckNumbers("cuBLAS", all_hbm);
  peers.cublas_s = rotation.Time(limit_s, all_hbm);
  if (rotation[0].remote_bytes() == 0) return peers;
  const auto zero_copy = [&](const Operation& op) {
    gemm(op, op.w_local, 0, op.local_rows);
    gemm(op, op.w_remote, op.local_rows, op.n - op.local_rows);
  };
  rotation.CheckNumbers("cuBLAS zero-copy", zero_copy);
  peers.zero_copy_s = rotation.Time(limit_s, zero_copy);
  const auto copy_on_use = [&](const Operation& op) {
    // Into the place in HBM where the same bytes are already: the copy costs the same.
    DAK_CUDA(cudaMemcpyAsync(const_cast<uint8_t*>(static_cast<const uint8_t*>(op.w_local)) + op.local_bytes(),
                             op.w_remote, op.remote_bytes(), cudaMemcpyHostToDevice, context.stream));
    gemm(op, op.w_local, 0, op.n);
  };
  rotation.CheckNumbers("copy on use", copy_on_use);
  peers.copy_on_use_s = rotation.Time(limit_s, copy_on_use);
  return peers;
}

}  // namespace

void RunGemm(Context& context, const Options& options) {
  Table table("gemm, " + context.device_name, &context.report);
  context.dak.SetWindow(static_cast<uint64_t>(options.window_bytes));
  context.dak.SetHandover(options.handover);
  kernels::GemmTuning tuning;
  if (!options.tune && !options.tuning_path.empty()) {
    auto loaded = kernels::GemmTuning::Load(options.tuning_path);
    if (!loaded.ok()) Fail("--tuning", std::string(loaded.status().message()).c_str());
    tuning = *std::move(loaded);
  }
  for (const Shape& shape : ShapesOf(options.model)) {
    for (const uint64_t batch : options.batches) {
      for (const double ratio : options.ratios) {
        Operation operation{.batch = batch, .n = shape.n, .k = shape.k, .f16 = context.f16};
        operation.local_rows = shape.n - RemoteRows(shape.n, ratio, options.exact_rows);
        const Rotation rotation(context, operation, options.steady ? kSteadyS : 0);
        if (operation.remote_bytes() > 0) context.RefreshLink();
        const double limit_s =
            context.Limit(operation.local_bytes(), operation.remote_bytes(), 2.0 * batch * shape.n * shape.k);
        const kernels::TuningKey key{
            context.device_name, context.f16, context.dak.Plan(operation).batch_tile, shape.n, shape.k,
            operation.local_rows};
        if (options.tune) {
          const auto choice = Tune(context, rotation, limit_s, shape.name);
          if (choice.has_value()) tuning.Set(key, *choice);
        }
        kernels::GemmPlan plan = context.dak.Plan(operation);
        if (const auto* choice = tuning.Find(key)) plan = context.dak.Plan(operation, *choice);
        const auto run = [&](const Operation& op) { context.dak.Launch(op, context.stream, plan); };
        const double error = rotation.CheckNumbers("dak", run);
        const double dak_s = rotation.Time(limit_s, run);
        const Peers peers = MeasurePeers(context, rotation, limit_s, options.peers);
        table.Add(Table::Row()
                      .Text("shape", shape.name)
                      .Number("batch", batch)
                      .Number("ratio", ratio)
                      .Number("remote_rows", operation.n - operation.local_rows)
                      .Text("plan", Name(plan))
                      .Number("dak_us", dak_s * 1e6)
                      .Number("limit_us", limit_s * 1e6)
                      .Number("of_limit", limit_s / dak_s)
                      .Number("hbm_gbps", operation.local_bytes() / dak_s * 1e-9)
                      .Number("link_gbps", operation.remote_bytes() / dak_s * 1e-9)
                      .Number("link_ceiling", context.ceilings.link_bytes_per_s * 1e-9)
                      .Number("cublas_us", peers.cublas_s * 1e6)
                      .Number("vs_cublas", dak_s / peers.cublas_s)
                      .Number("zero_copy_us", peers.zero_copy_s * 1e6)
                      .Number("copy_on_use_us", peers.copy_on_use_s * 1e6)
                      .Number("error", error));
      }
    }
  }
  if (options.tune && !options.tuning_path.empty() && !tuning.Store(options.tuning_path).ok()) {
    Fail(options.tuning_path.c_str(), "can't be written");
  }
}

}  // namespace dak::bench

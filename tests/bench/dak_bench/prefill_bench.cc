// `dak-bench prefill`: one large operation at a time, bound by compute, through the library's runner.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "allocator/device/device.h"
#include "kernels/gemm.h"
#include "kernels/prefill_plan.h"
#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/device_tools.h"
#include "tests/bench/dak_bench/operation.h"
#include "tests/bench/dak_bench/prefill_tune.h"
#include "tests/bench/dak_bench/shapes.h"
#include "tests/bench/dak_bench/table.h"
#include "tests/bench/dak_bench/timing.h"

namespace dak::bench {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr uint64_t kRotatedBytes = uint64_t{150} << 20;  // three times an H100's L2
constexpr double kGraphSeconds = 2e-3;                   // at least, so that its launch doesn't show
constexpr uint64_t kCheckedRows = 256;                   // of y at its start and at its end
constexpr int kRepeats = 7;

// Activations of the largest operation.
class Activations {
 public:
  Activations(Context& context, uint64_t batch, uint64_t n, uint64_t k) {
    DAK_CUDA(cudaMalloc(&x, batch * k * kElementBytes));
    DAK_CUDA(cudaMalloc(&y, batch * n * kElementBytes));
    FillRandom(x, batch * k, context.f16, 5, context.stream);
    DAK_CUDA(cudaStreamSynchronize(context.stream));
  }
  ~Activations() {
    cudaFree(x);
    cudaFree(y);
  }
  Activations(const Activations&) = delete;
  Activations& operator=(const Activations&) = delete;
  void* x = nullptr;
  void* y = nullptr;
};

// The library's runner with a window and a report page.
class Runner {
 public:
  explicit Runner(double window_bytes) {
    auto runner = kernels::CreateCudaGemmRunner(0);
    if (!runner.ok()) Fail("CreateCudaGemmRunner", runner.status().ToString().c_str());
    runner_ = *std::move(runner);
    DAK_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&pages_), v1::kControlPageBytes, cudaHostAllocMapped));
    std::memset(pages_, 0, v1::kControlPageBytes);
    control_ = reinterpret_cast<v1::LinkControl*>(pages_);
    report_ = reinterpret_cast<v1::LinkReport*>(pages_ + v1::kControlPageBytes / 2);
    control_->window_bytes = static_cast<uint64_t>(window_bytes);
  }
  ~Runner() { cudaFreeHost(pages_); }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  void Launch(const Operation& op, cudaStream_t stream) {
    const kernels::GemmShape shape{static_cast<uint32_t>(op.batch), op.n, op.k, op.local_rows,
                                   op.f16 ? ElementType::kF16 : ElementType::kBf16};
    TensorMap local;
    TensorMap remote;
    Encode(op, op.w_local, op.local_rows, local);
    Encode(op, op.w_remote, op.n - op.local_rows, remote);
    const kernels::GemmOperands operands{.x = reinterpret_cast<uint64_t>(op.x),
                                         .w_local = reinterpret_cast<uint64_t>(op.w_local),
                                         .w_remote = reinterpret_cast<uint64_t>(op.w_remote),
                                         .y = reinterpret_cast<uint64_t>(op.y),
                                         .w_local_map = op.local_rows > 0 ? &local : nullptr,
                                         .w_remote_map = op.local_rows < op.n ? &remote : nullptr};
    const absl::Status status = runner_->Launch(shape, operands, {control_, report_}, stream);
    if (!status.ok()) Fail("dak", status.ToString().c_str());
  }

  v1::LinkReport report() const { return *report_; }

 private:
  static void Encode(const Operation& op, const void* address, uint64_t rows, TensorMap& map) {
    CUtensorMap encoded;
    if (rows == 0) return;
    DAK_CUDA(kernels::EncodeMatrix(&encoded, address, op.f16, rows, op.k, kernels::kBoxRows));
    std::memcpy(map.bytes.data(), &encoded, sizeof(encoded));
  }

  std::unique_ptr<kernels::GemmRunner> runner_;
  uint8_t* pages_ = nullptr;
  v1::LinkControl* control_ = nullptr;
  v1::LinkReport* report_ = nullptr;
};

// Copies of one operation's weights, whole ones in HBM, so that peers can use them too, and remote rows on the host.
std::vector<Operation> MakeCopies(Context& context, const Operation& operation) {
  const uint64_t remote = operation.remote_bytes();
  uint64_t count = std::max<uint64_t>(2, (kRotatedBytes + operation.bytes() - 1) / operation.bytes());
  count = std::min(count, context.hbm_bytes / operation.bytes());
  if (remote > 0) count = std::min(count, context.host_bytes / remote);
  if (count == 0) Fail("prefill", "the shape doesn't fit in the bench's memory");
  std::vector<Operation> copies(count, operation);
  for (uint64_t i = 0; i < count; ++i) {
    uint8_t* const w = context.hbm + i * operation.bytes();
    uint8_t* const host = context.host + i * remote;
    DAK_CUDA(cudaMemcpyAsync(host, w + operation.local_bytes(), remote, cudaMemcpyDefault, context.stream));
    copies[i].w_local = w;
    copies[i].w_remote = host;
  }
  DAK_CUDA(cudaStreamSynchronize(context.stream));
  return copies;
}

// Ends the program if the first and last rows of y, poisoned before, aren't those of x w^T after `run`.
template <class Run>
double CheckNumbers(Context& context, const char* what, const Operation& op, Run run) {
  DAK_CUDA(cudaMemsetAsync(op.y, 0xFF, op.batch * op.n * kElementBytes, context.stream));
  run(op);
  const uint64_t rows = std::min(kCheckedRows, op.batch);
  double worst = 0;
  for (const uint64_t first : {uint64_t{0}, op.batch - rows}) {
    const double error = RelativeError(static_cast<const uint8_t*>(op.x) + first * op.k * kElementBytes, op.w_local,
                                       static_cast<const uint8_t*>(op.y) + first * op.n * kElementBytes, rows, op.n,
                                       op.k, op.f16, context.stream);
    if (!(error < kMaxRelativeError)) {
      std::fprintf(stderr, "%s: batch %llu n %llu k %llu local_rows %llu: relative error %g\n", what,
                   static_cast<unsigned long long>(op.batch), static_cast<unsigned long long>(op.n),
                   static_cast<unsigned long long>(op.k), static_cast<unsigned long long>(op.local_rows), error);
      Fail(what, "wrong numbers");
    }
    worst = std::max(worst, error);
  }
  return worst;
}

// Seconds of one operation, when many follow each other.
template <class Run>
double Time(Context& context, const std::vector<Operation>& copies, double limit_s, Run run) {
  const auto launches = std::max<size_t>(copies.size(), static_cast<size_t>(kGraphSeconds / limit_s) + 1);
  const double seconds = TimeGraph(
      context.stream,
      [&] {
        for (size_t i = 0; i < launches; ++i) run(copies[i % copies.size()]);
      },
      kRepeats, 1);
  return seconds / static_cast<double>(launches);
}

struct Peers {
  double cublas_s = kNan;
  double zero_copy_s = kNan;
  double copy_on_use_s = kNan;
};

Peers MeasurePeers(Context& context, const std::vector<Operation>& copies, double limit_s) {
  Peers peers;
  if (context.cublas == nullptr) return peers;
  const auto gemm = [&](const Operation& op, const void* w, uint64_t first_row, uint64_t rows) {
    if (rows == 0) return;
    context.cublas->Gemm(op.x, w, static_cast<uint8_t*>(op.y) + first_row * kElementBytes, op.batch, rows, op.k, op.n,
                         op.f16, context.stream);
  };
  const auto all_hbm = [&](const Operation& op) { gemm(op, op.w_local, 0, op.n); };
  CheckNumbers(context, "cuBLAS", copies[0], all_hbm);
  peers.cublas_s = Time(context, copies, limit_s, all_hbm);
  if (copies[0].remote_bytes() == 0) return peers;
  const auto zero_copy = [&](const Operation& op) {
    gemm(op, op.w_local, 0, op.local_rows);
    gemm(op, op.w_remote, op.local_rows, op.n - op.local_rows);
  };
  CheckNumbers(context, "cuBLAS zero-copy", copies[0], zero_copy);
  peers.zero_copy_s = Time(context, copies, limit_s, zero_copy);
  const auto copy_on_use = [&](const Operation& op) {
    // Into the place in HBM where the same bytes are already: the copy costs the same.
    DAK_CUDA(cudaMemcpyAsync(const_cast<uint8_t*>(static_cast<const uint8_t*>(op.w_local)) + op.local_bytes(),
                             op.w_remote, op.remote_bytes(), cudaMemcpyHostToDevice, context.stream));
    gemm(op, op.w_local, 0, op.n);
  };
  CheckNumbers(context, "copy on use", copies[0], copy_on_use);
  peers.copy_on_use_s = Time(context, copies, limit_s, copy_on_use);
  return peers;
}

double RoundTripUs(const v1::LinkReport& before, const v1::LinkReport& after) {
  const auto trips = static_cast<double>(after.round_trips - before.round_trips);
  return static_cast<double>(after.round_trip_ns - before.round_trip_ns) / trips * 1e-3;
}

// Times the plans that weren't chosen.
void Tune(Context& context, const PrefillTuner& tuner, const std::vector<Operation>& copies, double limit_s,
          const std::string& name) {
  std::printf("  tune %s batch %llu, limit %.1f us:", name.c_str(), static_cast<unsigned long long>(copies[0].batch),
              limit_s * 1e6);
  for (const PrefillTuner::Variant& variant : tuner.Variants(copies[0])) {
    const auto run = [&](const Operation& op) { tuner.Launch(op, variant.plan, context.stream); };
    CheckNumbers(context, "tune", copies[0], run);
    std::printf(" %s %.1f", variant.name.c_str(), Time(context, copies, limit_s, run) * 1e6);
  }
  std::printf("\n");
}

kernels::DeviceTraits ThisDevice() {
  int multiprocessors = 0;
  DAK_CUDA(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  return {.multiprocessors = static_cast<uint32_t>(multiprocessors)};
}

std::string Name(const kernels::PrefillPlan& plan) {
  return std::to_string(plan.layout.row_boxes * kernels::kBoxRows) + "c" + std::to_string(plan.clusters) + "f" +
         std::to_string(plan.fetchers) + "g" + std::to_string(plan.layout.group_tiles);
}

// The edge: the share of W that the link could bring in the time that all in HBM takes. Nothing hides more.
double EdgeRatio(const Context& context, const Shape& shape, double all_hbm_s) {
  return all_hbm_s * context.ceilings.link_bytes_per_s / (static_cast<double>(shape.n * shape.k) * kElementBytes);
}

}  // namespace

void RunPrefill(Context& context, const Options& options) {
  Table table("prefill, " + context.device_name, &context.report);
  Runner runner(options.window_bytes);
  const kernels::DeviceTraits device = ThisDevice();
  const PrefillTuner tuner(static_cast<uint64_t>(options.window_bytes));
  const auto run = [&](const Operation& op) { runner.Launch(op, context.stream); };
  for (const Shape& shape : ShapesOf(options.model)) {
    for (const uint64_t batch : options.batches) {
      const Activations activations(context, batch, shape.n, shape.k);
      double all_hbm_s = kNan;  // of ratio 0, the first
      for (const double given : options.ratios) {
        const double ratio = given >= 0 ? given : std::min(1.0, -given * EdgeRatio(context, shape, all_hbm_s));
        // Down to whole boxes, as the planner splits.
        const auto remote_boxes = static_cast<uint64_t>(ratio * static_cast<double>(shape.n)) / kernels::kBoxRows;
        const Operation operation{.batch = batch,
                                  .n = shape.n,
                                  .k = shape.k,
                                  .local_rows = shape.n - remote_boxes * kernels::kBoxRows,
                                  .f16 = context.f16,
                                  .x = activations.x,
                                  .w_local = nullptr,
                                  .w_remote = nullptr,
                                  .y = activations.y};
        const std::vector<Operation> copies = MakeCopies(context, operation);
        const double flops = 2.0 * static_cast<double>(batch * shape.n) * static_cast<double>(shape.k);
        const double limit_s = context.Limit(operation.local_bytes(), operation.remote_bytes(), flops);
        const double error = CheckNumbers(context, "dak", copies[0], run);
        const v1::LinkReport before = runner.report();
        const double dak_s = Time(context, copies, limit_s, run);
        const v1::LinkReport after = runner.report();
        if (operation.remote_bytes() == 0 && std::isnan(all_hbm_s)) all_hbm_s = dak_s;
        if (options.tune) Tune(context, tuner, copies, limit_s, shape.name);
        const double unique_bytes =
            static_cast<double>(after.passes - before.passes) * static_cast<double>(operation.remote_bytes());
        const Peers peers = options.peers ? MeasurePeers(context, copies, limit_s) : Peers();
        const kernels::PrefillPlan plan =
            kernels::PlanPrefill(static_cast<uint32_t>(batch), shape.n, shape.k, operation.local_rows, device, {});
        const double split = static_cast<double>(remote_boxes * kernels::kBoxRows) / static_cast<double>(shape.n);
        table.Add(Table::Row()
                      .Text("shape", shape.name)
                      .Number("batch", batch)
                      .Number("ratio", split)
                      .Number("of_edge", split / EdgeRatio(context, shape, all_hbm_s))
                      .Text("plan", Name(plan))
                      .Number("dak_us", dak_s * 1e6)
                      .Number("cublas_us", peers.cublas_s * 1e6)
                      .Number("vs_cublas", dak_s / peers.cublas_s)
                      .Number("vs_all_hbm", dak_s / all_hbm_s)
                      .Number("tflops", flops / dak_s * 1e-12)
                      .Number("link_gbps", operation.remote_bytes() / dak_s * 1e-9)
                      .Number("round_trip_us", RoundTripUs(before, after))
                      .Number("link_by_unique", static_cast<double>(after.bytes - before.bytes) / unique_bytes)
                      .Number("limit_us", limit_s * 1e6)
                      .Number("of_limit", limit_s / dak_s)
                      .Number("zero_copy_us", peers.zero_copy_s * 1e6)
                      .Number("copy_on_use_us", peers.copy_on_use_s * 1e6)
                      .Number("error", error));
      }
    }
  }
}

}  // namespace dak::bench

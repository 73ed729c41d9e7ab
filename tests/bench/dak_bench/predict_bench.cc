// `dak-bench predict`: how long the planner's model says that passes take, on a profile measured at the start as dakd
// does it, and how long they take. `dak-bench greedy`: what greedy ratios gain over uniform ones in a mixed pass, as
// planned and as measured.
//
// Passes run through the runner that clients use. Remote rows of all operations lie in one arena of host memory, over
// and over: host reads aren't kept in any cache, so it makes no difference to time.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "daemon/planner/planner.h"
#include "daemon/profile/measure.h"
#include "kernels/gemm.h"
#include "kernels/probe.h"
#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/device_tools.h"
#include "tests/bench/dak_bench/operation.h"
#include "tests/bench/dak_bench/shapes.h"
#include "tests/bench/dak_bench/table.h"
#include "tests/bench/dak_bench/timing.h"

namespace dak::bench {
namespace {

constexpr uint32_t kLayers = 32;
constexpr uint64_t kTileRows = 64;
// The mixed pass: beside each layer's products a stream of a KV cache, which is a product of few rows.
constexpr uint32_t kMixedLayers = 8;
constexpr uint64_t kCacheRows = 65'536;  // 512 MiB
constexpr uint64_t kCacheBatch = 8;

template <class T>
T Unwrap(absl::StatusOr<T> value, const char* what) {
  if (!value.ok()) Fail(what, std::string(value.status().message()).c_str());
  return *std::move(value);
}

class RunnerGemm {
 public:
  explicit RunnerGemm(uint64_t window_bytes) : runner_(Unwrap(kernels::CreateCudaGemmRunner(0), "runner")) {
    DAK_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&pages_), v1::kControlPageBytes, cudaHostAllocMapped));
    std::memset(pages_, 0, v1::kControlPageBytes);
    auto* control = reinterpret_cast<v1::LinkControl*>(pages_);
    control->window_bytes = window_bytes;
    link_ = {control, reinterpret_cast<v1::LinkReport*>(pages_ + v1::kControlPageBytes / 2)};
  }
  ~RunnerGemm() { cudaFreeHost(pages_); }
  RunnerGemm(const RunnerGemm&) = delete;
  RunnerGemm& operator=(const RunnerGemm&) = delete;

  static bool Takes(const Operation& operation) { return kernels::CheckGemm(ShapeOf(operation)).ok(); }

  void Launch(const Operation& operation, cudaStream_t stream) {
    kernels::GemmOperands operands;
    operands.x = reinterpret_cast<uint64_t>(operation.x);
    operands.w_local = reinterpret_cast<uint64_t>(operation.w_local);
    operands.w_remote = reinterpret_cast<uint64_t>(operation.w_remote);
    operands.y = reinterpret_cast<uint64_t>(operation.y);
    const uint64_t remote_rows = operation.n - operation.local_rows;
    const TensorMap local = Encode(operation.w_local, operation.local_rows, operation);
    const TensorMap remote = Encode(operation.w_remote, remote_rows, operation);
    operands.w_local_map = operation.local_rows > 0 ? &local : nullptr;
    operands.w_remote_map = remote_rows > 0 ? &remote : nullptr;
    const absl::Status status = runner_->Launch(ShapeOf(operation), operands, link_, stream);
    if (!status.ok()) Fail("launch", std::string(status.message()).c_str());
  }

 private:
  static kernels::GemmShape ShapeOf(const Operation& operation) {
    return {.batch = static_cast<uint32_t>(operation.batch),
            .n = operation.n,
            .k = operation.k,
            .local_rows = operation.local_rows,
            .element = operation.f16 ? ElementType::kF16 : ElementType::kBf16};
  }
  static TensorMap Encode(const void* address, uint64_t rows, const Operation& operation) {
    TensorMap map;
    if (rows == 0) return map;
    CUtensorMap encoded;
    DAK_CUDA(kernels::EncodeMatrix(&encoded, address, operation.f16, rows, operation.k, kernels::kBoxRows));
    std::memcpy(map.bytes.data(), &encoded, sizeof(map.bytes));
    return map;
  }

  std::unique_ptr<kernels::GemmRunner> runner_;
  uint8_t* pages_ = nullptr;
  kernels::LinkView link_;
};

planner::Profile MeasureMachine() {
  const auto begin = std::chrono::steady_clock::now();
  const auto probe = Unwrap(kernels::CreateCudaProbe(0, -1), "probe");
  const daemon::MeasureOptions options = {
      .budget_s = 5,
      .seconds_now =
          [begin] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); },
      .log = [](const std::string& line) { std::printf("profile: %s\n", line.c_str()); }};
  const daemon::Measurement measured =
      Unwrap(daemon::MeasureProfile(*probe, Unwrap(planner::NamedProfile("h100-pcie"), "profile"), options), "profile");
  for (const std::string& left_out : measured.left_out) std::printf("profile: left out: %s\n", left_out.c_str());
  std::printf("profile: measured in %.2f s\n", options.seconds_now());
  return measured.profile;
}

// Where the controller holds the sum of windows.
uint64_t WindowBytes(const planner::Profile& profile) {
  return static_cast<uint64_t>(2 * profile.link_bytes_per_s * static_cast<double>(profile.round_trip_ns) * 1e-9);
}

planner::Operation Described(const Operation& operation) {
  planner::Operation described;
  described.bytes = operation.bytes();
  described.flops = 2.0 * static_cast<double>(operation.batch * operation.n * operation.k);
  described.batch = operation.batch;
  return described;
}

double PredictedSeconds(const planner::Profile& profile, const std::vector<Operation>& pass) {
  double seconds = 0;
  for (const Operation& operation : pass) {
    const double ratio = static_cast<double>(operation.n - operation.local_rows) / static_cast<double>(operation.n);
    seconds += planner::OperationSeconds(profile, Described(operation), {ratio});
  }
  return seconds;
}

Operation Matrix(const Context& context, uint64_t batch, uint64_t n, uint64_t k) {
  if (batch * std::max(n, k) > Context::kActivations) Fail("--batches", "x or y doesn't fit in memory");
  return {.batch = batch, .n = n, .k = k, .local_rows = n, .f16 = context.f16, .x = context.x, .y = context.y};
}

void AddLayer(const Context& context, uint64_t batch, std::vector<Operation>* pass) {
  for (const auto& [n, k] : {std::pair<uint64_t, uint64_t>{6144, 4096}, {4096, 4096}, {28'672, 4096}, {4096, 14'336}}) {
    pass->push_back(Matrix(context, batch, n, k));
  }
}

// Gives every operation its rows and their places.
void Place(const Context& context, const std::vector<uint64_t>& remote_rows, std::vector<Operation>* pass) {
  uint64_t hbm = 0;
  uint64_t host = 0;
  for (size_t i = 0; i < pass->size(); ++i) {
    Operation& operation = (*pass)[i];
    operation.local_rows = operation.n - remote_rows[i];
    if (host + operation.remote_bytes() > context.host_bytes) host = 0;
    operation.w_local = context.hbm + hbm;
    operation.w_remote = context.host + host;
    hbm += operation.local_bytes();
    host += operation.remote_bytes();
    if (hbm > context.hbm_bytes || operation.remote_bytes() > context.host_bytes) Fail("predict", "too little memory");
  }
}

std::vector<uint64_t> UniformRows(const std::vector<Operation>& pass, double ratio) {
  std::vector<Shape> shapes;
  for (const Operation& operation : pass) shapes.push_back({.name = "", .n = operation.n, .k = operation.k});
  return RemoteRowsOfPass(shapes, ratio, /*exact=*/false);
}

// Operations of one shape and split are alike: the first of each is checked against float64.
void CheckNumbers(Context& context, RunnerGemm& gemm, const std::vector<Operation>& pass) {
  std::vector<Operation> checked;
  for (const Operation& op : pass) {
    const bool known = std::any_of(checked.begin(), checked.end(), [&op](const Operation& other) {
      return op.n == other.n && op.k == other.k && op.batch == other.batch && op.local_rows == other.local_rows;
    });
    if (known) continue;
    checked.push_back(op);
    DAK_CUDA(cudaMemsetAsync(op.y, 0xFF, op.batch * op.n * kElementBytes, context.stream));
    gemm.Launch(op, context.stream);
    void* whole = nullptr;
    DAK_CUDA(cudaMalloc(&whole, op.bytes()));
    DAK_CUDA(cudaMemcpyAsync(whole, op.w_local, op.local_bytes(), cudaMemcpyDefault, context.stream));
    DAK_CUDA(cudaMemcpyAsync(static_cast<uint8_t*>(whole) + op.local_bytes(), op.w_remote, op.remote_bytes(),
                             cudaMemcpyDefault, context.stream));
    const double error =
        RelativeError(op.x, whole, op.y, std::min<uint64_t>(op.batch, 8), op.n, op.k, op.f16, context.stream);
    DAK_CUDA(cudaFree(whole));
    if (!(error < kMaxRelativeError)) Fail("predict", "wrong numbers");
  }
}

double MeasuredSeconds(Context& context, RunnerGemm& gemm, const std::vector<Operation>& pass, double expected_s) {
  const int passes = expected_s < 0.02 ? 2 : 1;  // so that one pass begins while another ends
  const auto enqueue = [&] {
    for (int i = 0; i < passes; ++i) {
      for (const Operation& operation : pass) gemm.Launch(operation, context.stream);
    }
  };
  return TimeGraph(context.stream, enqueue, expected_s < 0.02 ? 7 : 3, 1, kSteadyS) / passes;
}

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// What keeps a row from being measured, or nothing.
std::string NotRun(const Context& context, const Options& options, const Operation& first) {
  if (!RunnerGemm::Takes(first)) return "not run: no kernel takes this batch";
  return SecondsSince(context.started) < options.budget_s ? "" : "not run: --budget is spent";
}

std::vector<Operation> MixedPass(const Context& context, uint64_t batch) {
  std::vector<Operation> pass;
  for (uint32_t layer = 0; layer < kMixedLayers; ++layer) {
    AddLayer(context, batch, &pass);
    pass.push_back(Matrix(context, kCacheBatch, kCacheRows, 4096));
  }
  return pass;
}

struct MixedCase {
  planner::Pass described;
  std::vector<planner::RowSplit> splits;
  uint64_t bytes = 0;
};

MixedCase Describe(const std::vector<Operation>& pass) {
  MixedCase mixed;
  for (const Operation& operation : pass) {
    mixed.described.operations.push_back(Described(operation));
    mixed.splits.push_back({.rows = operation.n, .tile_rows = kTileRows, .row_bytes = operation.k * kElementBytes});
    mixed.bytes += operation.bytes();
  }
  return mixed;
}

// Predicted and measured, of the pass with these remote rows.
struct Seconds {
  double predicted = 0;
  double measured = 0;
};
Seconds RunSplit(Context& context, RunnerGemm& gemm, const planner::Profile& profile,
                 const std::vector<uint64_t>& remote_rows, std::vector<Operation>* pass) {
  Place(context, remote_rows, pass);
  CheckNumbers(context, gemm, *pass);
  const double predicted_s = PredictedSeconds(profile, *pass);
  return {predicted_s, MeasuredSeconds(context, gemm, *pass, predicted_s)};
}

}  // namespace

void RunPredict(Context& context, const Options& options) {
  const planner::Profile profile = MeasureMachine();
  Table table("predict: 32 layers of Llama-3-8B's shape, every operation at one ratio, " + context.device_name,
              &context.report);
  RunnerGemm gemm(WindowBytes(profile));
  double worst = 0;
  for (const uint64_t batch : options.batches) {
    for (const double ratio : options.ratios) {
      const auto begin = std::chrono::steady_clock::now();
      std::vector<Operation> pass;
      for (uint32_t layer = 0; layer < kLayers; ++layer) AddLayer(context, batch, &pass);
      Table::Row row;
      row.Number("batch", static_cast<double>(batch)).Number("ratio", ratio);
      if (const std::string why = NotRun(context, options, pass.front()); !why.empty()) {
        table.Add(row.Text("result", why));
        continue;
      }
      const Seconds seconds = RunSplit(context, gemm, profile, UniformRows(pass, ratio), &pass);
      const double error = seconds.predicted / seconds.measured - 1;
      worst = std::max(worst, std::abs(error));
      table.Add(row.Text("result", "ok")
                    .Number("predicted_ms", seconds.predicted * 1e3)
                    .Number("measured_ms", seconds.measured * 1e3)
                    .Number("error", error)
                    .Number("row_took_s", SecondsSince(begin)));
    }
  }
  std::printf("largest error of a prediction: %.1f %% (bar: 8 %%)\n", worst * 100);
}

void RunGreedy(Context& context, const Options& options) {
  const planner::Profile profile = MeasureMachine();
  Table table("greedy against uniform ratios: products and a stream of a KV cache, " + context.device_name,
              &context.report);
  RunnerGemm gemm(WindowBytes(profile));
  double worst = 0;
  for (const uint64_t batch : options.batches) {
    for (const double ratio : options.ratios) {
      const auto begin = std::chrono::steady_clock::now();
      std::vector<Operation> pass = MixedPass(context, batch);
      Table::Row row;
      row.Number("batch", static_cast<double>(batch)).Number("ratio", ratio);
      if (const std::string why = NotRun(context, options, pass.front()); !why.empty()) {
        table.Add(row.Text("result", why));
        continue;
      }
      MixedCase mixed = Describe(pass);
      const uint64_t budget_bytes = static_cast<uint64_t>((1 - ratio) * static_cast<double>(mixed.bytes));
      mixed.described.hbm_budget_bytes = budget_bytes;
      const planner::PassPlan plan = Unwrap(planner::Plan(profile, mixed.described), "plan");
      const Seconds uniform = RunSplit(context, gemm, profile, UniformRows(pass, ratio), &pass);
      const Seconds greedy = RunSplit(
          context, gemm, profile,
          Unwrap(planner::RoundToFastestTiles(profile, mixed.described, plan, mixed.splits, budget_bytes), "rounding"),
          &pass);
      const double predicted_factor = uniform.predicted / greedy.predicted;
      const double measured_factor = uniform.measured / greedy.measured;
      const double error = predicted_factor / measured_factor - 1;
      worst = std::max(worst, std::abs(error));
      table.Add(row.Text("result", "ok")
                    .Number("uniform_predicted_ms", uniform.predicted * 1e3)
                    .Number("uniform_ms", uniform.measured * 1e3)
                    .Number("greedy_predicted_ms", greedy.predicted * 1e3)
                    .Number("greedy_ms", greedy.measured * 1e3)
                    .Number("predicted_factor", predicted_factor)
                    .Number("measured_factor", measured_factor)
                    .Number("error", error)
                    .Number("row_took_s", SecondsSince(begin)));
    }
  }
  std::printf("largest error of a factor: %.1f %% (bar: 10 %%)\n", worst * 100);
}

}  // namespace dak::bench

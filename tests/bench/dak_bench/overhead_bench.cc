// `dak-bench launch`: what a launch costs on the CPU. `dak-bench control`: what the control page costs on the GPU.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/gemm.h"
#include "tests/bench/cpu_clock.h"
#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/device_tools.h"
#include "tests/bench/dak_bench/operation.h"
#include "tests/bench/dak_bench/table.h"
#include "tests/bench/dak_bench/timing.h"

namespace dak::bench {
namespace {

// ---- launch ---------------------------------------------------------------------------------------------------------

constexpr uint64_t kLaunchRows = 4096;
constexpr uint64_t kLaunchColumns = 4096;
constexpr uint32_t kLaunchBatch = 8;
constexpr uint32_t kLaunchesPerBatch = 200;  // fewer than the driver queues: a full queue would be waited for
constexpr size_t kBatches = 25;
constexpr uint64_t kActivationBuffers = 4;

struct CpuTime {
  double cpu_us = 0;
  double wall_us = 0;
};

// Medians, over batches of launches, of one launch's time on this thread.
CpuTime TimeLaunches(cudaStream_t stream, const std::function<void(uint32_t)>& launch) {
  std::vector<double> cpu(kBatches);
  std::vector<double> wall(kBatches);
  for (size_t batch = 0; batch < kBatches; ++batch) {
    const double cpu_start = ThreadSeconds();
    const auto start = std::chrono::steady_clock::now();
    for (uint32_t i = 0; i < kLaunchesPerBatch; ++i) launch(i);
    wall[batch] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    cpu[batch] = ThreadSeconds() - cpu_start;
    DAK_CUDA(cudaStreamSynchronize(stream));
  }
  const auto median_us = [](std::vector<double>& seconds) {
    std::nth_element(seconds.begin(), seconds.begin() + kBatches / 2, seconds.end());
    return seconds[kBatches / 2] / kLaunchesPerBatch * 1e6;
  };
  return {median_us(cpu), median_us(wall)};
}

TensorMap Encode(const void* address, bool f16, uint64_t rows) {
  static_assert(sizeof(CUtensorMap) == sizeof(TensorMap));
  CUtensorMap encoded{};
  if (rows > 0) DAK_CUDA(kernels::EncodeMatrix(&encoded, address, f16, rows, kLaunchColumns, kernels::kBoxRows));
  TensorMap map;
  std::memcpy(map.bytes.data(), &encoded, sizeof(encoded));
  return map;
}

// The public runner, as libdak calls it: x changes as an engine's does.
CpuTime TimeRunner(Context& context, kernels::GemmRunner& runner, uint64_t remote_rows) {
  const kernels::GemmShape shape{.batch = kLaunchBatch,
                                 .n = kLaunchRows,
                                 .k = kLaunchColumns,
                                 .local_rows = kLaunchRows - remote_rows,
                                 .element = context.f16 ? ElementType::kF16 : ElementType::kBf16};
  const TensorMap local = Encode(context.hbm, context.f16, shape.local_rows);
  const TensorMap remote = Encode(context.host, context.f16, remote_rows);
  kernels::GemmOperands operands{.w_local = reinterpret_cast<uint64_t>(context.hbm),
                                 .w_remote = reinterpret_cast<uint64_t>(context.host),
                                 .y = reinterpret_cast<uint64_t>(context.y),
                                 .w_local_map = &local,
                                 .w_remote_map = &remote};
  constexpr uint64_t kStride = kLaunchBatch * kLaunchColumns * kElementBytes;
  return TimeLaunches(context.stream, [&](uint32_t i) {
    operands.x = reinterpret_cast<uint64_t>(context.x) + i % kActivationBuffers * kStride;
    const absl::Status status = runner.Launch(shape, operands, {}, context.stream);
    if (!status.ok()) Fail("GemmRunner::Launch", std::string(status.message()).c_str());
  });
}

// The same of attention: a pool a layer, and contexts of one page, so that the queue never fills.
CpuTime TimeAttention(Context& context, kernels::AttentionRunner& runner) {
  constexpr uint32_t kLayers = 32;
  const kernels::AttentionShape shape{.batch = kLaunchBatch,
                                      .heads = 32,
                                      .kv_heads = 8,
                                      .head_dim = 128,
                                      .page_tokens = 16,
                                      .max_pages = 256,
                                      .local_pages = 256,
                                      .remote_pages = 16,
                                      .element = context.f16 ? ElementType::kF16 : ElementType::kBf16,
                                      .scale = 0.1f};
  const uint64_t pool_bytes = shape.local_pages * shape.kv_heads * 2 * shape.page_tokens * shape.head_dim * 2;
  const std::vector<int32_t> lengths(shape.batch, 16);
  const size_t table_words = size_t{shape.batch} * shape.max_pages;
  int32_t* lists = nullptr;  // a table and counts of zeros, then lengths
  DAK_CUDA(cudaMalloc(reinterpret_cast<void**>(&lists), (table_words + 2 * shape.batch) * sizeof(int32_t)));
  DAK_CUDA(cudaMemset(lists, 0, (table_words + shape.batch) * sizeof(int32_t)));
  DAK_CUDA(cudaMemcpy(lists + table_words + shape.batch, lengths.data(), shape.batch * sizeof(int32_t),
                      cudaMemcpyHostToDevice));
  kernels::AttentionOperands operands{.q = reinterpret_cast<uint64_t>(context.x),
                                      .kv_remote = reinterpret_cast<uint64_t>(context.host),
                                      .out = reinterpret_cast<uint64_t>(context.y),
                                      .block_table = reinterpret_cast<uint64_t>(lists),
                                      .lengths = reinterpret_cast<uint64_t>(lists + table_words + shape.batch),
                                      .remote_counts = reinterpret_cast<uint64_t>(lists + table_words),
                                      .context_ready = true};
  const CpuTime time = TimeLaunches(context.stream, [&](uint32_t i) {
    operands.kv_local = reinterpret_cast<uint64_t>(context.hbm) + i % kLayers * pool_bytes;
    const absl::Status status = runner.Launch(shape, operands, {}, context.stream);
    if (!status.ok()) Fail("AttentionRunner::Launch", std::string(status.message()).c_str());
  });
  DAK_CUDA(cudaFree(lists));
  return time;
}

// ---- control --------------------------------------------------------------------------------------------------------

constexpr uint64_t kControlRows = 28'672;
constexpr uint64_t kControlColumns = 4096;
constexpr uint64_t kControlBatch = 8;
constexpr int kControlRepeats = 101;
constexpr uint64_t kControlWindowBytes = 184'000;              // of a session that has the link alone
constexpr uint64_t kControlUnboundBytes = uint64_t{64} << 20;  // more than all stages hold
constexpr double kControlGraphSeconds = 5e-3;

// Operations over weights that don't fit in L2.
std::vector<Operation> MakeOperations(const Context& context, double ratio) {
  constexpr uint64_t kBytes = kControlRows * kControlColumns * kElementBytes;
  constexpr uint64_t kCopies = 4;
  std::vector<Operation> operations;
  for (uint64_t i = 0; i < kCopies; ++i) {
    Operation& op = operations.emplace_back(
        Operation{.batch = kControlBatch, .n = kControlRows, .k = kControlColumns, .f16 = context.f16});
    op.local_rows = op.n - static_cast<uint64_t>(std::llround(ratio * static_cast<double>(op.n)));
    op.x = context.x;
    op.y = context.y;
    op.w_local = context.hbm + i * kBytes;
    op.w_remote = context.host + i * op.remote_bytes();
  }
  return operations;
}

}  // namespace

void RunLaunch(Context& context) {
  Table table("launch: microseconds of the calling thread, " + context.device_name, &context.report);
  auto runner = kernels::CreateCudaGemmRunner(0);
  if (!runner.ok()) Fail("CreateCudaGemmRunner", std::string(runner.status().message()).c_str());
  const auto add = [&](const char* name, const CpuTime& time) {
    table.Add(Table::Row().Text("launch", name).Number("cpu_us", time.cpu_us).Number("wall_us", time.wall_us));
  };
  add("empty_kernel", TimeLaunches(context.stream, [&](uint32_t) { StreamPlain(context.hbm, 0, 1, context.stream); }));
  add("dak_all_hbm", TimeRunner(context, **runner, 0));
  add("dak_2_percent", TimeRunner(context, **runner, kLaunchRows / 50));
  auto attention = kernels::CreateCudaAttentionRunner(0, {});
  if (!attention.ok()) Fail("CreateCudaAttentionRunner", std::string(attention.status().message()).c_str());
  add("dak_attention", TimeAttention(context, **attention));
  if (context.cublas == nullptr) return;
  add("cublas", TimeLaunches(context.stream, [&](uint32_t) {
        context.cublas->Gemm(context.x, context.hbm, context.y, kLaunchBatch, kLaunchRows, kLaunchColumns, kLaunchRows,
                             context.f16, context.stream);
      }));
}

// What is compared: where the pages are, and how much may be in flight.
struct ControlCase {
  Pages pages;
  uint64_t window_bytes;
};

// The page's own cost is what it costs to have it on the host and not in HBM, with the same window. Against no page at
// all there is no window either: that is another comparison, with a window that binds nothing.
void RunControl(Context& context) {
  constexpr ControlCase kCases[] = {{Pages::kNone, 0},
                                    {Pages::kHost, kControlUnboundBytes},
                                    {Pages::kHbm, kControlWindowBytes},
                                    {Pages::kHost, kControlWindowBytes},
                                    {Pages::kControlOnHost, kControlWindowBytes},
                                    {Pages::kReportOnHost, kControlWindowBytes}};
  Table table("control: the same work with control and report page, and without, " + context.device_name,
              &context.report);
  // A window is the page's, so each case has a kernel with pages of its own.
  std::vector<std::unique_ptr<DakGemm>> kernels;
  for (const ControlCase& c : kCases) {
    kernels.push_back(std::make_unique<DakGemm>());
    kernels.back()->SetPages(c.pages);
    kernels.back()->SetWindow(c.window_bytes);
  }
  for (const double ratio : {0.0, 0.01, 0.02, 0.05, 0.1, 0.5}) {
    const std::vector<Operation> operations = MakeOperations(context, ratio);
    const Operation& one = operations[0];
    const double limit_s =
        context.Limit(one.local_bytes(), one.remote_bytes(), 2.0 * one.batch * kControlRows * kControlColumns);
    const auto launches = static_cast<size_t>(kControlGraphSeconds / limit_s) + 1;
    std::vector<std::function<void()>> works;
    for (const auto& kernel : kernels) {
      CheckSplitNumbers(context, *kernel, one);
      works.emplace_back([&, dak = kernel.get()] {
        for (size_t i = 0; i < launches; ++i) dak->Launch(operations[i % operations.size()], context.stream);
      });
    }
    const std::vector<double> seconds = TimeGraphsInTurn(context.stream, works, kControlRepeats);
    const auto us = [&](size_t i) { return seconds[i] / static_cast<double>(launches) * 1e6; };
    const auto more = [&](size_t with, size_t without) { return (seconds[with] / seconds[without] - 1) * 100; };
    table.Add(Table::Row()
                  .Number("ratio", ratio)
                  .Number("none_us", us(0))
                  .Number("unbound_us", us(1))
                  .Number("hbm_us", us(2))
                  .Number("host_us", us(3))
                  .Number("page_percent", more(3, 2))
                  .Number("control_percent", more(4, 2))
                  .Number("report_percent", more(5, 2))
                  .Number("unbound_percent", more(1, 0))
                  .Number("window_percent", more(2, 0)));
  }
}

}  // namespace dak::bench

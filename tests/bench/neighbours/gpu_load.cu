#include <cuda_runtime_api.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <vector>

#include "client/demo/model.h"
#include "kernels/gemm_launch.h"
#include "kernels/stream.h"
#include "tests/bench/neighbours/load.h"

namespace dak::bench {
namespace {

constexpr uint32_t kBatch = 8;
constexpr uint32_t kN = 4096;
constexpr uint32_t kK = 8192;
constexpr uint64_t kElementBytes = 2;
constexpr int kLaunches = 4;                       // a batch
constexpr uint32_t kIdleSharedBytes = 200 * 1024;  // leaves no room for a second CTA on the SM
constexpr uint64_t kIdleNs = 20'000'000;
constexpr uint64_t kStreamBytes = uint64_t{2} << 30;
constexpr uint32_t kStreamPasses = 4;  // a batch: 3 ms

// The first call that failed, by name.
class Calls {
 public:
  void Make(cudaError_t error, const char* what) {
    if (error == cudaSuccess || !failure_.empty()) return;
    failure_ = std::string(what) + ": " + cudaGetErrorString(error);
  }
  const std::string& failure() const { return failure_; }

 private:
  std::string failure_;
};

__global__ void HoldMultiprocessor(uint64_t ns) {
  uint64_t begin = 0, now = 0;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
  do {
    __nanosleep(2000);
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (now - begin < ns);
}

class IdleLoad final : public Load {
 public:
  explicit IdleLoad(uint32_t ctas) : ctas_(ctas) {}
  std::string Prepare() override {
    Calls calls;
    calls.Make(cudaFuncSetAttribute(HoldMultiprocessor, cudaFuncAttributeMaxDynamicSharedMemorySize, kIdleSharedBytes),
               "cudaFuncSetAttribute");
    return calls.failure();
  }
  std::string RunBatch() override {
    Calls calls;
    HoldMultiprocessor<<<ctas_, 32, kIdleSharedBytes>>>(kIdleNs);
    calls.Make(cudaGetLastError(), "the idle kernel");
    calls.Make(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return calls.failure();
  }
  std::string Check() override { return ""; }
  Sample Now() override { return {.time_ns = NowNs()}; }

 private:
  const uint32_t ctas_;
};

// Memory lives as long as the process.
class StreamLoad final : public Load {
 public:
  std::string Prepare() override {
    Calls calls;
    calls.Make(cudaMalloc(&data_, kStreamBytes), "cudaMalloc");
    calls.Make(kernels::FillRandom(data_, kStreamBytes / kElementBytes, false, 1, nullptr), "FillRandom");
    calls.Make(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return calls.failure();
  }
  std::string RunBatch() override {
    Calls calls;
    const kernels::BulkShape shape = {.ctas = VisibleMultiprocessors(), .stages = 8, .chunk_bytes = 8192};
    calls.Make(kernels::StreamBulk(data_, kStreamBytes, shape, kStreamPasses, nullptr), "StreamBulk");
    calls.Make(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    bytes_ += kStreamBytes * kStreamPasses;
    return calls.failure();
  }
  std::string Check() override { return ""; }  // nothing is computed
  Sample Now() override { return {.time_ns = NowNs(), .bytes = bytes_.load(), .window_bytes = 0}; }

 private:
  void* data_ = nullptr;
  std::atomic<uint64_t> bytes_{0};
};

// Memory lives as long as the process.
class FloodLoad final : public Load {
 public:
  explicit FloodLoad(const NeighboursOptions& options)
      : options_(options), seed_(std::hash<std::string>()(options.name)), layer_{"w", kN, kK} {}

  std::string Prepare() override {
    Calls calls;
    int multiprocessors = 0;
    calls.Make(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
    calls.Make(cudaHostAlloc(reinterpret_cast<void**>(&w_), layer_.bytes(), cudaHostAllocMapped), "cudaHostAlloc");
    calls.Make(cudaMalloc(reinterpret_cast<void**>(&x_), kBatch * kK * kElementBytes), "cudaMalloc");
    calls.Make(cudaMalloc(reinterpret_cast<void**>(&y_), kBatch * kN * kElementBytes), "cudaMalloc");
    calls.Make(cudaHostAlloc(reinterpret_cast<void**>(&control_), sizeof(*control_), cudaHostAllocMapped),
               "cudaHostAlloc");
    calls.Make(cudaHostAlloc(reinterpret_cast<void**>(&report_), sizeof(*report_), cudaHostAllocMapped),
               "cudaHostAlloc");
    const size_t share_bytes = kernels::DecodeShares(multiprocessors + options_.ctas) * sizeof(float);
    calls.Make(cudaMalloc(reinterpret_cast<void**>(&launch_.workspace.link), sizeof(kernels::LinkCounters)),
               "cudaMalloc");
    calls.Make(cudaMalloc(reinterpret_cast<void**>(&launch_.workspace.shares), share_bytes), "cudaMalloc");
    if (!calls.failure().empty()) return calls.failure();
    calls.Make(cudaMemset(launch_.workspace.link, 0, sizeof(kernels::LinkCounters)), "cudaMemset");
    calls.Make(cudaMemset(launch_.workspace.shares, kernels::kAbsentByte, share_bytes), "cudaMemset");
    calls.Make(kernels::PrepareDecodeGemm(), "PrepareDecodeGemm");
    for (uint64_t row = 0; row < kN; ++row) demo::FillRow(seed_, 0, row, std::span(w_ + row * kK, kK));
    x_elements_.resize(kBatch * kK);
    demo::FillRow(seed_, 1, 0, x_elements_);
    calls.Make(cudaMemcpy(x_, x_elements_.data(), kBatch * kK * kElementBytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    std::memset(control_, 0, sizeof(*control_));
    std::memset(report_, 0, sizeof(*report_));
    control_->window_bytes = options_.window_bytes != 0 ? options_.window_bytes : uint64_t{1} << 40;
    SetLaunch(calls);
    return calls.failure();
  }

  std::string RunBatch() override {
    Calls calls;
    for (int i = 0; i < kLaunches; ++i) calls.Make(kernels::LaunchDecodeGemm(launch_, nullptr), "LaunchDecodeGemm");
    calls.Make(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return calls.failure();
  }

  std::string Check() override {
    Calls calls;
    std::vector<uint16_t> y(kBatch * kN);
    calls.Make(cudaMemcpy(y.data(), y_, y.size() * kElementBytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
    if (!calls.failure().empty()) return calls.failure();
    const std::vector<uint64_t> rows = {0, 63, 64, 1000, kN / 2, kN - 1};
    const double error = demo::WorstError(layer_, seed_, 0, rows, x_elements_, y, kBatch);
    return error <= demo::kTolerance ? "" : "wrong numbers: worst relative error " + std::to_string(error);
  }

  Sample Now() override {
    return {.time_ns = NowNs(),
            .bytes = __atomic_load_n(&report_->bytes, __ATOMIC_RELAXED),
            .window_bytes = options_.window_bytes};
  }

 private:
  void SetLaunch(Calls& calls) {
    launch_.batch = kBatch;
    launch_.n = kN;
    launch_.k = kK;
    launch_.local_rows = 0;
    launch_.y = y_;
    launch_.control = control_;
    launch_.report = report_;
    launch_.overlap_previous = false;  // else the next launch's CTAs hold as many SMs, and wait there
    launch_.plan = kernels::PlanGemm(kBatch, kN, kK, 0, kernels::DeviceTraits{}, kernels::LinkTraits{});
    launch_.plan.remote_ctas = std::min(options_.ctas, kernels::kMaxRemoteCtas);
    calls.Make(kernels::EncodeMatrix(&launch_.x_map, x_, false, kBatch, kK, launch_.plan.batch_tile), "EncodeMatrix");
    calls.Make(kernels::EncodeMatrix(&launch_.w_remote_map, w_, false, kN, kK, kernels::kBoxRows), "EncodeMatrix");
  }

  const NeighboursOptions options_;
  const uint64_t seed_;
  const demo::LinearLayer layer_;
  uint16_t* w_ = nullptr;
  uint16_t* x_ = nullptr;
  uint16_t* y_ = nullptr;
  v1::LinkControl* control_ = nullptr;
  v1::LinkReport* report_ = nullptr;
  kernels::DecodeLaunch launch_;
  std::vector<uint16_t> x_elements_;
};

}  // namespace

std::unique_ptr<Load> CreateGpuLoad(const NeighboursOptions& options) {
  if (options.role == "idle") return std::make_unique<IdleLoad>(options.ctas);
  if (options.role == "stream") return std::make_unique<StreamLoad>();
  return std::make_unique<FloodLoad>(options);
}

uint32_t VisibleMultiprocessors() {
  int count = 0;
  if (cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0) != cudaSuccess) return 0;
  return static_cast<uint32_t>(count);
}

}  // namespace dak::bench

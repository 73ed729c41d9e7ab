#include "tests/bench/dak_bench/operation.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/device_tools.h"
#include "tests/bench/dak_bench/timing.h"

namespace dak::bench {
namespace {

constexpr uint64_t kStreamedHbm = uint64_t{2} << 30;
constexpr uint64_t kStreamedHost = uint64_t{256} << 20;
constexpr uint64_t kMatrix = 8192;
constexpr size_t kReportOffset = v1::kControlPageBytes / 2;  // control and report share a page here

double MeasureHbm(const Context& context) {
  const uint64_t bytes = std::min(context.hbm_bytes, kStreamedHbm);
  double best = 0;
  for (const uint32_t ctas : {132u, 264u, 528u}) {
    best = std::max(best,
                    bytes / TimeEvents(context.stream, [&] { StreamPlain(context.hbm, bytes, ctas, context.stream); }));
  }
  for (const uint32_t chunk : {8192u, 16'384u}) {
    best = std::max(best, bytes / TimeEvents(context.stream,
                                             [&] { StreamBulk(context.hbm, bytes, 132, 8, chunk, context.stream); }));
  }
  return best;
}

double MeasureLink(const Context& context) {
  const uint64_t bytes = std::min(context.host_bytes, kStreamedHost);
  double best = bytes / TimeEvents(
                            context.stream, [&] { StreamPlain(context.host, bytes, 132, context.stream); }, 5);
  for (const uint32_t chunk : {4096u, 8192u}) {
    best = std::max(
        best,
        bytes / TimeEvents(
                    context.stream,
                    [&] { StreamBulk(context.host, bytes, 16, 131'072 / 16 / chunk * 2, chunk, context.stream); }, 5));
  }
  return best;
}

}  // namespace

void CheckSplitNumbers(Context& context, DakGemm& dak, const Operation& operation,
                       const std::optional<kernels::GemmPlan>& plan) {
  DAK_CUDA(cudaMemsetAsync(operation.y, 0xFF, operation.batch * operation.n * kElementBytes, context.stream));
  dak.Launch(operation, context.stream, plan);
  const double error = RelativeError(operation.x, operation.w_local, operation.y, 1, operation.local_rows, operation.k,
                                     context.f16, context.stream);
  const double remote_error = RelativeError(
      operation.x, operation.w_remote, static_cast<uint8_t*>(operation.y) + operation.local_rows * kElementBytes, 1,
      operation.n - operation.local_rows, operation.k, context.f16, context.stream);
  const bool local_wrong = operation.local_rows > 0 && !(error < kMaxRelativeError);
  const bool remote_wrong = operation.local_rows < operation.n && !(remote_error < kMaxRelativeError);
  if (local_wrong || remote_wrong) Fail("the split operation", "wrong numbers");
}

DakGemm::DakGemm() {
  int multiprocessors = 0;
  DAK_CUDA(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  traits_.multiprocessors = static_cast<uint32_t>(multiprocessors);
  DAK_CUDA(kernels::PrepareDecodeGemm());
  DAK_CUDA(kernels::CountClusteredCtas(&traits_.clustered_ctas));
  const size_t share_bytes = kernels::DecodeShares(traits_.multiprocessors) * sizeof(float);
  DAK_CUDA(cudaMalloc(reinterpret_cast<void**>(&workspace_.link), sizeof(kernels::LinkCounters)));
  DAK_CUDA(cudaMalloc(reinterpret_cast<void**>(&workspace_.shares), share_bytes));
  DAK_CUDA(cudaMemset(workspace_.link, 0, sizeof(kernels::LinkCounters)));
  DAK_CUDA(cudaMemset(workspace_.shares, kernels::kAbsentByte, share_bytes));
  DAK_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&pages_), v1::kControlPageBytes, cudaHostAllocMapped));
  std::memset(pages_, 0, v1::kControlPageBytes);
  control_ = reinterpret_cast<v1::LinkControl*>(pages_);
  report_ = reinterpret_cast<v1::LinkReport*>(pages_ + kReportOffset);
  DAK_CUDA(cudaMalloc(reinterpret_cast<void**>(&hbm_pages_), v1::kControlPageBytes));
  DAK_CUDA(cudaMemset(hbm_pages_, 0, v1::kControlPageBytes));
  DAK_CUDA(cudaDeviceSynchronize());
}

void DakGemm::SetWindow(uint64_t bytes) {
  control_->window_bytes = bytes;
  DAK_CUDA(cudaMemcpy(hbm_pages_, control_, sizeof(*control_), cudaMemcpyHostToDevice));
}

DakGemm::~DakGemm() {
  cudaFree(workspace_.link);
  cudaFree(workspace_.shares);
  cudaFreeHost(pages_);
  cudaFree(hbm_pages_);
}

kernels::GemmPlan DakGemm::Plan(const Operation& operation) const {
  kernels::GemmPlan plan = kernels::PlanGemm(static_cast<uint32_t>(operation.batch), operation.n, operation.k,
                                             operation.local_rows, traits_, {});
  if (handover_ == kPlannedHandover) return plan;
  plan.early_link = handover_ >= 1;
  plan.early_release = handover_ >= 2;
  return plan;
}

kernels::GemmPlan DakGemm::PlanWithUnits(const Operation& operation, uint32_t most_units) const {
  kernels::GemmPlan plan = Plan(operation);
  plan.most_units = most_units;
  kernels::PlanCtas(operation.n, operation.k, operation.local_rows, traits_, {}, plan);
  return plan;
}

kernels::GemmPlan DakGemm::PlanWithAllSms(const Operation& operation) const {
  kernels::GemmPlan plan = Plan(operation);
  plan.halves = plan.whole_tiles = false;
  plan.local_ctas = (traits_.CtasIn(plan.cluster) - plan.remote_ctas) / plan.cluster * plan.cluster;
  return plan;
}

kernels::GemmPlan DakGemm::Plan(const Operation& operation, const kernels::TuningChoice& choice) const {
  return kernels::ApplyChoice(choice, operation.n, operation.k, operation.local_rows, traits_, {}, Plan(operation));
}

void DakGemm::Launch(const Operation& operation, cudaStream_t stream, const std::optional<kernels::GemmPlan>& plan) {
  kernels::DecodeLaunch launch;
  launch.batch = static_cast<uint32_t>(operation.batch);
  launch.n = operation.n;
  launch.k = operation.k;
  launch.local_rows = operation.local_rows;
  launch.f16 = operation.f16;
  launch.plan = plan.value_or(Plan(operation));
  DAK_CUDA(kernels::EncodeMatrix(&launch.x_map, operation.x, operation.f16, operation.batch, operation.k,
                                 launch.plan.batch_tile / launch.plan.cluster));
  if (operation.local_rows > 0) {
    DAK_CUDA(kernels::EncodeMatrix(
        &launch.w_local_map, operation.w_local, operation.f16, operation.local_rows, operation.k, kernels::kBoxRows,
        launch.plan.promote_local ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_NONE));
  }
  if (operation.local_rows < operation.n) {
    DAK_CUDA(kernels::EncodeMatrix(&launch.w_remote_map, operation.w_remote, operation.f16,
                                   operation.n - operation.local_rows, operation.k, kernels::kBoxRows));
  }
  launch.y = operation.y;
  if (where_ != Pages::kNone) {
    uint8_t* const control = where_ == Pages::kHost || where_ == Pages::kControlOnHost ? pages_ : hbm_pages_;
    uint8_t* const report = where_ == Pages::kHost || where_ == Pages::kReportOnHost ? pages_ : hbm_pages_;
    launch.control = reinterpret_cast<v1::LinkControl*>(control);
    launch.report = reinterpret_cast<v1::LinkReport*>(report + kReportOffset);
  }
  launch.workspace = workspace_;
  launch.overlap_previous = overlap_;
  DAK_CUDA(kernels::LaunchDecodeGemm(launch, stream));
}

Context::Context(uint64_t hbm_size, uint64_t host_size, bool use_f16)
    : f16(use_f16), hbm_bytes(hbm_size), host_bytes(host_size) {
  cudaDeviceProp properties;
  DAK_CUDA(cudaGetDeviceProperties(&properties, 0));
  device_name = properties.name;
  DAK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  DAK_CUDA(cudaMalloc(reinterpret_cast<void**>(&hbm), hbm_bytes));
  DAK_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&host), host_bytes, cudaHostAllocMapped));
  DAK_CUDA(cudaMalloc(&x, kActivations * kElementBytes));
  DAK_CUDA(cudaMalloc(&y, kActivations * kElementBytes));
  FillRandom(hbm, hbm_bytes / kElementBytes, f16, 1, stream);
  FillRandom(host, host_bytes / kElementBytes, f16, 2, stream);
  FillRandom(x, kActivations, f16, 3, stream);
  DAK_CUDA(cudaStreamSynchronize(stream));
  cublas = Cublas::Open();
  ceilings.hbm_bytes_per_s = MeasureHbm(*this);
  ceilings.link_bytes_per_s = MeasureLink(*this);
  const uint64_t copied = std::min({kStreamedHost, host_bytes, hbm_bytes});
  ceilings.copy_engine_bytes_per_s = copied / TimeEvents(stream, [&] {
                                       DAK_CUDA(cudaMemcpyAsync(hbm, host, copied, cudaMemcpyHostToDevice, stream));
                                     });
  if (cublas != nullptr && hbm_bytes >= 3 * kMatrix * kMatrix * kElementBytes) {
    const uint64_t matrix_bytes = kMatrix * kMatrix * kElementBytes;
    ceilings.flops_per_s = 2.0 * kMatrix * kMatrix * kMatrix / TimeEvents(stream, [&] {
                             cublas->Gemm(hbm, hbm + matrix_bytes, hbm + 2 * matrix_bytes, kMatrix, kMatrix, kMatrix,
                                          kMatrix, f16, stream);
                           });
    FillRandom(hbm, hbm_bytes / kElementBytes, f16, 1, stream);  // the product overwrote it
    DAK_CUDA(cudaStreamSynchronize(stream));
  }
  std::printf("%s, %s: HBM %.0f GB/s, link by SMs %.1f GB/s, copy engine %.1f GB/s, cuBLAS %.0f TFLOP/s\n",
              device_name.c_str(), f16 ? "f16" : "bf16", ceilings.hbm_bytes_per_s * 1e-9,
              ceilings.link_bytes_per_s * 1e-9, ceilings.copy_engine_bytes_per_s * 1e-9, ceilings.flops_per_s * 1e-12);
}

void Context::RefreshLink() {
  constexpr uint64_t kBytes = uint64_t{64} << 20;
  constexpr uint32_t kCtas = 16;
  constexpr uint32_t kStages = 4;
  constexpr uint32_t kChunk = 4096;
  ceilings.link_bytes_per_s =
      kBytes / TimeEvents(
                   stream, [&] { StreamBulk(host, kBytes, kCtas, kStages, kChunk, stream); }, 5, 1);
}

uint8_t* Context::TakeHost(uint64_t& used, uint64_t size) const {
  if (size > host_bytes) Fail("the host's arena", "too small for one operation");
  if (used + size > host_bytes) used = 0;
  uint8_t* const place = host + used;
  used += size;
  return place;
}

double Context::Limit(double local_bytes, double link_bytes, double flops) const {
  const double compute = ceilings.flops_per_s > 0 ? flops / ceilings.flops_per_s : 0;
  return std::max({local_bytes / ceilings.hbm_bytes_per_s, link_bytes / ceilings.link_bytes_per_s, compute});
}

}  // namespace dak::bench

#include "tests/bench/dak_bench/prefill_tune.h"

#include <cstring>

#include "tests/bench/dak_bench/check.h"

namespace dak::bench {
namespace {

template <class T>
T* Zeroed(size_t count) {
  void* memory = nullptr;
  DAK_CUDA(cudaMalloc(&memory, count * sizeof(T)));
  DAK_CUDA(cudaMemset(memory, 0, count * sizeof(T)));
  return static_cast<T*>(memory);
}

}  // namespace

PrefillTuner::PrefillTuner(uint64_t window_bytes) {
  int multiprocessors = 0;
  DAK_CUDA(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  device_.multiprocessors = static_cast<uint32_t>(multiprocessors);
  DAK_CUDA(kernels::PreparePrefillGemm());
  workspace_ = {Zeroed<kernels::LinkCounters>(1), Zeroed<kernels::PrefillCounters>(1),
                Zeroed<uint8_t>(kernels::kPrefillRingBytes), Zeroed<uint64_t>(kernels::kPrefillRingSlots)};
  DAK_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&control_), sizeof(v1::LinkControl), cudaHostAllocMapped));
  std::memset(control_, 0, sizeof(*control_));
  control_->window_bytes = window_bytes;
  DAK_CUDA(cudaDeviceSynchronize());
}

PrefillTuner::~PrefillTuner() {
  cudaFree(workspace_.link);
  cudaFree(workspace_.counters);
  cudaFree(workspace_.ring);
  cudaFree(workspace_.slots);
  cudaFreeHost(control_);
}

std::vector<PrefillTuner::Variant> PrefillTuner::Variants(const Operation& operation) const {
  std::vector<Variant> variants;
  for (const uint32_t row_boxes : {2u, 4u}) {
    for (const bool keep_x : {false, true}) {
      for (uint32_t fetchers = 2; fetchers <= kernels::kMaxPrefillFetchers; fetchers += 2) {
        if (operation.remote_bytes() == 0 && fetchers > 2) break;
        kernels::PrefillTraits traits;
        traits.fetcher_bytes_per_s = 1;  // as many as there may be
        traits.most_fetchers = fetchers;
        kernels::PrefillPlan plan =
            kernels::PlanPrefillTile(row_boxes, static_cast<uint32_t>(operation.batch), operation.n, operation.k,
                                     operation.local_rows, device_, {}, traits);
        plan.keep_x = keep_x;
        const std::string name =
            std::to_string(row_boxes * kernels::kBoxRows) + "f" + std::to_string(plan.fetchers) + (keep_x ? "k" : "");
        if (!variants.empty() && variants.back().name == name) break;  // the device has no room for more
        variants.push_back({name, plan});
      }
    }
  }
  return variants;
}

void PrefillTuner::Launch(const Operation& operation, const kernels::PrefillPlan& plan, cudaStream_t stream) const {
  kernels::PrefillLaunch launch;
  launch.batch = static_cast<uint32_t>(operation.batch);
  launch.n = operation.n;
  launch.k = operation.k;
  launch.local_rows = operation.local_rows;
  launch.f16 = operation.f16;
  const auto encode = [&](CUtensorMap& map, const void* address, uint64_t rows, uint64_t columns, uint32_t box_rows) {
    if (rows > 0) DAK_CUDA(kernels::EncodeMatrix(&map, address, operation.f16, rows, columns, box_rows));
  };
  encode(launch.x_map, operation.x, operation.batch, operation.k, kernels::kPrefillBatchTile);
  encode(launch.w_local_map, operation.w_local, operation.local_rows, operation.k, kernels::kBoxRows);
  encode(launch.w_remote_map, operation.w_remote, operation.n - operation.local_rows, operation.k, kernels::kBoxRows);
  launch.has_y_map = operation.n % 8 == 0;
  if (launch.has_y_map) encode(launch.y_map, operation.y, operation.batch, operation.n, kernels::kBoxRows);
  launch.y = operation.y;
  launch.control = control_;
  launch.workspace = workspace_;
  launch.plan = plan;
  DAK_CUDA(kernels::LaunchPrefillGemm(launch, stream));
}

}  // namespace dak::bench

#include "tests/bench/dak_bench/attention_operation.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "tests/bench/dak_bench/check.h"

namespace dak::bench {
namespace {

constexpr uint64_t kRotatedBytes = uint64_t{300} << 20;  // six times an H100's L2
constexpr uint32_t kSeed = 20'261'125;

template <class T>
T* DeviceMemory(size_t count) {
  void* memory = nullptr;
  DAK_CUDA(cudaMalloc(&memory, count * sizeof(T)));
  DAK_CUDA(cudaMemset(memory, 0, count * sizeof(T)));
  return static_cast<T*>(memory);
}

template <class T>
T* Upload(const std::vector<T>& values) {
  T* memory = DeviceMemory<T>(std::max<size_t>(values.size(), 1));
  DAK_CUDA(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return memory;
}

// The numbers of a pool's pages, all over it or in order.
std::vector<int32_t> Numbers(uint64_t pages, bool in_order) {
  std::vector<int32_t> numbers(pages);
  std::iota(numbers.begin(), numbers.end(), 0);
  if (!in_order) std::shuffle(numbers.begin(), numbers.end(), std::mt19937(kSeed));
  return numbers;
}

}  // namespace

uint64_t AttentionConfig::remote_pages() const {
  return static_cast<uint64_t>(std::llround(ratio * static_cast<double>(pages())));
}

AttentionOperation::AttentionOperation(Context& context, const AttentionConfig& config)
    : context_(context), config_(config) {
  int multiprocessors = 0;
  DAK_CUDA(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  kernels::DeviceTraits traits{.multiprocessors = static_cast<uint32_t>(multiprocessors),
                               .hbm_bytes_per_s = context.ceilings.hbm_bytes_per_s};
  plan_ = kernels::PlanAttention(config.head_dim, traits, {});
  DAK_CUDA(kernels::PrepareAttention());
  DAK_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&pages_), v1::kControlPageBytes, cudaHostAllocMapped));
  std::memset(pages_, 0, v1::kControlPageBytes);
  control_ = reinterpret_cast<v1::LinkControl*>(pages_);
  report_ = reinterpret_cast<v1::LinkReport*>(pages_ + v1::kControlPageBytes / 2);

  launch_.batch = config.batch;
  launch_.heads = config.heads;
  launch_.kv_heads = config.kv_heads;
  launch_.head_dim = config.head_dim;
  launch_.page_tokens = config.page_tokens;
  launch_.max_pages = config.context / config.page_tokens;
  launch_.f16 = context.f16;
  launch_.scale = 1 / std::sqrt(static_cast<float>(config.head_dim));
  launch_.q = context.x;
  launch_.out = context.y;
  launch_.context_ready = true;  // as in a decode step
  launch_.control = control_;
  launch_.report = report_;
  const size_t rows = kernels::AttentionRows(config.batch, config.heads, plan_.ctas);
  launch_.workspace = {DeviceMemory<kernels::LinkCounters>(1), DeviceMemory<float>(rows * config.head_dim),
                       DeviceMemory<float2>(rows), DeviceMemory<uint32_t>(size_t{config.batch} * config.kv_heads)};
  MakeTables();
  SetPromotion(true);
  DAK_CUDA(cudaDeviceSynchronize());
}

void AttentionOperation::MakeTables() {
  const uint64_t local_pages = context_.hbm_bytes / config_.page_bytes();
  const uint64_t remote_pages = context_.host_bytes / config_.page_bytes();
  const uint64_t remote = config_.remote_pages();
  const uint64_t local = config_.pages() - remote;
  copies_ = std::max<uint64_t>(2, kRotatedBytes / config_.bytes() + 1);
  if (local > 0) copies_ = std::min<uint64_t>(copies_, local_pages / local);
  if (remote > 0) copies_ = std::min<uint64_t>(copies_, remote_pages / remote);
  if (copies_ == 0) Fail("attention", "the shape doesn't fit in the bench's memory");
  const std::vector<int32_t> pools[2] = {Numbers(local_pages, config_.in_order),
                                         Numbers(remote_pages, config_.in_order)};
  size_t used[2] = {};
  std::vector<int32_t> counts;
  for (uint64_t i = 0; i < config_.batch; ++i) {
    counts.push_back(static_cast<int32_t>((i + 1) * remote / config_.batch - i * remote / config_.batch));
  }
  std::vector<int32_t> tables;
  for (size_t copy = 0; copy < copies_; ++copy) {
    for (const int32_t count : counts) {
      for (int32_t page = 0; page < static_cast<int32_t>(launch_.max_pages); ++page) {
        const int tier = page < count ? 1 : 0;
        tables.push_back(pools[tier][used[tier]++]);
      }
    }
  }
  tables_ = Upload(tables);
  lengths_ = Upload(std::vector<int32_t>(config_.batch, static_cast<int32_t>(config_.context)));
  counts_ = Upload(counts);
  launch_.lengths = lengths_;
  if (remote > 0) launch_.remote_counts = counts_;
}

void AttentionOperation::SetPromotion(bool promote_local) {
  const auto encode = [&](CUtensorMap* map, const void* pool, uint64_t bytes, bool promote) {
    const uint64_t pages = bytes / config_.page_bytes();
    DAK_CUDA(kernels::EncodePages(map, pool,
                                  {context_.f16, pages, config_.kv_heads, config_.page_tokens, config_.head_dim},
                                  promote ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_NONE));
  };
  encode(&launch_.local_map, context_.hbm, context_.hbm_bytes, promote_local);
  encode(&launch_.remote_map, context_.host, context_.host_bytes, false);
}

AttentionOperation::~AttentionOperation() {
  cudaFree(launch_.workspace.link);
  cudaFree(launch_.workspace.outputs);
  cudaFree(launch_.workspace.statistics);
  cudaFree(launch_.workspace.arrivals);
  cudaFree(tables_);
  cudaFree(lengths_);
  cudaFree(counts_);
  cudaFreeHost(pages_);
}

void AttentionOperation::Launch(size_t copy, const kernels::AttentionPlan& plan) {
  launch_.block_table = tables_ + copy % copies_ * config_.batch * launch_.max_pages;
  launch_.plan = plan;
  DAK_CUDA(kernels::LaunchAttention(launch_, context_.stream));
}

double AttentionOperation::RelativeError(const kernels::AttentionPlan& plan) {
  const uint64_t elements = uint64_t{config_.batch} * config_.heads * config_.head_dim;
  DAK_CUDA(cudaMemsetAsync(context_.y, 0xFF, elements * kElementBytes, context_.stream));
  Launch(copies_ - 1, plan);  // what the checked launch may overlap
  Launch(0, plan);
  return AttentionError(launch_, context_.hbm, context_.host, context_.stream);
}

}  // namespace dak::bench

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>

#include "tests/bench/dak_bench/attention_operation.h"
#include "tests/bench/dak_bench/check.h"

namespace dak::bench {
namespace {

constexpr uint32_t kWarps = 8;
constexpr uint32_t kMostColumns = 4;  // of a lane

struct Inputs {
  const uint16_t* q;
  const uint16_t* out;
  const uint16_t* pools[2];  // local, remote
  const int32_t* table;
  const int32_t* lengths;
  const int32_t* remote_counts;
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t page_tokens;
  uint32_t max_pages;
  double scale;
  bool f16;
};

__device__ double ToDouble(uint16_t bits, bool f16) {
  return f16 ? __half2float(__ushort_as_half(bits)) : __bfloat162float(__ushort_as_bfloat16(bits));
}

// One CTA a query head, a warp every eighth token; sums[0] += difference^2, sums[1] += expected^2.
__global__ void CompareAttention(Inputs in, double* sums) {
  __shared__ double largest[kWarps];
  __shared__ double total[kWarps];
  __shared__ double columns[kWarps][32 * kMostColumns];
  const uint32_t sequence = blockIdx.x / in.heads;
  const uint32_t kv_head = blockIdx.x % in.heads / (in.heads / in.kv_heads);
  const uint32_t warp = threadIdx.x / 32;
  const uint32_t lane = threadIdx.x % 32;
  const uint16_t* q = in.q + uint64_t{blockIdx.x} * in.head_dim;
  double most = -INFINITY;
  double sum = 0;
  double mine[kMostColumns] = {};
  for (uint32_t token = warp; token < static_cast<uint32_t>(in.lengths[sequence]); token += kWarps) {
    const uint32_t entry = token / in.page_tokens;
    const bool remote = in.remote_counts != nullptr && entry < static_cast<uint32_t>(in.remote_counts[sequence]);
    const uint64_t page = in.table[uint64_t{sequence} * in.max_pages + entry];
    const uint64_t row = (page * in.kv_heads + kv_head) * 2 * in.page_tokens + token % in.page_tokens;
    const uint16_t* key = in.pools[remote] + row * in.head_dim;
    const uint16_t* value = key + in.page_tokens * in.head_dim;
    double score = 0;
    for (uint32_t i = lane; i < in.head_dim; i += 32) score += ToDouble(q[i], in.f16) * ToDouble(key[i], in.f16);
    for (int offset = 16; offset > 0; offset /= 2) score += __shfl_xor_sync(~0u, score, offset);
    score *= in.scale;
    const double now = fmax(most, score);
    const double factor = exp(most - now);
    const double weight = exp(score - now);
    most = now;
    sum = sum * factor + weight;
    for (uint32_t i = 0; i * 32 + lane < in.head_dim; ++i) {
      mine[i] = mine[i] * factor + weight * ToDouble(value[i * 32 + lane], in.f16);
    }
  }
  if (lane == 0) {
    largest[warp] = most;
    total[warp] = sum;
  }
  for (uint32_t i = 0; i < kMostColumns; ++i) columns[warp][i * 32 + lane] = mine[i];
  __syncthreads();
  for (uint32_t column = threadIdx.x; column < in.head_dim; column += blockDim.x) {
    double all = -INFINITY;
    for (const double other : largest) all = fmax(all, other);
    double numerator = 0;
    double denominator = 0;
    for (uint32_t i = 0; i < kWarps; ++i) {
      const double factor = exp(largest[i] - all);
      numerator += factor * columns[i][column];
      denominator += factor * total[i];
    }
    const double expected = numerator / denominator;
    const double difference = ToDouble(in.out[uint64_t{blockIdx.x} * in.head_dim + column], in.f16) - expected;
    atomicAdd(&sums[0], difference * difference);
    atomicAdd(&sums[1], expected * expected);
  }
}

}  // namespace

double AttentionError(const kernels::AttentionLaunch& launch, const void* local, const void* remote,
                      cudaStream_t stream) {
  const Inputs inputs{static_cast<const uint16_t*>(launch.q),
                      static_cast<const uint16_t*>(launch.out),
                      {static_cast<const uint16_t*>(local), static_cast<const uint16_t*>(remote)},
                      launch.block_table,
                      launch.lengths,
                      launch.remote_counts,
                      launch.heads,
                      launch.kv_heads,
                      launch.head_dim,
                      launch.page_tokens,
                      launch.max_pages,
                      launch.scale,
                      launch.f16};
  double* sums = nullptr;
  DAK_CUDA(cudaMallocAsync(reinterpret_cast<void**>(&sums), 2 * sizeof(double), stream));
  DAK_CUDA(cudaMemsetAsync(sums, 0, 2 * sizeof(double), stream));
  CompareAttention<<<launch.batch * launch.heads, kWarps * 32, 0, stream>>>(inputs, sums);
  DAK_CUDA(cudaGetLastError());
  double result[2];
  DAK_CUDA(cudaMemcpyAsync(result, sums, sizeof(result), cudaMemcpyDeviceToHost, stream));
  DAK_CUDA(cudaFreeAsync(sums, stream));
  DAK_CUDA(cudaStreamSynchronize(stream));
  return std::sqrt(result[0] / result[1]);
}

}  // namespace dak::bench

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cuda/ptx>

#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/device_tools.h"

namespace dak::bench {
namespace {

constexpr uint32_t kMaxStages = 16;
constexpr uint32_t kThreads = 512;
constexpr int kUnroll = 8;

__global__ void Fill(uint16_t* elements, uint64_t count, bool f16, uint64_t seed) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    uint64_t z = (i + seed * 0x9E37'79B9'7F4A'7C15) * 0xBF58'476D'1CE4'E5B9;  // splitmix64's mixing
    z = (z ^ z >> 30) * 0xBF58'476D'1CE4'E5B9;
    z = (z ^ z >> 27) * 0x94D0'49BB'1331'11EB;
    z ^= z >> 31;
    const auto bits = static_cast<uint32_t>(z >> 32);
    const uint32_t below_one = 1 + (bits >> 16 & 3);
    const uint32_t magnitude = f16 ? (15 - below_one) << 10 | (bits & 0x3FF) : (127 - below_one) << 7 | (bits & 0x7F);
    elements[i] = static_cast<uint16_t>((bits & 0x8000) | magnitude);
  }
}

__device__ double ToDouble(uint16_t bits, bool f16) {
  return f16 ? __half2float(__ushort_as_half(bits)) : __bfloat162float(__ushort_as_bfloat16(bits));
}

// One warp an element of y; sums[0] += difference^2, sums[1] += expected^2.
__global__ void Compare(const uint16_t* x, const uint16_t* w, const uint16_t* y, uint64_t batch, uint64_t n, uint64_t k,
                        bool f16, double* sums) {
  const uint64_t warps = uint64_t{gridDim.x} * blockDim.x / 32;
  const uint32_t lane = threadIdx.x % 32;
  double difference2 = 0;
  double expected2 = 0;
  for (uint64_t i = (uint64_t{blockIdx.x} * blockDim.x + threadIdx.x) / 32; i < batch * n; i += warps) {
    const uint64_t row = i / batch;  // batch is the faster index, so that W is read from L2
    const uint64_t b = i % batch;
    double sum = 0;
    for (uint64_t j = lane; j < k; j += 32) sum += ToDouble(x[b * k + j], f16) * ToDouble(w[row * k + j], f16);
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    const double difference = ToDouble(y[b * n + row], f16) - sum;
    difference2 += difference * difference;
    expected2 += sum * sum;
  }
  if (lane == 0) {
    atomicAdd(&sums[0], difference2);
    atomicAdd(&sums[1], expected2);
  }
}

__global__ __launch_bounds__(kThreads) void ReadPlain(const int4* data, uint64_t count, int* sink) {
  const uint64_t step = uint64_t{gridDim.x} * kThreads;
  int sum = 0;
  uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (; i + (kUnroll - 1) * step < count; i += kUnroll * step) {
    int4 values[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) values[u] = __ldcs(data + i + u * step);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) sum ^= values[u].x ^ values[u].y ^ values[u].z ^ values[u].w;
  }
  for (; i < count; i += step) sum ^= __ldcs(data + i).x;
  if (sum == 0x1234567) *sink = sum;  // keeps the loads
}

__global__ void ReadBulk(const uint8_t* data, uint64_t chunks, uint32_t stages, uint32_t chunk_bytes) {
  extern __shared__ __align__(128) uint8_t buffer[];
  __shared__ uint64_t full[kMaxStages];
  if (threadIdx.x != 0) return;
  for (uint32_t i = 0; i < stages; ++i) cuda::ptx::mbarrier_init(&full[i], 1);
  cuda::ptx::fence_mbarrier_init(cuda::ptx::sem_release, cuda::ptx::scope_cluster);
  const uint64_t mine = chunks > blockIdx.x ? (chunks - blockIdx.x - 1) / gridDim.x + 1 : 0;
  const auto wait = [&](uint64_t i) {
    while (!cuda::ptx::mbarrier_try_wait_parity(&full[i % stages], i / stages % 2)) {
    }
  };
  for (uint64_t i = 0; i < mine; ++i) {
    if (i >= stages) wait(i - stages);
    const auto stage = static_cast<uint32_t>(i % stages);
    cuda::ptx::mbarrier_arrive_expect_tx(cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared,
                                         &full[stage], chunk_bytes);
    cuda::ptx::cp_async_bulk(cuda::ptx::space_cluster, cuda::ptx::space_global, buffer + stage * chunk_bytes,
                             data + (i * gridDim.x + blockIdx.x) * chunk_bytes, chunk_bytes, &full[stage]);
  }
  for (uint64_t i = mine > stages ? mine - stages : 0; i < mine; ++i) wait(i);
}

int* Sink() {
  static int* sink = [] {
    void* memory = nullptr;
    DAK_CUDA(cudaMalloc(&memory, sizeof(int)));
    return static_cast<int*>(memory);
  }();
  return sink;
}

}  // namespace

void FillRandom(void* elements, uint64_t count, bool f16, uint64_t seed, cudaStream_t stream) {
  if (count == 0) return;
  Fill<<<1056, 256, 0, stream>>>(static_cast<uint16_t*>(elements), count, f16, seed);
  DAK_CUDA(cudaGetLastError());
}

double RelativeError(const void* x, const void* w, const void* y, uint64_t batch, uint64_t n, uint64_t k, bool f16,
                     cudaStream_t stream) {
  double* sums = nullptr;
  DAK_CUDA(cudaMallocAsync(reinterpret_cast<void**>(&sums), 2 * sizeof(double), stream));
  DAK_CUDA(cudaMemsetAsync(sums, 0, 2 * sizeof(double), stream));
  Compare<<<1056, 256, 0, stream>>>(static_cast<const uint16_t*>(x), static_cast<const uint16_t*>(w),
                                    static_cast<const uint16_t*>(y), batch, n, k, f16, sums);
  DAK_CUDA(cudaGetLastError());
  double result[2];
  DAK_CUDA(cudaMemcpyAsync(result, sums, sizeof(result), cudaMemcpyDeviceToHost, stream));
  DAK_CUDA(cudaFreeAsync(sums, stream));
  DAK_CUDA(cudaStreamSynchronize(stream));
  return std::sqrt(result[0] / result[1]);
}

void StreamPlain(const void* data, uint64_t bytes, uint32_t ctas, cudaStream_t stream) {
  ReadPlain<<<ctas, kThreads, 0, stream>>>(static_cast<const int4*>(data), bytes / sizeof(int4), Sink());
  DAK_CUDA(cudaGetLastError());
}

void StreamBulk(const void* data, uint64_t bytes, uint32_t ctas, uint32_t stages, uint32_t chunk_bytes,
                cudaStream_t stream) {
  if (stages > kMaxStages) Fail("StreamBulk", "too many stages");
  DAK_CUDA(cudaFuncSetAttribute(ReadBulk, cudaFuncAttributeMaxDynamicSharedMemorySize, stages * chunk_bytes));
  ReadBulk<<<ctas, 32, stages * chunk_bytes, stream>>>(static_cast<const uint8_t*>(data), bytes / chunk_bytes, stages,
                                                       chunk_bytes);
  DAK_CUDA(cudaGetLastError());
}

}  // namespace dak::bench

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>

#include "kernels/stream.h"
#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/device_tools.h"

namespace dak::bench {
namespace {

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
  DAK_CUDA(kernels::FillRandom(elements, count, f16, seed, stream));
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
  DAK_CUDA(kernels::StreamPlain(data, bytes, ctas, 1, Sink(), stream));
}

void StreamBulk(const void* data, uint64_t bytes, uint32_t ctas, uint32_t stages, uint32_t chunk_bytes,
                cudaStream_t stream) {
  DAK_CUDA(kernels::StreamBulk(data, bytes, {.ctas = ctas, .stages = stages, .chunk_bytes = chunk_bytes}, 1, stream));
}

}  // namespace dak::bench

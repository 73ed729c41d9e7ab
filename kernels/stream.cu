#include <cuda/ptx>

#include "kernels/ptx/memory.h"
#include "kernels/ptx/tma.h"
#include "kernels/ptx/wgmma.h"
#include "kernels/stream.h"

namespace dak::kernels {
namespace {

constexpr uint32_t kThreads = 512;
constexpr int kUnroll = 8;

// ---- Random elements ------------------------------------------------------------------------------------------------

// splitmix64's mixing.
__device__ uint32_t RandomBits(uint64_t i, uint64_t seed) {
  uint64_t z = (i + seed * 0x9E37'79B9'7F4A'7C15) * 0xBF58'476D'1CE4'E5B9;
  z = (z ^ z >> 30) * 0xBF58'476D'1CE4'E5B9;
  z = (z ^ z >> 27) * 0x94D0'49BB'1331'11EB;
  z ^= z >> 31;
  return static_cast<uint32_t>(z >> 32);
}

__device__ uint16_t RandomElement(uint64_t i, uint64_t seed, bool f16) {
  const uint32_t bits = RandomBits(i, seed);
  const uint32_t below_one = 1 + (bits >> 16 & 3);
  const uint32_t magnitude = f16 ? (15 - below_one) << 10 | (bits & 0x3FF) : (127 - below_one) << 7 | (bits & 0x7F);
  return static_cast<uint16_t>((bits & 0x8000) | magnitude);
}

__global__ void Fill(uint16_t* elements, uint64_t count, bool f16, uint64_t seed) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    elements[i] = RandomElement(i, seed, f16);
  }
}

// ---- Streams --------------------------------------------------------------------------------------------------------

__global__ __launch_bounds__(kThreads) void ReadPlain(const int4* data, uint64_t count, uint32_t passes, int* sink) {
  const uint64_t step = uint64_t{gridDim.x} * kThreads;
  int sum = 0;
  for (uint32_t pass = 0; pass < passes; ++pass) {
    uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
    for (; i + (kUnroll - 1) * step < count; i += kUnroll * step) {
      int4 values[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) values[u] = __ldcs(data + i + u * step);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) sum ^= values[u].x ^ values[u].y ^ values[u].z ^ values[u].w;
    }
    for (; i < count; i += step) sum ^= __ldcs(data + i).x;
  }
  if (sum == 0x1234567) *sink = sum;  // keeps the loads
}

// One thread's ring of bulk copies.
class BulkReader {
 public:
  __device__ BulkReader(uint8_t* buffer, uint64_t* full, const BulkShape& shape)
      : buffer_(buffer), full_(full), stages_(shape.stages), chunk_bytes_(shape.chunk_bytes) {
    for (uint32_t i = 0; i < stages_; ++i) cuda::ptx::mbarrier_init(&full_[i], 1);
    cuda::ptx::fence_mbarrier_init(cuda::ptx::sem_release, cuda::ptx::scope_cluster);
  }

  __device__ void Read(const uint8_t* chunk) {
    if (inflight_ == stages_) WaitForOldest();
    cuda::ptx::mbarrier_arrive_expect_tx(cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared,
                                         &full_[next_], chunk_bytes_);
    cuda::ptx::cp_async_bulk(cuda::ptx::space_cluster, cuda::ptx::space_global, buffer_ + next_ * chunk_bytes_, chunk,
                             chunk_bytes_, &full_[next_]);
    next_ = next_ + 1 == stages_ ? 0 : next_ + 1;
    ++inflight_;
  }

  __device__ void Drain() {
    while (inflight_ > 0) WaitForOldest();
  }

 private:
  __device__ void WaitForOldest() {
    while (!cuda::ptx::mbarrier_try_wait_parity(&full_[oldest_], phase_)) {
    }
    --inflight_;
    if (++oldest_ == stages_) {
      oldest_ = 0;
      phase_ ^= 1;
    }
  }

  uint8_t* buffer_;
  uint64_t* full_;
  uint32_t stages_;
  uint32_t chunk_bytes_;
  uint32_t next_ = 0;
  uint32_t oldest_ = 0;
  uint32_t phase_ = 0;
  uint32_t inflight_ = 0;
};

// One CTA's chunks of a pass: every `workers`-th from `worker` on.
__device__ void ReadShare(BulkReader& reader, const uint8_t* data, uint64_t bytes, uint32_t chunk_bytes,
                          uint32_t worker, uint32_t workers) {
  const uint64_t step = uint64_t{workers} * chunk_bytes;
  const uint64_t end = bytes / chunk_bytes * chunk_bytes;
  for (uint64_t at = uint64_t{worker} * chunk_bytes; at < end; at += step) reader.Read(data + at);
}

__global__ void ReadBulk(const uint8_t* data, uint64_t bytes, BulkShape shape, uint32_t passes) {
  extern __shared__ __align__(128) uint8_t buffer[];
  __shared__ uint64_t full[kMaxStreamStages];
  if (threadIdx.x != 0) return;
  BulkReader reader(buffer, full, shape);
  for (uint32_t pass = 0; pass < passes; ++pass) {
    ReadShare(reader, data, bytes, shape.chunk_bytes, blockIdx.x, shape.ctas);
  }
  reader.Drain();
}

__global__ void Reset(StreamClock* clock) { *clock = {~uint64_t{0}, 0, 0}; }

struct BothParams {
  const uint8_t* local_data;
  uint64_t local_bytes;
  BulkShape local;
  uint32_t passes;
  const uint8_t* remote_data;
  uint64_t remote_bytes;
  BulkShape remote;
  StreamClock* clock;
};

// The remote CTAs come first, so that they have filled the link when the local ones' first chunks are back.
__global__ void ReadBoth(const BothParams p) {
  extern __shared__ __align__(128) uint8_t buffer[];
  __shared__ uint64_t full[kMaxStreamStages];
  if (threadIdx.x != 0) return;
  if (blockIdx.x < p.remote.ctas) {
    BulkReader reader(buffer, full, p.remote);
    const uint64_t step = uint64_t{p.remote.ctas} * p.remote.chunk_bytes;
    uint64_t at = uint64_t{blockIdx.x} * p.remote.chunk_bytes;
    while (ptx::LoadRelaxedGpu(&p.clock->finished_ctas) < p.local.ctas) {
      for (uint32_t i = 0; i < p.remote.stages; ++i) {
        reader.Read(p.remote_data + at);
        at = at + step + p.remote.chunk_bytes <= p.remote_bytes ? at + step
                                                                : uint64_t{blockIdx.x} * p.remote.chunk_bytes;
      }
    }
    reader.Drain();
    return;
  }
  BulkReader reader(buffer, full, p.local);
  atomicMin(reinterpret_cast<unsigned long long*>(&p.clock->start_ns),
            static_cast<unsigned long long>(ptx::GlobalTimerNs()));
  for (uint32_t pass = 0; pass < p.passes; ++pass) {
    ReadShare(reader, p.local_data, p.local_bytes, p.local.chunk_bytes, blockIdx.x - p.remote.ctas, p.local.ctas);
  }
  reader.Drain();
  ptx::MaxRelaxedGpu(&p.clock->end_ns, ptx::GlobalTimerNs());
  __threadfence();
  ptx::AddRelaxedGpu(&p.clock->finished_ctas, 1);
}

// ---- Products -------------------------------------------------------------------------------------------------------

constexpr uint32_t kWarpgroupThreads = 128;
constexpr int kMatrixColumns = 256;
constexpr uint32_t kDepth = 64;  // 128 bytes of bf16: the swizzle's width
constexpr uint32_t kABytes = 64 * kDepth * 2;
constexpr uint32_t kBBytes = kMatrixColumns * kDepth * 2;
constexpr uint32_t kOperandStages = 4;  // so that operands change from one product to the next, as a GEMM's do
constexpr uint32_t kStageBytes = kMatrixWarpgroups * kABytes + kBBytes;
constexpr uint32_t kAlignment = 1024;  // of the swizzle's pattern
constexpr uint32_t kMatrixSharedBytes = kOperandStages * kStageBytes + kAlignment;

__global__ __launch_bounds__(kMatrixWarpgroups* kWarpgroupThreads, 1) void Multiply(uint32_t iterations, float* sink) {
  extern __shared__ uint8_t raw[];
  uint8_t* operands = raw + (kAlignment - ptx::SharedAddress(raw) % kAlignment) % kAlignment;
  auto* elements = reinterpret_cast<uint16_t*>(operands);
  for (uint32_t i = threadIdx.x; i < kOperandStages * kStageBytes / 2; i += blockDim.x) {
    elements[i] = RandomElement(i, blockIdx.x, false);
  }
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  const uint32_t group = __shfl_sync(~0u, threadIdx.x / kWarpgroupThreads, 0);
  const uint32_t base = ptx::SharedAddress(operands);
  float sums[kMatrixColumns / 2] = {};
  for (uint32_t i = 0; i < iterations; ++i) {
    const uint32_t stage = base + i % kOperandStages * kStageBytes;
    const uint64_t a = ptx::WgmmaDescriptor(stage + group * kABytes);
    const uint64_t b = ptx::WgmmaDescriptor(stage + kMatrixWarpgroups * kABytes);
    constexpr uint32_t kStepBytes = 32;
    ptx::WgmmaFence();
#pragma unroll
    for (uint32_t step = 0; step < kDepth / 16; ++step) {
      ptx::Wgmma<kMatrixColumns, false>::Run<true>(sums, a + step * (kStepBytes >> 4), b + step * (kStepBytes >> 4));
    }
    ptx::WgmmaCommit();
    ptx::WgmmaWait<1>();
  }
  ptx::WgmmaWait<0>();
  float sum = 0;
#pragma unroll
  for (const float value : sums) sum += value;
  if (sum == 0.123456789f) *sink = sum;  // keeps the products
}

cudaError_t CheckShape(const BulkShape& shape) {
  const bool good = shape.ctas > 0 && shape.stages > 0 && shape.stages <= kMaxStreamStages && shape.chunk_bytes > 0 &&
                    shape.chunk_bytes % 16 == 0;
  return good ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

cudaError_t FillRandom(void* elements, uint64_t count, bool f16, uint64_t seed, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  Fill<<<1056, 256, 0, stream>>>(static_cast<uint16_t*>(elements), count, f16, seed);
  return cudaGetLastError();
}

cudaError_t StreamPlain(const void* data, uint64_t bytes, uint32_t ctas, uint32_t passes, int* sink,
                        cudaStream_t stream) {
  ReadPlain<<<ctas, kThreads, 0, stream>>>(static_cast<const int4*>(data), bytes / sizeof(int4), passes, sink);
  return cudaGetLastError();
}

cudaError_t StreamBulk(const void* data, uint64_t bytes, const BulkShape& shape, uint32_t passes, cudaStream_t stream) {
  cudaError_t error = CheckShape(shape);
  const uint32_t shared_bytes = shape.stages * shape.chunk_bytes;
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(ReadBulk, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  }
  if (error != cudaSuccess) return error;
  ReadBulk<<<shape.ctas, 32, shared_bytes, stream>>>(static_cast<const uint8_t*>(data), bytes, shape, passes);
  return cudaGetLastError();
}

cudaError_t ResetClock(StreamClock* clock, cudaStream_t stream) {
  Reset<<<1, 1, 0, stream>>>(clock);
  return cudaGetLastError();
}

cudaError_t StreamBoth(const void* local_data, uint64_t local_bytes, const BulkShape& local, uint32_t passes,
                       const void* remote_data, uint64_t remote_bytes, const BulkShape& remote, StreamClock* clock,
                       cudaStream_t stream) {
  cudaError_t error = CheckShape(local);
  if (error == cudaSuccess) error = CheckShape(remote);
  if (error == cudaSuccess && uint64_t{remote.ctas} * remote.chunk_bytes > remote_bytes) error = cudaErrorInvalidValue;
  const uint32_t local_shared = local.stages * local.chunk_bytes;
  const uint32_t remote_shared = remote.stages * remote.chunk_bytes;
  const uint32_t shared_bytes = local_shared > remote_shared ? local_shared : remote_shared;
  if (error == cudaSuccess) {
    error = cudaFuncSetAttribute(ReadBoth, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  }
  if (error != cudaSuccess) return error;
  const BothParams params = {static_cast<const uint8_t*>(local_data),  local_bytes,  local,  passes,
                             static_cast<const uint8_t*>(remote_data), remote_bytes, remote, clock};
  ReadBoth<<<local.ctas + remote.ctas, 32, shared_bytes, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t MultiplyOnly(uint32_t ctas, uint32_t iterations, float* sink, cudaStream_t stream) {
  const cudaError_t error =
      cudaFuncSetAttribute(Multiply, cudaFuncAttributeMaxDynamicSharedMemorySize, kMatrixSharedBytes);
  if (error != cudaSuccess) return error;
  Multiply<<<ctas, kMatrixWarpgroups * kWarpgroupThreads, kMatrixSharedBytes, stream>>>(iterations, sink);
  return cudaGetLastError();
}

}  // namespace dak::kernels

#include <cuda/ptx>

#include "kernels/ptx/cluster.h"
#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/multicast_stream.h"

namespace dak::bench {
namespace {

namespace ptx = kernels::ptx;

constexpr uint32_t kMaxClusterCtas = 8;
constexpr uint32_t kMaxStages = kMaxClusterCtas * kMulticastInflightChunks;
constexpr uint32_t kWarpThreads = 32;
constexpr uint32_t kThreads = 2 * kWarpThreads;  // a warp that reads and one that consumes

struct Shared {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
};

__device__ void Wait(uint64_t* barrier, uint32_t phase) {
  while (!cuda::ptx::mbarrier_try_wait_parity(barrier, phase)) {
  }
}

__device__ void Expect(uint64_t* barrier) {
  cuda::ptx::mbarrier_arrive_expect_tx(cuda::ptx::sem_release, cuda::ptx::scope_cta, cuda::ptx::space_shared, barrier,
                                       uint32_t{kMulticastChunkBytes});
}

// Chunk i goes to stage i % stages of every CTA. With multicast the CTA that reads it is the stage's number modulo
// cluster_ctas, and it reads when all CTAs are done with the stage.
__global__ __launch_bounds__(kThreads) void ReadForClusters(const MulticastStream p, uint32_t stages) {
  extern __shared__ __align__(128) uint8_t buffer[];
  __shared__ Shared shared;
  const uint32_t rank = ptx::ClusterRank();
  const uint32_t cluster = blockIdx.x / p.cluster_ctas;
  const uint32_t lane = threadIdx.x % kWarpThreads;
  if (threadIdx.x == 0) {
    for (uint32_t stage = 0; stage < stages; ++stage) {
      cuda::ptx::mbarrier_init(&shared.full[stage], 1);
      cuda::ptx::mbarrier_init(&shared.empty[stage], p.multicast ? p.cluster_ctas : 1);
    }
    cuda::ptx::fence_mbarrier_init(cuda::ptx::sem_release, cuda::ptx::scope_cluster);
    for (uint32_t stage = 0; stage < stages && stage < p.chunks_per_cluster; ++stage) Expect(&shared.full[stage]);
  }
  cuda::ptx::barrier_cluster_arrive();
  cuda::ptx::barrier_cluster_wait();
  if (threadIdx.x == 0) {
    const auto* const slice =
        static_cast<const uint8_t*>(p.data) + uint64_t{cluster} * p.chunks_per_cluster * kMulticastChunkBytes;
    const uint32_t step = p.multicast ? p.cluster_ctas : 1;
    const auto all = static_cast<uint16_t>((1u << p.cluster_ctas) - 1);
    for (uint32_t i = p.multicast ? rank : 0; i < p.chunks_per_cluster; i += step) {
      const uint32_t stage = i % stages;
      Wait(&shared.empty[stage], i / stages % 2 ^ 1);
      uint8_t* const target = buffer + stage * kMulticastChunkBytes;
      const uint8_t* const source = slice + uint64_t{i} * kMulticastChunkBytes;
      if (p.multicast) {
        cuda::ptx::cp_async_bulk(cuda::ptx::space_cluster, cuda::ptx::space_global, target, source,
                                 uint32_t{kMulticastChunkBytes}, &shared.full[stage], all);
      } else {
        cuda::ptx::cp_async_bulk(cuda::ptx::space_cluster, cuda::ptx::space_global, target, source,
                                 uint32_t{kMulticastChunkBytes}, &shared.full[stage]);
      }
    }
  } else if (threadIdx.x >= kWarpThreads) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < p.chunks_per_cluster; ++i) {
      const uint32_t stage = i % stages;
      Wait(&shared.full[stage], i / stages % 2);
      if (p.sums != nullptr) {
        const auto* const words = reinterpret_cast<const uint32_t*>(buffer + stage * kMulticastChunkBytes);
        for (uint32_t j = lane; j < kMulticastChunkBytes / 4; j += kWarpThreads) sum += words[j];
        __syncwarp();
      }
      if (lane > 0) continue;
      if (i + stages < p.chunks_per_cluster) Expect(&shared.full[stage]);
      ptx::ArriveAtCta(ptx::MapToCta(&shared.empty[stage], p.multicast ? stage % p.cluster_ctas : rank));
    }
    if (p.sums != nullptr) atomicAdd(&p.sums[blockIdx.x], sum);
  }
  __syncwarp();
  cuda::ptx::barrier_cluster_arrive();
  cuda::ptx::barrier_cluster_wait();
}

__global__ void SumSlice(const uint32_t* data, uint64_t slice_words, uint32_t* sums) {
  uint32_t sum = 0;
  for (uint64_t i = threadIdx.x; i < slice_words; i += blockDim.x) sum += data[blockIdx.x * slice_words + i];
  atomicAdd(&sums[blockIdx.x], sum);
}

}  // namespace

void StreamToClusters(const MulticastStream& stream, cudaStream_t cuda_stream) {
  if (stream.cluster_ctas == 0 || stream.cluster_ctas > kMaxClusterCtas) Fail("StreamToClusters", "1 to 8 CTAs");
  const uint32_t stages = kMulticastInflightChunks * (stream.multicast ? stream.cluster_ctas : 1);
  constexpr uint32_t kMostBytes = kMaxStages * kMulticastChunkBytes;
  DAK_CUDA(cudaFuncSetAttribute(ReadForClusters, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostBytes));
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = stream.cluster_ctas;
  attribute.val.clusterDim.y = 1;
  attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(stream.clusters * stream.cluster_ctas);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kMostBytes;
  config.stream = cuda_stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  DAK_CUDA(cudaLaunchKernelEx(&config, ReadForClusters, stream, stages));
}

void SumSlices(const void* data, uint64_t slice_bytes, uint32_t slices, uint32_t* sums, cudaStream_t cuda_stream) {
  SumSlice<<<slices, 1024, 0, cuda_stream>>>(static_cast<const uint32_t*>(data), slice_bytes / 4, sums);
  DAK_CUDA(cudaGetLastError());
}

}  // namespace dak::bench

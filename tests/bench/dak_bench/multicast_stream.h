// Reads of host memory that every CTA of a cluster needs, for `dak-bench multicast`.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_MULTICAST_STREAM_H_
#define DAK_TESTS_BENCH_DAK_BENCH_MULTICAST_STREAM_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace dak::bench {

inline constexpr uint32_t kMulticastChunkBytes = 8192;
inline constexpr uint32_t kMulticastInflightChunks = 2;  // that each CTA has issued, at most

struct MulticastStream {
  const void* data = nullptr;  // `clusters` slices of chunks_per_cluster chunks, one for each cluster
  uint32_t clusters = 0;
  uint32_t cluster_ctas = 0;  // 1 to 8
  uint32_t chunks_per_cluster = 0;
  bool multicast = false;    // else every CTA reads every chunk itself
  uint32_t* sums = nullptr;  // [clusters * cluster_ctas]: the sum of all words that the CTA got; null: not summed
};

void StreamToClusters(const MulticastStream& stream, cudaStream_t cuda_stream);

// The sum of the words of each of `slices` equal parts of `data`, for comparison.
void SumSlices(const void* data, uint64_t slice_bytes, uint32_t slices, uint32_t* sums, cudaStream_t cuda_stream);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_MULTICAST_STREAM_H_

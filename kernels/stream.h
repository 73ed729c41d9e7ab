// Kernels that only read memory or only multiply, to find out what a GPU and its link can do: the probe of dakd and the
// bench time them.
//
// Everything is enqueued on `stream`; what is waited for, the caller waits for. Memory is the caller's and must stay
// valid until the stream has passed the launch. Thread safety: any thread. Errors are CUDA's.
#ifndef DAK_KERNELS_STREAM_H_
#define DAK_KERNELS_STREAM_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace dak::kernels {

inline constexpr uint32_t kMaxStreamStages = 16;

// Fills with random 16-bit elements of either sign, magnitudes from 1/16 to 1.
cudaError_t FillRandom(void* elements, uint64_t count, bool f16, uint64_t seed, cudaStream_t stream);

// Reads `bytes` (of HBM or of mapped host memory) `passes` times with 16-byte loads. `sink`: 4 bytes of device memory,
// which are practically never written.
cudaError_t StreamPlain(const void* data, uint64_t bytes, uint32_t ctas, uint32_t passes, int* sink,
                        cudaStream_t stream);

// Bulk copies into shared memory: one thread a CTA keeps `stages` copies of `chunk_bytes` (a multiple of 16) in flight.
// What doesn't fill a chunk isn't read.
struct BulkShape {
  uint32_t ctas = 0;
  uint32_t stages = 0;  // 1 to kMaxStreamStages
  uint32_t chunk_bytes = 0;
};
cudaError_t StreamBulk(const void* data, uint64_t bytes, const BulkShape& shape, uint32_t passes, cudaStream_t stream);

// A stream of HBM beside one of host memory, in one kernel: `remote` reads over and over until `local` has read its
// data `passes` times. What HBM's stream took is end_ns - start_ns.
struct StreamClock {  // in device memory; ResetClock before each launch
  uint64_t start_ns;
  uint64_t end_ns;
  uint64_t finished_ctas;
};
cudaError_t ResetClock(StreamClock* clock, cudaStream_t stream);
cudaError_t StreamBoth(const void* local_data, uint64_t local_bytes, const BulkShape& local, uint32_t passes,
                       const void* remote_data, uint64_t remote_bytes, const BulkShape& remote, StreamClock* clock,
                       cudaStream_t stream);

// bf16 products of random operands that lie in shared memory: what the tensor cores do while nothing is read. One CTA
// an SM; MatrixFlops is of one launch.
inline constexpr uint32_t kMatrixWarpgroups = 2;
cudaError_t MultiplyOnly(uint32_t ctas, uint32_t iterations, float* sink, cudaStream_t stream);
constexpr double MatrixFlops(uint32_t ctas, uint32_t iterations) {
  return 2.0 * ctas * kMatrixWarpgroups * iterations * 64 * 256 * 64;
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_STREAM_H_

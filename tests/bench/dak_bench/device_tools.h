// Kernels that the bench needs beside what it measures: random data, a float64 reference, bare streams of memory.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_DEVICE_TOOLS_H_
#define DAK_TESTS_BENCH_DAK_BENCH_DEVICE_TOOLS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace dak::bench {

// Fills with random elements of either sign, magnitudes from 1/16 to 1.
void FillRandom(void* elements, uint64_t count, bool f16, uint64_t seed, cudaStream_t stream);

// ||y - x w^T|| / ||x w^T||, computed in float64 on the device; NaN where y is. Waits.
double RelativeError(const void* x, const void* w, const void* y, uint64_t batch, uint64_t n, uint64_t k, bool f16,
                     cudaStream_t stream);

// Reads `bytes` (of HBM or mapped host memory) once with 16-byte loads, `ctas` CTAs.
void StreamPlain(const void* data, uint64_t bytes, uint32_t ctas, cudaStream_t stream);
// The same by bulk copies into shared memory: one thread a CTA, `stages` copies of `chunk_bytes` in flight each.
void StreamBulk(const void* data, uint64_t bytes, uint32_t ctas, uint32_t stages, uint32_t chunk_bytes,
                cudaStream_t stream);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_DEVICE_TOOLS_H_

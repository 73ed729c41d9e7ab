// A bench ends at the first CUDA error, too.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_CHECK_H_
#define DAK_TESTS_BENCH_DAK_BENCH_CHECK_H_

#include <cuda_runtime_api.h>

#include "tests/bench/dak_bench/fail.h"

namespace dak::bench {

inline void Check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) Fail(what, cudaGetErrorString(error));
}

}  // namespace dak::bench

#define DAK_CUDA(call) ::dak::bench::Check(call, #call)

#endif  // DAK_TESTS_BENCH_DAK_BENCH_CHECK_H_

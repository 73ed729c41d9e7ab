// A bench ends at the first CUDA error: there is nothing to measure after one.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_CHECK_H_
#define DAK_TESTS_BENCH_DAK_BENCH_CHECK_H_

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>

namespace dak::bench {

[[noreturn]] inline void Fail(const char* what, const char* why) {
  std::fprintf(stderr, "dak-bench: %s: %s\n", what, why);
  std::exit(1);
}

inline void Check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) Fail(what, cudaGetErrorString(error));
}

}  // namespace dak::bench

#define DAK_CUDA(call) ::dak::bench::Check(call, #call)

#endif  // DAK_TESTS_BENCH_DAK_BENCH_CHECK_H_

// cuBLAS as a peer, opened at run time: the bench builds and starts without it.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_CUBLAS_H_
#define DAK_TESTS_BENCH_DAK_BENCH_CUBLAS_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

namespace dak::bench {

class Cublas {
 public:
  // Null, with a line on stderr, if no libcublas.so.13 or .12 is in the loader's path.
  static std::unique_ptr<Cublas> Open();
  ~Cublas();
  // y [batch, n] = x [batch, k] w [n, k]^T, 16-bit elements, fp32 sums; y's rows are `y_stride` elements apart.
  void Gemm(const void* x, const void* w, void* y, uint64_t batch, uint64_t n, uint64_t k, uint64_t y_stride, bool f16,
            cudaStream_t stream);

 private:
  Cublas() = default;
  void* handle_ = nullptr;
  void* workspace_ = nullptr;
  struct Functions;
  std::unique_ptr<Functions> functions_;
};

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_CUBLAS_H_

// One GEMM on the GPU for tests: operands in HBM and pinned host memory, fresh random inputs, poisoned outputs, and a
// float64 reference computed on the CPU. CUDA errors end the test program's test by throwing, GoogleTest reports them.
#ifndef DAK_TESTS_GPU_GEMM_PROBLEM_H_
#define DAK_TESTS_GPU_GEMM_PROBLEM_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/gemm.h"

namespace dak::kernels {

void Check(cudaError_t error, const char* what);

// Memory of the device or pinned and mapped memory of the host, at one address for both.
class Memory {
 public:
  enum class Where { kDevice, kHost };
  Memory(Where where, size_t bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  uint64_t address() const { return reinterpret_cast<uint64_t>(data_); }

 private:
  Where where_;
  void* data_ = nullptr;
};

// Which parts of an epilogue a problem has.
struct ProblemEpilogue {
  bool bias = false;
  bool residual = false;
  bool in_place = false;  // y is its own residual
  GemmActivation activation = GemmActivation::kNone;
};

class Problem {
 public:
  Problem(const GemmShape& shape, uint64_t seed, const ProblemEpilogue& epilogue = {});

  const GemmShape& shape() const { return shape_; }
  GemmOperands operands() const;
  // Fresh inputs; in place, so that captured graphs see them.
  void Randomise(uint64_t seed);
  // y becomes NaN, or the residual if it is that.
  void Poison();
  std::vector<uint16_t> Output() const;
  // x as the device has it, which another launch may have written.
  std::vector<uint16_t> Input() const;
  // ||y - reference|| / ||reference|| of what the device has now; NaN where an element wasn't written.
  double RelativeError() const;
  // The bound that RelativeError keeps: rounding to the element type, and some for fp32 sums.
  double Tolerance() const { return shape_.element == ElementType::kBf16 ? 4e-3 : 6e-4; }
  // Uses `x` and `y` of others instead of its own.
  void UseX(uint64_t address) { x_address_ = address; }
  uint64_t y_address() const { return y_.address() + y_offset_bytes_; }
  // Lets y begin one element later, at an odd multiple of 2.
  void ShiftY() { y_offset_bytes_ = 2; }

 private:
  uint64_t columns() const { return OutputColumns(shape_.n, epilogue_.activation); }
  double Expected(const std::vector<float>& x, const std::vector<float>& rows, uint32_t batch, uint64_t column) const;

  GemmShape shape_;
  ProblemEpilogue epilogue_;
  uint64_t y_offset_bytes_ = 0;
  std::vector<uint16_t> w_;
  std::vector<uint16_t> bias_values_;
  std::vector<uint16_t> residual_values_;
  Memory x_;
  Memory y_;
  Memory w_local_;
  Memory w_remote_;
  Memory bias_;
  Memory residual_;
  uint64_t x_address_;
  TensorMap w_local_map_;
  TensorMap w_remote_map_;
};

}  // namespace dak::kernels

#endif  // DAK_TESTS_GPU_GEMM_PROBLEM_H_

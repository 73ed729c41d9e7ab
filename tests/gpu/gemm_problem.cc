#include "tests/gpu/gemm_problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include "kernels/element.h"
#include "kernels/gemm_launch.h"

namespace dak::kernels {
namespace {

constexpr uint8_t kPoisonByte = 0xFF;  // 0xFFFF is NaN in both types

// Random elements of either sign with magnitudes from 1/16 to 1, straight as bits: xorshift64*, since the standard
// library's engines and a rounding an element take seconds for a large matrix.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E37'79B9'7F4A'7C15 + 1) {}

  uint16_t Element(bool f16) {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    const auto bits = static_cast<uint32_t>(state_ * 0x2545'F491'4F6C'DD1D >> 32);
    const uint32_t sign = bits & 0x8000;
    const uint32_t below_one = 1 + (bits >> 16 & 3);  // powers of two
    if (f16) return static_cast<uint16_t>(sign | (kF16Bias - below_one) << 10 | (bits & 0x3FF));
    return static_cast<uint16_t>(sign | (kBf16Bias - below_one) << 7 | (bits & 0x7F));
  }

 private:
  static constexpr uint32_t kF16Bias = 15;
  static constexpr uint32_t kBf16Bias = 127;
  uint64_t state_;
};

std::vector<uint16_t> RandomElements(ElementType element, size_t count, Random& random) {
  std::vector<uint16_t> elements(count);
  for (uint16_t& value : elements) value = random.Element(element == ElementType::kF16);
  return elements;
}

std::vector<float> ToFloats(ElementType element, const std::vector<uint16_t>& bits) {
  std::vector<float> values(bits.size());
  for (size_t i = 0; i < bits.size(); ++i) values[i] = ElementToFloat(element, bits[i]);
  return values;
}

double Dot(const float* a, const float* b, uint64_t count) {
  double sums[8] = {};  // k is a multiple of 8
  for (uint64_t i = 0; i < count; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += static_cast<double>(a[i + j]) * b[i + j];
  }
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace

void Check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

Memory::Memory(Where where, size_t bytes) : where_(where) {
  bytes = std::max<size_t>(bytes, 16);
  if (where == Where::kDevice) {
    Check(cudaMalloc(&data_, bytes), "cudaMalloc");
  } else {
    Check(cudaHostAlloc(&data_, bytes, cudaHostAllocMapped), "cudaHostAlloc");
    std::memset(data_, 0, bytes);
  }
}

Memory::~Memory() {
  if (where_ == Where::kDevice) {
    cudaFree(data_);
  } else {
    cudaFreeHost(data_);
  }
}

Problem::Problem(const GemmShape& shape, uint64_t seed, const ProblemEpilogue& epilogue)
    : shape_(shape),
      epilogue_(epilogue),
      x_(Memory::Where::kDevice, shape.batch * shape.k * 2),
      y_(Memory::Where::kDevice, (shape.batch * shape.n + 1) * 2),
      w_local_(Memory::Where::kDevice, shape.local_rows * shape.k * 2),
      w_remote_(Memory::Where::kHost, (shape.n - shape.local_rows) * shape.k * 2),
      bias_(Memory::Where::kDevice, shape.n * 2),
      residual_(Memory::Where::kDevice, shape.batch * shape.n * 2),
      x_address_(x_.address()) {
  const bool f16 = shape.element == ElementType::kF16;
  const auto encode = [&](TensorMap& map, const Memory& memory, uint64_t rows) {
    CUtensorMap encoded;
    if (rows > 0) Check(EncodeMatrix(&encoded, memory.as<void>(), f16, rows, shape.k, kBoxRows), "EncodeMatrix");
    std::memcpy(map.bytes.data(), &encoded, sizeof(encoded));
  };
  encode(w_local_map_, w_local_, shape.local_rows);
  encode(w_remote_map_, w_remote_, shape.n - shape.local_rows);
  Randomise(seed);
  Poison();
}

void Problem::Randomise(uint64_t seed) {
  Random random(seed);
  const std::vector<uint16_t> x = RandomElements(shape_.element, shape_.batch * shape_.k, random);
  w_ = RandomElements(shape_.element, shape_.n * shape_.k, random);
  bias_values_ = RandomElements(shape_.element, shape_.n, random);
  residual_values_ = RandomElements(shape_.element, shape_.batch * columns(), random);
  const size_t local = shape_.local_rows * shape_.k;
  Check(cudaMemcpy(x_.as<void>(), x.data(), x.size() * 2, cudaMemcpyDefault), "cudaMemcpy");
  Check(cudaMemcpy(w_local_.as<void>(), w_.data(), local * 2, cudaMemcpyDefault), "cudaMemcpy");
  std::memcpy(w_remote_.as<void>(), w_.data() + local, (w_.size() - local) * 2);
  Check(cudaMemcpy(bias_.as<void>(), bias_values_.data(), bias_values_.size() * 2, cudaMemcpyDefault), "cudaMemcpy");
  Check(cudaMemcpy(residual_.as<void>(), residual_values_.data(), residual_values_.size() * 2, cudaMemcpyDefault),
        "cudaMemcpy");
}

void Problem::Poison() {
  Check(cudaMemset(y_.as<void>(), kPoisonByte, (shape_.batch * shape_.n + 1) * 2), "cudaMemset");
  if (epilogue_.in_place) {
    Check(cudaMemcpy(reinterpret_cast<void*>(y_address()), residual_values_.data(), residual_values_.size() * 2,
                     cudaMemcpyDefault),
          "cudaMemcpy");
  }
  Check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

GemmOperands Problem::operands() const {
  GemmOperands operands;
  operands.x = x_address_;
  operands.w_local = w_local_.address();
  operands.w_remote = w_remote_.address();
  operands.y = y_address();
  operands.epilogue.activation = epilogue_.activation;
  if (epilogue_.bias) operands.epilogue.bias = bias_.address();
  if (epilogue_.residual) operands.epilogue.residual = epilogue_.in_place ? y_address() : residual_.address();
  operands.w_local_map = shape_.local_rows > 0 ? &w_local_map_ : nullptr;
  operands.w_remote_map = shape_.local_rows < shape_.n ? &w_remote_map_ : nullptr;
  return operands;
}

std::vector<uint16_t> Problem::Output() const {
  std::vector<uint16_t> y(shape_.batch * columns());
  Check(cudaMemcpy(y.data(), reinterpret_cast<void*>(y_address()), y.size() * 2, cudaMemcpyDefault), "cudaMemcpy");
  return y;
}

std::vector<uint16_t> Problem::Input() const {
  std::vector<uint16_t> x(shape_.batch * shape_.k);
  Check(cudaMemcpy(x.data(), reinterpret_cast<void*>(x_address_), x.size() * 2, cudaMemcpyDefault), "cudaMemcpy");
  return x;
}

// `rows`: the one row of W, or with SwiGLU the gate's and the up projection's, that `column` is made of.
double Problem::Expected(const std::vector<float>& x, const std::vector<float>& rows, uint32_t batch,
                         uint64_t column) const {
  const bool swiglu = epilogue_.activation == GemmActivation::kSwiGlu;
  const uint64_t w_row = swiglu ? column / kSwiGluRows * 2 * kSwiGluRows + column % kSwiGluRows : column;
  const auto sum = [&](uint64_t i) {
    const double product = Dot(rows.data() + i * shape_.k, x.data() + batch * shape_.k, shape_.k);
    return epilogue_.bias ? product + ElementToFloat(shape_.element, bias_values_[w_row + i * kSwiGluRows]) : product;
  };
  double value = sum(0);
  if (swiglu) value = value / (1 + std::exp(-value)) * sum(1);
  if (!epilogue_.residual) return value;
  return value + ElementToFloat(shape_.element, residual_values_[batch * columns() + column]);
}

double Problem::RelativeError() const {
  const std::vector<float> x = ToFloats(shape_.element, Input());
  const std::vector<float> y = ToFloats(shape_.element, Output());
  const unsigned int threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<double> errors(threads);
  std::vector<double> norms(threads);
  const auto work = [&](unsigned int thread) {
    const uint64_t parts = shape_.n / columns();  // rows of W in one column of y
    std::vector<float> rows(parts * shape_.k);
    for (uint64_t column = thread; column < columns(); column += threads) {
      const uint64_t first = parts == 1 ? column : column / kSwiGluRows * 2 * kSwiGluRows + column % kSwiGluRows;
      for (uint64_t i = 0; i < rows.size(); ++i) {
        const uint64_t row = first + i / shape_.k * kSwiGluRows;
        rows[i] = ElementToFloat(shape_.element, w_[row * shape_.k + i % shape_.k]);
      }
      for (uint32_t b = 0; b < shape_.batch; ++b) {
        const double expected = Expected(x, rows, b, column);
        const double difference = y[b * columns() + column] - expected;
        errors[thread] += difference * difference;
        norms[thread] += expected * expected;
      }
    }
  };
  std::vector<std::thread> workers;
  for (unsigned int i = 0; i < threads; ++i) workers.emplace_back(work, i);
  for (std::thread& worker : workers) worker.join();
  double error = 0;
  double norm = 0;
  for (unsigned int i = 0; i < threads; ++i) {
    error += errors[i];
    norm += norms[i];
  }
  return std::sqrt(error / norm);
}

}  // namespace dak::kernels

// bf16 and f16 matrices, and y = x W^T in double precision from the unsplit weights: an independent reference.
#ifndef DAK_TESTS_INTEGRATION_HARNESS_MATRIX_H_
#define DAK_TESTS_INTEGRATION_HARNESS_MATRIX_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

namespace dak::testing {

inline double FromBf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t ToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline double FromF16(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

// Small multiples of 1/64 in (-1, 1): exact in both 16-bit types, so that inputs are the same everywhere.
inline std::vector<uint16_t> RandomMatrix(uint64_t rows, uint64_t cols, uint32_t seed, bool f16) {
  std::mt19937 random(seed);
  std::vector<uint16_t> matrix(rows * cols);
  for (uint16_t& element : matrix) {
    const int numerator = static_cast<int>(random() % 127) - 63;
    const float value = static_cast<float>(numerator) / 64;
    if (!f16) {
      element = ToBf16(value);
    } else if (numerator != 0) {
      int exponent = 0;
      const double fraction = std::frexp(std::abs(value), &exponent);  // in [0.5, 1)
      const auto mantissa = static_cast<uint16_t>((fraction * 2 - 1) * 1024);
      element = static_cast<uint16_t>((value < 0 ? 0x8000 : 0) | ((exponent + 14) << 10) | mantissa);
    }
  }
  return matrix;
}

// Largest |y - reference| / (|reference| + 1) over all of y, for x [batch, k], w [n, k], y [batch, n].
inline double WorstError(const std::vector<uint16_t>& x, const std::vector<uint16_t>& w, const std::vector<uint16_t>& y,
                         uint64_t batch, uint64_t n, uint64_t k, bool f16) {
  const auto value = [f16](uint16_t bits) { return f16 ? FromF16(bits) : FromBf16(bits); };
  double worst = 0;
  for (uint64_t b = 0; b < batch; ++b) {
    for (uint64_t row = 0; row < n; ++row) {
      double sum = 0;
      for (uint64_t i = 0; i < k; ++i) sum += value(x[b * k + i]) * value(w[row * k + i]);
      const double error = std::abs(value(y[b * n + row]) - sum) / (std::abs(sum) + 1);
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    }
  }
  return worst;
}

// One rounding of the result, half a unit in the last of 8 or 11 binary digits, and 2 % more for the fp32 sums.
inline double Tolerance(bool f16) { return f16 ? 1.02 / 2048 : 1.02 / 256; }

}  // namespace dak::testing

#endif  // DAK_TESTS_INTEGRATION_HARNESS_MATRIX_H_

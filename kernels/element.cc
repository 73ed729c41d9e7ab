#include "kernels/element.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace dak::kernels {
namespace {

constexpr uint32_t kF32ExponentMask = 0x7F80'0000;
constexpr int kF32MantissaBits = 23;
constexpr int kF16MantissaBits = 10;
constexpr int kF16Bias = 15;
constexpr int kF16MaxExponent = 15;
constexpr uint16_t kF16Infinity = 0x7C00;
constexpr uint16_t kF16QuietNan = 0x7E00;

}  // namespace

float Bf16ToFloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

float F16ToFloat(uint16_t bits) {
  const float sign = bits & 0x8000 ? -1.0f : 1.0f;
  const int exponent = bits >> kF16MantissaBits & 0x1F;
  const auto mantissa = static_cast<float>(bits & 0x3FF);
  if (exponent == 0x1F) return mantissa != 0 ? std::nanf("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - kF16Bias - kF16MantissaBits);
  return sign * std::ldexp(mantissa + 1024.0f, exponent - kF16Bias - kF16MantissaBits);
}

uint16_t FloatToBf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

uint16_t FloatToF16(float value) {
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  if (std::isnan(value)) return sign | kF16QuietNan;
  const float magnitude = std::fabs(value);
  const auto bits = std::bit_cast<uint32_t>(magnitude);
  if ((bits & kF32ExponentMask) == kF32ExponentMask) return sign | kF16Infinity;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  --exponent;  // magnitude = 1.m * 2^exponent
  // The unit in the last place of the result; subnormals all have the same.
  const int unit = std::max(exponent, 1 - kF16Bias) - kF16MantissaBits;
  const float units = std::nearbyint(std::ldexp(magnitude, -unit));  // exact up to the rounding: ties to even
  const float rounded = std::ldexp(units, unit);
  if (rounded == 0) return sign;
  std::frexp(rounded, &exponent);
  --exponent;
  if (exponent > kF16MaxExponent) return sign | kF16Infinity;
  if (exponent < 1 - kF16Bias) return sign | static_cast<uint16_t>(units);
  const uint32_t mantissa = std::bit_cast<uint32_t>(rounded) >> (kF32MantissaBits - kF16MantissaBits) & 0x3FF;
  return sign | static_cast<uint16_t>((exponent + kF16Bias) << kF16MantissaBits) | static_cast<uint16_t>(mantissa);
}

}  // namespace dak::kernels

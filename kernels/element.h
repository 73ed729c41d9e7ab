// 16-bit floating-point elements on the CPU, by their bits. Rounds to nearest, ties to even; NaN stays NaN.
#ifndef DAK_KERNELS_ELEMENT_H_
#define DAK_KERNELS_ELEMENT_H_

#include <cstdint>

#include "allocator/device/device.h"

namespace dak::kernels {

float Bf16ToFloat(uint16_t bits);
float F16ToFloat(uint16_t bits);
uint16_t FloatToBf16(float value);
uint16_t FloatToF16(float value);

// `type` is kBf16 or kF16.
inline float ElementToFloat(ElementType type, uint16_t bits) {
  return type == ElementType::kBf16 ? Bf16ToFloat(bits) : F16ToFloat(bits);
}
inline uint16_t FloatToElement(ElementType type, float value) {
  return type == ElementType::kBf16 ? FloatToBf16(value) : FloatToF16(value);
}

}  // namespace dak::kernels

#endif  // DAK_KERNELS_ELEMENT_H_

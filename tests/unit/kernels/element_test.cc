#include "kernels/element.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace dak::kernels {
namespace {

TEST(ElementTest, EveryF16SurvivesTheWayToFloatAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = F16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(value))));
    } else {
      EXPECT_EQ(FloatToF16(value), bits) << value;
    }
  }
}

TEST(ElementTest, EveryBf16SurvivesTheWayToFloatAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = Bf16ToFloat(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(value))));
    } else {
      EXPECT_EQ(FloatToBf16(value), bits) << value;
    }
  }
}

TEST(ElementTest, TiesRoundToEven) {
  EXPECT_EQ(F16ToFloat(FloatToF16(2049.0f)), 2048.0f);
  EXPECT_EQ(F16ToFloat(FloatToF16(2051.0f)), 2052.0f);
  EXPECT_EQ(Bf16ToFloat(FloatToBf16(257.0f)), 256.0f);
  EXPECT_EQ(Bf16ToFloat(FloatToBf16(259.0f)), 260.0f);
  EXPECT_EQ(F16ToFloat(FloatToF16(std::ldexp(1.5f, -24))), std::ldexp(2.0f, -24)) << "subnormal";
}

TEST(ElementTest, LargeValuesOverflowToInfinity) {
  EXPECT_EQ(F16ToFloat(FloatToF16(65519.0f)), 65504.0f);
  EXPECT_EQ(F16ToFloat(FloatToF16(65520.0f)), INFINITY);
  EXPECT_EQ(F16ToFloat(FloatToF16(-1e9f)), -INFINITY);
  EXPECT_EQ(Bf16ToFloat(FloatToBf16(std::numeric_limits<float>::max())), INFINITY);
  EXPECT_EQ(FloatToF16(1e-9f), 0);
  EXPECT_EQ(FloatToF16(-1e-9f), 0x8000);
}

}  // namespace
}  // namespace dak::kernels

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "allocator/base/error_detail.h"
#include "kernels/element.h"
#include "kernels/gemm.h"

namespace dak::kernels {
namespace {

constexpr uint16_t kPoison = 0x7FFF;  // NaN in both types
constexpr uint32_t kBatch = 3;
constexpr uint64_t kK = 72;

LinkModel TestModel() { return {.bandwidth_bytes_per_s = 1'000'000'000, .round_trip_ns = 10'000}; }

class GemmEpilogueTest : public testing::Test {
 protected:
  void Prepare(const GemmShape& shape, uint64_t seed) {
    shape_ = shape;
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    const auto fill = [&](std::vector<uint16_t>& elements, uint64_t count) {
      elements.resize(count);
      for (uint16_t& element : elements) element = FloatToElement(shape_.element, uniform(random));
    };
    fill(x_, shape.batch * shape.k);
    fill(w_, shape.n * shape.k);
    fill(bias_, shape.n);
    fill(residual_, shape.batch * shape.n);
    y_.assign(shape.batch * shape.n, kPoison);
    operands_ = {};
    operands_.x = Address(x_);
    operands_.w_local = Address(w_);
    operands_.w_remote = Address(w_) + shape.local_rows * shape.k * 2;
    operands_.y = Address(y_);
  }

  static uint64_t Address(const std::vector<uint16_t>& elements) { return reinterpret_cast<uint64_t>(elements.data()); }
  double Value(const std::vector<uint16_t>& elements, uint64_t i) const {
    return ElementToFloat(shape_.element, elements[i]);
  }

  absl::Status Run() { return GemmReference(shape_, operands_, {}, TestModel(), false).status(); }

  double Sum(uint32_t batch, uint64_t row) const {
    double sum = operands_.epilogue.bias != 0 ? Value(bias_, row) : 0;
    for (uint64_t i = 0; i < shape_.k; ++i) sum += Value(x_, batch * shape_.k + i) * Value(w_, row * shape_.k + i);
    return sum;
  }

  // y against double, element by element.
  void ExpectRight() {
    const bool swiglu = operands_.epilogue.activation == GemmActivation::kSwiGlu;
    const uint64_t columns = swiglu ? shape_.n / 2 : shape_.n;
    for (uint32_t batch = 0; batch < shape_.batch; ++batch) {
      for (uint64_t column = 0; column < columns; ++column) {
        double expected = 0;
        if (swiglu) {
          const double gate = Sum(batch, column / 8 * 16 + column % 8);
          expected = gate / (1 + std::exp(-gate)) * Sum(batch, column / 8 * 16 + 8 + column % 8);
        } else {
          expected = Sum(batch, column);
        }
        const uint64_t at = batch * columns + column;
        if (operands_.epilogue.residual != 0) expected += Value(residual_, at);
        ASSERT_NEAR(Value(y_, at), expected, 4e-3 * std::fabs(expected) + 1e-4)
            << "batch " << batch << " column " << column;
      }
    }
    for (uint64_t i = shape_.batch * columns; i < y_.size(); ++i) ASSERT_EQ(y_[i], kPoison) << "past the end";
  }

  void ExpectRefused(const char* field, const char* limit) {
    const absl::Status status = Run();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(DetailOf(status).field, field);
    EXPECT_EQ(DetailOf(status).limit, limit);
  }

  GemmShape shape_;
  std::vector<uint16_t> x_;
  std::vector<uint16_t> w_;
  std::vector<uint16_t> bias_;
  std::vector<uint16_t> residual_;
  std::vector<uint16_t> y_;
  GemmOperands operands_;
};

TEST_F(GemmEpilogueTest, AddsBiasAndResidual) {
  for (const ElementType element : {ElementType::kBf16, ElementType::kF16}) {
    for (const int which : {0, 1, 2, 3}) {
      Prepare({kBatch, 100, kK, 37, element}, 1 + which);
      if (which % 2 == 1) operands_.epilogue.bias = Address(bias_);
      if (which / 2 == 1) operands_.epilogue.residual = Address(residual_);
      ASSERT_TRUE(Run().ok());
      ExpectRight();
    }
  }
}

TEST_F(GemmEpilogueTest, GatesBlocksOfEightRows) {
  for (const uint64_t local_rows : {0, 48, 160}) {
    Prepare({kBatch, 160, kK, local_rows, ElementType::kF16}, local_rows);
    operands_.epilogue = {Address(bias_), Address(residual_), GemmActivation::kSwiGlu};
    ASSERT_TRUE(Run().ok());
    ExpectRight();
  }
}

TEST_F(GemmEpilogueTest, TheResidualMayBeY) {
  Prepare({kBatch, 80, kK, 40, ElementType::kBf16}, 9);
  y_ = residual_;
  operands_.epilogue.residual = operands_.y;
  ASSERT_TRUE(Run().ok());
  ExpectRight();
}

TEST_F(GemmEpilogueTest, RefusesWhatItCantDoAndNamesTheField) {
  Prepare({kBatch, 64, kK, 32, ElementType::kBf16}, 1);
  operands_.epilogue.bias = Address(bias_) + 1;
  ExpectRefused("bias", "an address that is a multiple of 2");
  operands_.epilogue = {.residual = Address(residual_) + 1};
  ExpectRefused("residual", "an address that is a multiple of 2");
  operands_.epilogue = {.activation = static_cast<GemmActivation>(7)};
  ExpectRefused("activation", "none (0) or SwiGLU (1)");
  operands_.epilogue = {.activation = GemmActivation::kSwiGlu};
  shape_.local_rows = 40;
  ExpectRefused("local_rows", "a multiple of 16 with SwiGLU");
  shape_.n = 72;
  ExpectRefused("n", "a multiple of 16 with SwiGLU");
  EXPECT_EQ(y_[0], kPoison) << "a refused operation writes nothing";
}

}  // namespace
}  // namespace dak::kernels

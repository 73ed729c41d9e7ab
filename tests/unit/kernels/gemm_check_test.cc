#include <gtest/gtest.h>

#include "allocator/base/error_detail.h"
#include "kernels/gemm.h"

namespace dak::kernels {
namespace {

GemmShape Valid() { return {.batch = 8, .n = 100, .k = 64, .local_rows = 50, .element = ElementType::kBf16}; }

void ExpectRefused(const GemmShape& shape, const char* field, const char* limit) {
  const absl::Status status = CheckGemm(shape);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailOf(status).field, field);
  EXPECT_EQ(DetailOf(status).limit, limit);
}

TEST(CheckGemmTest, TakesTheEndsOfEveryRange) {
  EXPECT_TRUE(CheckGemm(Valid()).ok());
  EXPECT_TRUE(CheckGemm({1, 1, 8, 0, ElementType::kF16}).ok());
  EXPECT_TRUE(CheckGemm({8192, 1, 8, 1, ElementType::kF16}).ok());
  EXPECT_TRUE(CheckGemm({8192, 100, 0x7FFF'FFF8, 100, ElementType::kF16}).ok());
  EXPECT_TRUE(CheckGemm({8192, 100, 131'072, 99, ElementType::kF16}).ok());
  EXPECT_TRUE(CheckGemm({256, 0x7FFF'FFFF, 0x7FFF'FFF8, 0, ElementType::kBf16}).ok());
}

TEST(CheckGemmTest, NamesTheFieldAndTheLimit) {
  GemmShape shape = Valid();
  shape.batch = 0;
  ExpectRefused(shape, "batch", "1 to 8192");
  shape.batch = 8193;
  ExpectRefused(shape, "batch", "1 to 8192");
  shape = Valid();
  shape.n = 0;
  ExpectRefused(shape, "n", "1 to 2147483647");
  shape.n = uint64_t{1} << 31;
  ExpectRefused(shape, "n", "1 to 2147483647");
  shape = Valid();
  shape.k = 12;
  ExpectRefused(shape, "k", "a multiple of 8");
  shape.k = 0;
  ExpectRefused(shape, "k", "8 to 2147483647");
  shape = {.batch = 257, .n = 100, .k = 131'080, .local_rows = 99, .element = ElementType::kBf16};
  ExpectRefused(shape, "k", "at most 131072 where batch is above 256 and rows are remote");
  shape = Valid();
  shape.local_rows = 101;
  ExpectRefused(shape, "local_rows", "0 to n, 100");
  shape = Valid();
  shape.element = ElementType::kF32;
  ExpectRefused(shape, "element", "bf16 or f16");
}

}  // namespace
}  // namespace dak::kernels

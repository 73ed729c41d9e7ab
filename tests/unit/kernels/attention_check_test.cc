#include <gtest/gtest.h>

#include <limits>

#include "allocator/base/error_detail.h"
#include "kernels/attention.h"

namespace dak::kernels {
namespace {

AttentionShape Valid() {
  return {.batch = 8,
          .heads = 32,
          .kv_heads = 8,
          .head_dim = 128,
          .page_tokens = 16,
          .max_pages = 256,
          .local_pages = 1000,
          .remote_pages = 1000,
          .element = ElementType::kBf16,
          .scale = 0.1f};
}

template <class Change>
void ExpectRefused(const char* field, const char* limit, const Change& change) {
  AttentionShape shape = Valid();
  change(shape);
  const absl::Status status = CheckAttention(shape);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
  EXPECT_EQ(DetailOf(status).field, field);
  EXPECT_EQ(DetailOf(status).limit, limit);
}

TEST(CheckAttentionTest, TakesTheEndsOfEveryRange) {
  EXPECT_TRUE(CheckAttention(Valid()).ok());
  EXPECT_TRUE(CheckAttention({1, 1, 1, 64, 16, 1, 1, 0, ElementType::kF16, 1e-30f}).ok());
  EXPECT_TRUE(CheckAttention({512, 64, 1, 80, 16, 8192, 1, 1, ElementType::kF16, 1}).ok());
  EXPECT_TRUE(CheckAttention({512, 1024, 1024, 96, 64, 2048, 0, 1, ElementType::kBf16, 1}).ok());
  AttentionShape shape = Valid();
  shape.local_pages = 0x7FFF'FFFF / (2 * 8 * 16);
  EXPECT_TRUE(CheckAttention(shape).ok());
}

TEST(CheckAttentionTest, NamesTheFieldAndTheLimit) {
  ExpectRefused("batch", "1 to 512", [](AttentionShape& s) { s.batch = 0; });
  ExpectRefused("batch", "1 to 512", [](AttentionShape& s) { s.batch = 513; });
  ExpectRefused("heads", "1 to 1024", [](AttentionShape& s) { s.heads = 0; });
  ExpectRefused("heads", "1 to 1024", [](AttentionShape& s) { s.heads = 1032; });
  ExpectRefused("heads", "1 to 64", [](AttentionShape& s) { s.heads = 65 * 8; });
  ExpectRefused("kv_heads", "1 to 32", [](AttentionShape& s) { s.kv_heads = 0; });
  ExpectRefused("kv_heads", "1 to 32", [](AttentionShape& s) { s.kv_heads = 64; });
  ExpectRefused("kv_heads", "a divisor of heads, 32", [](AttentionShape& s) { s.kv_heads = 5; });
  for (const uint32_t head_dim : {0u, 16u, 112u, 256u}) {
    ExpectRefused("head_dim", "64, 80, 96 or 128", [&](AttentionShape& s) { s.head_dim = head_dim; });
  }
  for (const uint32_t tokens : {0u, 8u, 32u, 128u}) {
    ExpectRefused("page_tokens", "16 or 64", [&](AttentionShape& s) { s.page_tokens = tokens; });
  }
  ExpectRefused("max_pages", "1 to 8192", [](AttentionShape& s) { s.max_pages = 0; });
  ExpectRefused("max_pages", "1 to 8192", [](AttentionShape& s) { s.max_pages = 8193; });
  ExpectRefused("max_pages", "1 to 2048", [](AttentionShape& s) { s.page_tokens = 64, s.max_pages = 2049; });
  ExpectRefused("local_pages", "at least 1 in one of the pools",
                [](AttentionShape& s) { s.local_pages = s.remote_pages = 0; });
  const uint64_t most = 0x7FFF'FFFF / (2 * 8 * 16);
  ExpectRefused("local_pages", "0 to 8388607 of this shape", [&](AttentionShape& s) { s.local_pages = most + 1; });
  ExpectRefused("remote_pages", "0 to 8388607 of this shape", [&](AttentionShape& s) { s.remote_pages = most + 1; });
  ExpectRefused("element", "bf16 or f16", [](AttentionShape& s) { s.element = ElementType::kF32; });
  for (const float scale : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::nanf("")}) {
    ExpectRefused("scale", "finite and above 0", [&](AttentionShape& s) { s.scale = scale; });
  }
}

#ifndef DAK_TEST_HAVE_CUDA
TEST(CreateCudaAttentionRunnerTest, SaysThatTheBuildHasNoCuda) {
  const auto runner = CreateCudaAttentionRunner(0, {});
  EXPECT_EQ(runner.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(runner.status().message(), "built without CUDA");
}
#else
TEST(CreateCudaAttentionRunnerTest, RefusesADeviceThatIsNotThere) {
  constexpr int kNoDevice = 4096;
  const auto runner = CreateCudaAttentionRunner(kNoDevice, {});
  ASSERT_FALSE(runner.ok());
  EXPECT_EQ(runner.status().code(), absl::StatusCode::kInternal);
  EXPECT_NE(runner.status().message().find("cudaError"), absl::string_view::npos) << runner.status();
}
#endif

}  // namespace
}  // namespace dak::kernels

// Attention's plain kernel, forced on a device that has a faster one: its PTX, compiled by the driver.
#include "tests/gpu/attention_problem.h"
#include "tests/gpu/window_fixture.h"

namespace dak::kernels {
namespace {

class AttentionPlainTest : public WindowFixture<AttentionRunner> {
 protected:
  absl::StatusOr<std::unique_ptr<AttentionRunner>> Create() override {
    return CreateCudaAttentionRunner(0, {.plain = true});
  }

  void ExpectRight(const AttentionCase& attention, uint64_t seed) {
    SCOPED_TRACE(testing::Message() << "heads " << attention.heads << " kv_heads " << attention.kv_heads << " head_dim "
                                    << attention.head_dim << " page_tokens " << attention.page_tokens
                                    << " remote_share " << attention.remote_share);
    AttentionProblem problem(attention, seed);
    SetWindow(256 * 1024);
    for (int i = 0; i < 2; ++i) {
      Launch(problem);
      Wait();
      EXPECT_LE(problem.RelativeError(), problem.Tolerance()) << "launch " << i;
      problem.Poison();
    }
  }
};

TEST_F(AttentionPlainTest, GridOfHeadsDimsPagesAndRatios) {
  uint64_t seed = 1;
  for (const auto& [heads, kv_heads] : {std::pair<uint32_t, uint32_t>{4, 4}, {16, 2}, {40, 1}, {64, 1}}) {
    for (const uint32_t head_dim : {64, 80, 96, 128}) {
      for (const double remote_share : {0.0, 0.5, 1.0}) {
        const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
        ExpectRight({heads, kv_heads, head_dim, seed % 3 == 0 ? 64u : 16u, element, {333, 1, 0, 1000}, remote_share},
                    seed);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(AttentionPlainTest, LongContextsAreSplitAndMerged) {
  ExpectRight({32, 8, 128, 16, ElementType::kBf16, {9000, 5, 4097}, 0.1}, 1);
  ExpectRight({8, 1, 64, 64, ElementType::kF16, {40'000}, 0.02}, 2);
}

TEST_F(AttentionPlainTest, ReportsExactBytesAndStaysInsideTheWindow) {
  ExpectExactBytesInsideWindows({0, kBoxBytes, 40'000, uint64_t{1} << 40}, [](uint64_t i) {
    auto problem = std::make_unique<AttentionProblem>(
        AttentionCase{8, 2, 128, 16, ElementType::kBf16, {700, 90, 333}, 0.6}, i + 1);
    const uint64_t remote_bytes = problem->remote_bytes();
    return std::pair(std::move(problem), remote_bytes);
  });
  EXPECT_GT(report_->round_trips, 0u);
}

}  // namespace
}  // namespace dak::kernels

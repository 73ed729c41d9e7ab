// Attention's plain kernel, forced on a device that has a faster one: its PTX, compiled by the driver.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/gemm_plan.h"
#include "tests/gpu/attention_problem.h"

namespace dak::kernels {
namespace {

void Store(uint64_t& word, uint64_t value) { std::atomic_ref<uint64_t>(word).store(value, std::memory_order_relaxed); }

class AttentionPlainTest : public testing::Test {
 protected:
  void SetUp() override {
    auto runner = CreateCudaAttentionRunner(0, {.plain = true});
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
    Store(control_->window_bytes, 256 * 1024);
  }

  void Launch(const AttentionProblem& problem) {
    const absl::Status status = runner_->Launch(problem.shape(), problem.operands(), {control_, report_}, nullptr);
    ASSERT_TRUE(status.ok()) << status;
  }
  void Wait() { Check(cudaStreamSynchronize(nullptr), "the kernel"); }

  void ExpectRight(const AttentionCase& attention, uint64_t seed) {
    SCOPED_TRACE(testing::Message() << "heads " << attention.heads << " kv_heads " << attention.kv_heads << " head_dim "
                                    << attention.head_dim << " page_tokens " << attention.page_tokens
                                    << " remote_share " << attention.remote_share);
    AttentionProblem problem(attention, seed);
    for (int i = 0; i < 2; ++i) {
      Launch(problem);
      Wait();
      EXPECT_LE(problem.RelativeError(), problem.Tolerance()) << "launch " << i;
      problem.Poison();
    }
  }

  std::unique_ptr<AttentionRunner> runner_;
  Memory pages_{Memory::Where::kHost, 4096};
  v1::LinkControl* control_ = pages_.as<v1::LinkControl>();
  v1::LinkReport* report_ = reinterpret_cast<v1::LinkReport*>(pages_.as<uint8_t>() + 2048);
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
  uint64_t bytes = 0;
  uint64_t passes = 0;
  uint64_t largest = 0;
  for (const uint64_t window : {uint64_t{0}, uint64_t{kBoxBytes}, uint64_t{40'000}, uint64_t{1} << 40}) {
    AttentionProblem problem({8, 2, 128, 16, ElementType::kBf16, {700, 90, 333}, 0.6}, window + 1);
    Store(control_->window_bytes, window);
    Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance()) << "window " << window;
    bytes += problem.remote_bytes();
    largest = std::max<uint64_t>({largest, window, kBoxBytes});
    EXPECT_EQ(report_->bytes, bytes) << "window " << window;
    EXPECT_EQ(report_->passes, ++passes);
    EXPECT_EQ(report_->inflight_bytes, 0u);
    EXPECT_LE(report_->inflight_peak_bytes, largest) << "window " << window;
    EXPECT_GT(report_->round_trips, 0u);
  }
}

}  // namespace
}  // namespace dak::kernels

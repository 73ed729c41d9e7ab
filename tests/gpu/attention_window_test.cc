// Attention's window and report page on a GPU.
#include "kernels/attention_plan.h"
#include "tests/gpu/attention_problem.h"
#include "tests/gpu/window_fixture.h"

namespace dak::kernels {
namespace {

class AttentionWindowTest : public WindowFixture<AttentionRunner> {
  absl::StatusOr<std::unique_ptr<AttentionRunner>> Create() override { return CreateCudaAttentionRunner(0, {}); }
};
using AttentionSmallWindowTest = AttentionWindowTest;

TEST_F(AttentionSmallWindowTest, ReportsExactBytesAndStaysInsideTheWindow) {
  ExpectExactBytesInsideWindows({0, 1000, kBoxBytes, 40'000, 184'000, uint64_t{1} << 40}, [](uint64_t i) {
    const uint32_t head_dim = i % 2 == 0 ? 128 : 80;
    auto problem = std::make_unique<AttentionProblem>(
        AttentionCase{8, 2, head_dim, 16, ElementType::kBf16, {700, 90, 333}, 0.6}, i + 2);
    const uint64_t remote_bytes = problem->remote_bytes();
    return std::pair(std::move(problem), remote_bytes);
  });
}

TEST_F(AttentionSmallWindowTest, AnAllLocalOperationCountsAsAPassAndReadsNothing) {
  AttentionProblem problem({8, 2, 64, 64, ElementType::kF16, {100, 0}, 0}, 1);
  Launch(problem);
  Wait();
  ExpectNothingRead(1);
  problem.Randomise({0, 0}, 0, 2);
  Launch(problem);
  Wait();
  ExpectNothingRead(2);
}

TEST_F(AttentionWindowTest, ARunnerUsesMostOfAWindowAndNeverMore) {
  for (const uint64_t window : {uint64_t{kBoxBytes}, uint64_t{3 * kBoxBytes}, uint64_t{64 * 1024}, uint64_t{184'000}}) {
    const AttentionProblem problem({8, 8, 128, 16, ElementType::kBf16, {2048, 2048}, 0.9}, window);
    ExpectMostOfTheWindowUsed(problem, window, 4, problem.remote_bytes());
  }
}

TEST_F(AttentionWindowTest, AWindowThatGrowsWhileTheKernelRunsIsUsed) {
  // 64 MiB: 7 ms in the narrow window.
  const AttentionProblem problem({8, 8, 128, 64, ElementType::kBf16, {16'384}, 1}, 1);
  ExpectAGrowingWindowUsed(problem, 2 * kBoxBytes, 16 * kBoxBytes);
}

TEST_F(AttentionWindowTest, AWindowThatChangesAllTheTimeIsNeverExceeded) {
  AttentionProblem problem({32, 8, 128, 16, ElementType::kF16, {4096, 1000, 77}, 0.8}, 1);
  ExpectAChangingWindowKept(problem, 10, problem.remote_bytes());
}

TEST_F(AttentionWindowTest, LaunchesThatOverlapShareWindowReportAndWorkspace) {
  constexpr uint64_t kWindow = 12 * kBoxBytes;
  std::vector<std::unique_ptr<AttentionProblem>> problems;
  for (const double remote_share : {0.1, 1.0, 0.0, 0.5, 0.02, 0.0}) {
    const AttentionCase attention{32, 8, 128, 16, ElementType::kBf16, {3000, 0, 77, 500}, remote_share};
    problems.push_back(std::make_unique<AttentionProblem>(attention, problems.size() + 1));
  }
  SetWindow(kWindow);
  uint64_t bytes = 0;
  for (uint64_t i = 1; i <= 20; ++i) {
    for (const auto& problem : problems) {
      problem->Poison();
      bytes += problem->remote_bytes();
    }
    for (const auto& problem : problems) Launch(*problem);
    Wait();
    ASSERT_EQ(report_->bytes, bytes) << "time " << i;
    ASSERT_EQ(report_->passes, i * problems.size());
    ASSERT_EQ(report_->inflight_bytes, 0u);
    ASSERT_LE(report_->inflight_peak_bytes, kWindow);
  }
  for (const auto& problem : problems) EXPECT_LE(problem->RelativeError(), problem->Tolerance());
}

TEST_F(AttentionWindowTest, SharesItsWindowAndReportWithAGemmRunner) {
  constexpr uint64_t kWindow = 12 * kBoxBytes;
  auto gemm = CreateCudaGemmRunner(0);
  ASSERT_TRUE(gemm.ok()) << gemm.status();
  auto runner = CreateCudaAttentionRunner(0, {.link_counters = (*gemm)->link_counters()});
  ASSERT_TRUE(runner.ok()) << runner.status();
  runner_ = *std::move(runner);
  AttentionProblem attention({32, 8, 128, 16, ElementType::kBf16, {2000, 1000}, 0.5}, 1);
  Problem product({8, 4096, 2048, 2048, ElementType::kBf16}, 2);
  SetWindow(kWindow);
  constexpr int kTimes = 10;
  for (int i = 0; i < kTimes; ++i) {
    const absl::Status status = (*gemm)->Launch(product.shape(), product.operands(), {control_, report_}, nullptr);
    ASSERT_TRUE(status.ok()) << status;
    Launch(attention);
  }
  Wait();
  EXPECT_LE(attention.RelativeError(), attention.Tolerance());
  EXPECT_LE(product.RelativeError(), product.Tolerance());
  EXPECT_EQ(report_->bytes, kTimes * (attention.remote_bytes() + RemoteBytes(product)));
  EXPECT_EQ(report_->passes, 2u * kTimes);
  EXPECT_LE(report_->inflight_peak_bytes, kWindow);
  EXPECT_EQ(report_->inflight_bytes, 0u);
}

}  // namespace
}  // namespace dak::kernels

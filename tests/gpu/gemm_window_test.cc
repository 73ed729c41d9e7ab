// The decode GEMM's window and report page on a GPU.
#include "tests/gpu/window_fixture.h"

namespace dak::kernels {
namespace {

class GemmWindowTest : public WindowFixture<GemmRunner> {
  absl::StatusOr<std::unique_ptr<GemmRunner>> Create() override { return CreateCudaGemmRunner(0); }
};
using GemmSmallWindowTest = GemmWindowTest;

TEST_F(GemmSmallWindowTest, ReportsExactBytesAndStaysInsideTheWindow) {
  ExpectExactBytesInsideWindows({0, 1000, kBoxBytes, 40'000, 184'000, uint64_t{1} << 40}, [](uint64_t i) {
    auto problem = std::make_unique<Problem>(GemmShape{8, 700, 520, 190, ElementType::kBf16}, i + 1);
    return std::pair(std::move(problem), uint64_t{510 * 520 * 2});
  });
}

TEST_F(GemmSmallWindowTest, AnAllLocalOperationCountsAsAPassAndReadsNothing) {
  const Problem problem({8, 256, 128, 256, ElementType::kF16}, 1);
  Launch(problem);
  Wait();
  ExpectNothingRead(1);
}

TEST_F(GemmWindowTest, ARunnerUsesMostOfAWindowAndNeverMore) {
  for (const uint64_t window : {uint64_t{kBoxBytes}, uint64_t{3 * kBoxBytes}, uint64_t{64 * 1024}, uint64_t{184'000}}) {
    const Problem problem({8, 4096, 2048, 2048, ElementType::kBf16}, window);
    ExpectMostOfTheWindowUsed(problem, window, 4, RemoteBytes(problem));
  }
}

// Launches overlap, and a launch takes over what the one before it gives up: with few and many remote CTAs, without
// any, with one unit and with many, and with the kernel for large batches between them.
TEST_F(GemmWindowTest, LaunchesThatFollowEachOtherShareTheWindow) {
  constexpr int kBursts = 30;
  constexpr int kRounds = 4;
  std::vector<std::unique_ptr<Problem>> problems;
  std::vector<std::vector<uint16_t>> expected;
  uint64_t remote_bytes = 0;
  for (const GemmShape& shape : {GemmShape{8, 1500, 1032, 900, ElementType::kBf16},
                                 {1, 1024, 2048, 960, ElementType::kF16},
                                 {1, 512, 2048, 448, ElementType::kBf16},
                                 {16, 512, 520, 512, ElementType::kBf16},
                                 {33, 300, 512, 0, ElementType::kBf16},
                                 {200, 700, 1024, 300, ElementType::kF16},
                                 {300, 512, 1032, 256, ElementType::kBf16},
                                 {64, 1024, 264, 1023, ElementType::kBf16}}) {
    problems.push_back(std::make_unique<Problem>(shape, problems.size() + 1));
    remote_bytes += RemoteBytes(*problems.back());
  }
  for (const uint64_t window : {uint64_t{kBoxBytes}, uint64_t{5 * kBoxBytes}, uint64_t{100'000}, uint64_t{262'144}}) {
    SCOPED_TRACE(testing::Message() << "window " << window);
    SetUp();
    SetWindow(window);
    for (int burst = 0; burst < kBursts; ++burst) {
      for (const auto& problem : problems) problem->Poison();
      for (int round = 0; round < kRounds; ++round) {
        for (const auto& problem : problems) Launch(*problem);
      }
      Wait();
      for (size_t i = 0; i < problems.size(); ++i) {
        if (i == expected.size()) {
          EXPECT_LE(problems[i]->RelativeError(), problems[i]->Tolerance()) << "problem " << i;
          expected.push_back(problems[i]->Output());
        }
        ASSERT_EQ(problems[i]->Output(), expected[i]) << "problem " << i << ", burst " << burst;
      }
    }
    EXPECT_EQ(report_->bytes, kBursts * kRounds * remote_bytes);
    EXPECT_EQ(report_->passes, kBursts * kRounds * problems.size());
    EXPECT_EQ(report_->inflight_bytes, 0u);
    EXPECT_LE(report_->inflight_peak_bytes, window);
  }
}

TEST_F(GemmWindowTest, AWindowThatGrowsWhileTheKernelRunsIsUsed) {
  const Problem problem({8, 8192, 8192, 0, ElementType::kBf16}, 1);  // 128 MiB: 15 ms in the narrow window
  ExpectAGrowingWindowUsed(problem, 2 * kBoxBytes, 16 * kBoxBytes);
}

TEST_F(GemmWindowTest, AWindowThatChangesAllTheTimeIsNeverExceeded) {
  Problem problem({16, 8192, 4096, 1000, ElementType::kF16}, 1);
  ExpectAChangingWindowKept(problem, 10, RemoteBytes(problem));
}

}  // namespace
}  // namespace dak::kernels

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

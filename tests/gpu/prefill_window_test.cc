// The window and the report page of the prefill GEMM on a GPU: each remote byte crosses the link once.
#include "tests/gpu/window_fixture.h"

namespace dak::kernels {
namespace {

class PrefillWindowTest : public WindowFixture<GemmRunner> {
  absl::StatusOr<std::unique_ptr<GemmRunner>> Create() override { return CreateCudaGemmRunner(0); }
};
using PrefillSmallWindowTest = PrefillWindowTest;

TEST_F(PrefillSmallWindowTest, ReportsEachRemoteByteOnceAndStaysInsideTheWindow) {
  ExpectExactBytesInsideWindows({0, 1000, kBoxBytes, 3 * kBoxBytes, 40'000, 184'000, uint64_t{1} << 40},
                                [](uint64_t i) {
                                  const GemmShape shape{600, 700, 520, 190, ElementType::kBf16};
                                  return std::pair(std::make_unique<Problem>(shape, i + 1), uint64_t{510 * 520 * 2});
                                });
}

TEST_F(PrefillSmallWindowTest, AnAllLocalOperationCountsAsAPassAndReadsNothing) {
  const Problem problem({300, 256, 128, 256, ElementType::kF16}, 1);
  Launch(problem);
  Wait();
  ExpectNothingRead(1);
}

TEST_F(PrefillWindowTest, EachRemoteByteCrossesTheLinkOnceWhateverTheBatch) {
  const std::vector<uint32_t> batches = {257, 1024, 2048, 8192};
  ExpectExactBytesInsideWindows({256 * 1024, 256 * 1024, 256 * 1024, 256 * 1024}, [&](uint64_t i) {
    auto problem = std::make_unique<Problem>(GemmShape{batches[i], 1000, 1032, 700, ElementType::kBf16}, batches[i]);
    return std::pair(std::move(problem), uint64_t{300 * 1032 * 2});
  });
}

TEST_F(PrefillWindowTest, ARunnerUsesMostOfAWindowAndNeverMore) {
  for (const uint64_t window : {uint64_t{kBoxBytes}, uint64_t{64 * 1024}, uint64_t{184'000}}) {
    const Problem problem({512, 1024, 4096, 0, ElementType::kBf16}, window);
    ExpectMostOfTheWindowUsed(problem, window, 2, RemoteBytes(problem));
  }
}

TEST_F(PrefillWindowTest, AWindowThatGrowsWhileTheKernelRunsIsUsed) {
  const Problem problem({300, 2048, 8192, 0, ElementType::kBf16}, 1);  // 32 MiB: 10 ms and more in the narrow window
  ExpectAGrowingWindowUsed(problem, kBoxBytes, 16 * kBoxBytes);
}

TEST_F(PrefillWindowTest, AWindowThatChangesAllTheTimeIsNeverExceeded) {
  Problem problem({512, 2048, 2048, 1000, ElementType::kF16}, 1);
  ExpectAChangingWindowKept(problem, 10, RemoteBytes(problem));
}

}  // namespace
}  // namespace dak::kernels

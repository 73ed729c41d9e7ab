// The plain kernel, forced on a device that has a faster one: its PTX, compiled by the driver.
#include "allocator/base/error_detail.h"
#include "tests/gpu/window_fixture.h"

namespace dak::kernels {
namespace {

class GemmPlainTest : public WindowFixture<GemmRunner> {
 protected:
  absl::StatusOr<std::unique_ptr<GemmRunner>> Create() override { return CreateCudaGemmRunner(0, {.plain = true}); }

  void ExpectRight(const GemmShape& shape, uint64_t seed, const ProblemEpilogue& epilogue = {}) {
    SCOPED_TRACE(testing::Message() << "batch " << shape.batch << " n " << shape.n << " k " << shape.k << " local_rows "
                                    << shape.local_rows << " element " << static_cast<int>(shape.element));
    const Problem problem(shape, seed, epilogue);
    SetWindow(256 * 1024);
    Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
  }
};

TEST_F(GemmPlainTest, RaggedShapesOfEveryBatchTile) {
  uint64_t seed = 1;
  for (const auto& [n, k] : {std::pair<uint64_t, uint64_t>{1, 8}, {65, 72}, {200, 136}, {1000, 520}}) {
    for (const uint32_t batch : {1, 7, 16, 33, 64, 65, 256}) {
      for (const uint64_t local_rows : {n, n - 1, n / 2, uint64_t{0}}) {
        const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
        ExpectRight({batch, n, k, local_rows, element}, seed);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(GemmPlainTest, ModelShapesWithAndWithoutEpilogues) {
  ExpectRight({8, 6144, 4096, 5555, ElementType::kF16}, 1);
  ExpectRight({256, 4096, 4096, 3686, ElementType::kBf16}, 2, {.bias = true, .residual = true, .in_place = true});
  ExpectRight({8, 14'336, 4096, 14'000, ElementType::kBf16}, 3, {.activation = GemmActivation::kSwiGlu});
}

TEST_F(GemmPlainTest, ReportsExactBytesAndStaysInsideTheWindow) {
  ExpectExactBytesInsideWindows({0, kBoxBytes, 40'000, uint64_t{1} << 40}, [](uint64_t i) {
    auto problem = std::make_unique<Problem>(GemmShape{8, 700, 520, 190, ElementType::kBf16}, i + 1);
    return std::pair(std::move(problem), uint64_t{510 * 520 * 2});
  });
  EXPECT_GT(report_->round_trips, 0u);
}

TEST_F(GemmPlainTest, AnAllLocalOperationCountsAsAPassAndReadsNothing) {
  const Problem problem({8, 256, 128, 256, ElementType::kF16}, 1);
  Launch(problem);
  Wait();
  ExpectNothingRead(1);
}

TEST_F(GemmPlainTest, AWindowThatChangesAllTheTimeIsNeverExceeded) {
  Problem problem({16, 4096, 4096, 1000, ElementType::kF16}, 1);
  ExpectAChangingWindowKept(problem, 5, RemoteBytes(problem));
}

TEST_F(GemmPlainTest, NeedsAddressesAndNamesTheOneThatIsMissing) {
  Problem problem({8, 100, 64, 50, ElementType::kBf16}, 1);
  GemmOperands operands = problem.operands();
  operands.w_remote = 0;
  EXPECT_EQ(DetailOf(runner_->Launch(problem.shape(), operands, {}, nullptr)).field, "w_remote");
  GemmShape shape = problem.shape();
  shape.batch = 257;
  EXPECT_EQ(DetailOf(runner_->Launch(shape, problem.operands(), {}, nullptr)).field, "batch");
}

}  // namespace
}  // namespace dak::kernels

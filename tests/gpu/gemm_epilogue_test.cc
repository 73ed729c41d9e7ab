// Fused epilogues on a GPU: whole tiles, tiles that CTAs share, both parts of W, every batch tile.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "allocator/base/error_detail.h"
#include "tests/gpu/gemm_problem.h"

namespace dak::kernels {
namespace {

class GemmEpilogueTest : public testing::Test {
 protected:
  void SetUp() override {
    auto runner = CreateCudaGemmRunner(0);
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  void ExpectRight(const GemmShape& shape, uint64_t seed, const ProblemEpilogue& epilogue, bool shift_y = false) {
    SCOPED_TRACE(testing::Message() << "batch " << shape.batch << " n " << shape.n << " k " << shape.k << " local_rows "
                                    << shape.local_rows << " bias " << epilogue.bias << " residual "
                                    << epilogue.residual << " in_place " << epilogue.in_place << " activation "
                                    << static_cast<int>(epilogue.activation));
    Problem problem(shape, seed, epilogue);
    if (shift_y) problem.ShiftY();
    problem.Poison();
    const absl::Status status = runner_->Launch(problem.shape(), problem.operands(), {}, nullptr);
    ASSERT_TRUE(status.ok()) << status;
    Check(cudaStreamSynchronize(nullptr), "the kernel");
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
  }

  std::unique_ptr<GemmRunner> runner_;
};

std::vector<ProblemEpilogue> Epilogues(GemmActivation activation) {
  return {{.activation = activation},
          {.bias = true, .activation = activation},
          {.residual = true, .activation = activation},
          {.bias = true, .residual = true, .activation = activation},
          {.bias = true, .residual = true, .in_place = true, .activation = activation}};
}

// k is small where every CTA has tiles of its own, large where they share them.
TEST_F(GemmEpilogueTest, BiasAndResidualOfEveryBatchTile) {
  uint64_t seed = 0;
  for (const uint32_t batch : {1, 9, 17, 64, 100, 256}) {
    for (const auto& [n, k] : {std::pair<uint64_t, uint64_t>{129, 72}, {1000, 2056}}) {
      for (const ProblemEpilogue& epilogue : Epilogues(GemmActivation::kNone)) {
        const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
        ExpectRight({batch, n, k, n * (seed % 5) / 4, element}, seed, epilogue);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(GemmEpilogueTest, SwiGluOfEveryBatchTile) {
  uint64_t seed = 1000;
  for (const uint32_t batch : {1, 9, 17, 64, 100, 256}) {
    for (const auto& [n, k] : {std::pair<uint64_t, uint64_t>{144, 72}, {1008, 2056}}) {
      for (const ProblemEpilogue& epilogue : Epilogues(GemmActivation::kSwiGlu)) {
        const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
        ExpectRight({batch, n, k, n / 16 * (seed % 5) / 4 * 16, element}, seed, epilogue);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(GemmEpilogueTest, ModelShapes) {
  ExpectRight({8, 28'672, 4096, 28'000, ElementType::kBf16}, 1, {.activation = GemmActivation::kSwiGlu});
  ExpectRight({64, 4096, 14'336, 3686, ElementType::kBf16}, 2, {.residual = true, .in_place = true});
}

TEST_F(GemmEpilogueTest, AYThatIsNotAlignedToPairsIsWrittenAll) {
  for (const ProblemEpilogue& epilogue : Epilogues(GemmActivation::kNone)) {
    ExpectRight({9, 256, 520, 128, ElementType::kBf16}, 3, epilogue, /*shift_y=*/true);
  }
}

TEST_F(GemmEpilogueTest, RefusesRowsThatDontPairUp) {
  Problem problem({8, 160, 64, 72, ElementType::kBf16}, 1, {.activation = GemmActivation::kSwiGlu});
  const absl::Status status = runner_->Launch(problem.shape(), problem.operands(), {}, nullptr);
  EXPECT_EQ(DetailOf(status).field, "local_rows");
}

}  // namespace
}  // namespace dak::kernels

// Fused epilogues of the prefill GEMM on a GPU: boxes that TMA writes and boxes that threads write, of both parts of W.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "allocator/base/error_detail.h"
#include "tests/gpu/gemm_problem.h"

namespace dak::kernels {
namespace {

class PrefillEpilogueTest : public testing::Test {
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

TEST_F(PrefillEpilogueTest, BiasAndResidualOfAlignedAndRaggedBoxes) {
  uint64_t seed = 0;
  for (const uint32_t batch : {257, 512}) {
    for (const auto& [n, k] : {std::pair<uint64_t, uint64_t>{129, 72}, {1000, 264}, {2048, 128}}) {
      for (const ProblemEpilogue& epilogue : Epilogues(GemmActivation::kNone)) {
        const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
        ExpectRight({batch, n, k, n * (seed % 5) / 4, element}, seed, epilogue);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(PrefillEpilogueTest, SwiGluOfAlignedAndRaggedBoxes) {
  uint64_t seed = 1000;
  for (const uint32_t batch : {257, 512}) {
    for (const auto& [n, k] : {std::pair<uint64_t, uint64_t>{16, 8}, {144, 72}, {1008, 264}, {2048, 128}}) {
      for (const ProblemEpilogue& epilogue : Epilogues(GemmActivation::kSwiGlu)) {
        const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
        ExpectRight({batch, n, k, n / 16 * (seed % 5) / 4 * 16, element}, seed, epilogue);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(PrefillEpilogueTest, AYThatTmaCantWriteIsWrittenAll) {
  for (const GemmActivation activation : {GemmActivation::kNone, GemmActivation::kSwiGlu}) {
    for (const ProblemEpilogue& epilogue : Epilogues(activation)) {
      ExpectRight({300, 256, 520, 128, ElementType::kBf16}, 3, epilogue, /*shift_y=*/true);
    }
  }
}

TEST_F(PrefillEpilogueTest, ModelShapes) {
  ExpectRight({512, 28'672, 512, 28'000, ElementType::kBf16}, 1, {.activation = GemmActivation::kSwiGlu});
  ExpectRight({1024, 4096, 1024, 3584, ElementType::kF16}, 2, {.residual = true, .in_place = true});
}

TEST_F(PrefillEpilogueTest, RefusesRowsThatDontPairUp) {
  Problem problem({300, 160, 64, 72, ElementType::kBf16}, 1, {.activation = GemmActivation::kSwiGlu});
  const absl::Status status = runner_->Launch(problem.shape(), problem.operands(), {}, nullptr);
  EXPECT_EQ(DetailOf(status).field, "local_rows");
}

}  // namespace
}  // namespace dak::kernels

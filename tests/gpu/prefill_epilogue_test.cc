// Fused epilogues of the prefill GEMM on a GPU: boxes that TMA writes and boxes that threads write, of both parts of W.
#include "allocator/base/error_detail.h"
#include "tests/gpu/gemm_fixture.h"

namespace dak::kernels {
namespace {

using PrefillEpilogueTest = GemmFixture;

TEST_F(PrefillEpilogueTest, BiasAndResidualOfAlignedAndRaggedBoxes) {
  ExpectEpiloguesRight(GemmActivation::kNone, {{129, 72}, {1000, 264}, {2048, 128}}, {257, 512}, 0);
}

TEST_F(PrefillEpilogueTest, SwiGluOfAlignedAndRaggedBoxes) {
  ExpectEpiloguesRight(GemmActivation::kSwiGlu, {{16, 8}, {144, 72}, {1008, 264}, {2048, 128}}, {257, 512}, 1000);
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

// Fused epilogues on a GPU: whole tiles, tiles that CTAs share, both parts of W, every batch tile.
#include "allocator/base/error_detail.h"
#include "tests/gpu/gemm_fixture.h"

namespace dak::kernels {
namespace {

using GemmEpilogueTest = GemmFixture;

// k is small where every CTA has tiles of its own, large where they share them.
TEST_F(GemmEpilogueTest, BiasAndResidualOfEveryBatchTile) {
  ExpectEpiloguesRight(GemmActivation::kNone, {{129, 72}, {1000, 2056}}, {1, 9, 17, 64, 100, 256}, 0);
}

TEST_F(GemmEpilogueTest, SwiGluOfEveryBatchTile) {
  ExpectEpiloguesRight(GemmActivation::kSwiGlu, {{144, 72}, {1008, 2056}}, {1, 9, 17, 64, 100, 256}, 1000);
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

// The decode GEMM's numbers on a GPU. GemmSmallTest is small enough for compute-sanitizer:
//   compute-sanitizer --tool memcheck dak_gpu_gemm_test --gtest_filter='GemmSmallTest.*'
#include "allocator/base/error_detail.h"
#include "kernels/gemm_plan.h"
#include "tests/gpu/gemm_fixture.h"

namespace dak::kernels {
namespace {

using GemmTest = GemmFixture;
using GemmSmallTest = GemmTest;

TEST_F(GemmSmallTest, RaggedShapesOfEveryBatchTile) {
  ExpectGridRight({{1, 8}, {65, 72}, {200, 136}}, {1, 7, 16, 33, 64, 128, 256});
}

TEST_F(GemmTest, GridOfShapesRatiosAndBatches) {
  ExpectGridRight({{1, 8}, {63, 64}, {64, 4096}, {129, 1000}, {515, 2056}, {1000, 520}, {4097, 264}},
                  {1, 7, 8, 16, 33, 64, 100, 128, 256});
}

TEST_F(GemmTest, ModelShapes) {
  uint64_t seed = 1000;
  for (const uint32_t batch : {1, 8, 64, 128, 256}) {
    ExpectRight({batch, 4096, 4096, 4096, ElementType::kBf16}, ++seed);
    ExpectRight({batch, 6144, 4096, 5555, ElementType::kF16}, ++seed);
  }
  ExpectRight({32, 4096, 14'336, 3686, ElementType::kBf16}, ++seed);
  ExpectRight({8, 28'672, 4096, 28'000, ElementType::kBf16}, ++seed);
}

// Whole tiles, of which some CTAs have one less; 150: parted, at batch 256 in clusters.
TEST_F(GemmTest, MoreTilesThanSms) {
  uint64_t seed = 2000;
  for (const uint64_t tiles : {140, 150, 264, 301}) {
    for (const uint32_t batch : {8, 33, 128, 256}) {
      const uint64_t n = tiles * kBoxRows - 7;
      const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
      ExpectRight({batch, n, 264, seed % 3 == 0 ? n - 90 : n, element}, seed);
    }
  }
}

TEST_F(GemmTest, EveryRaggedEndOfRows) {
  uint64_t seed = 100;
  for (uint64_t local_rows = 0; local_rows <= 130; local_rows += 13) {
    for (uint64_t remote_rows = 1; remote_rows <= 130; remote_rows += 43) {
      const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
      ExpectRight({9, local_rows + remote_rows, 328, local_rows, element}, seed);
    }
  }
}

TEST_F(GemmTest, ALaunchSeesWhatTheOneBeforeItWrote) {
  // y of the first is x of the second; launches overlap, so an early read of x would show.
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Problem first({33, 512, 4096, 400, ElementType::kBf16}, seed);
    Problem second({33, 300, 512, 200, ElementType::kBf16}, seed + 10);
    second.UseX(first.y_address());
    Launch(first);
    Launch(second);
    Wait();
    EXPECT_LE(first.RelativeError(), first.Tolerance());
    EXPECT_LE(second.RelativeError(), second.Tolerance());
  }
}

TEST_F(GemmTest, ALaunchSeesWeightsThatTheOneBeforeItWrote) {
  // y of the first, [64, 512], is W of the second.
  Problem first({64, 512, 8192, 512, ElementType::kBf16}, 1);
  Problem second({8, 64, 512, 64, ElementType::kBf16}, 2);
  Problem expected({8, 64, 512, 64, ElementType::kBf16}, 2);
  Launch(first);
  Wait();
  Check(cudaMemcpy(reinterpret_cast<void*>(expected.operands().w_local), reinterpret_cast<void*>(first.y_address()),
                   64 * 512 * 2, cudaMemcpyDefault),
        "cudaMemcpy");
  Launch(expected);
  Wait();
  first.Poison();
  // The map of `second` is of its own W: launch the first into that.
  GemmOperands operands = first.operands();
  operands.y = second.operands().w_local;
  ASSERT_TRUE(runner_->Launch(first.shape(), operands, {}, stream_).ok());
  Launch(second);
  Wait();
  EXPECT_EQ(second.Output(), expected.Output());
}

TEST_F(GemmTest, GraphsCaptureLaunchesAndReplayThemOnNewInputs) {
  Problem first({16, 2048, 1024, 1800, ElementType::kF16}, 1);
  Problem second({16, 1024, 2048, 1000, ElementType::kF16}, 2);
  second.UseX(first.y_address());
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  Launch(first);
  Launch(second);
  Check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
  Check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
  for (uint64_t seed = 10; seed < 13; ++seed) {
    first.Randomise(seed);
    first.Poison();
    second.Poison();
    Check(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch");
    Check(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch");
    Wait();
    EXPECT_LE(first.RelativeError(), first.Tolerance());
    EXPECT_LE(second.RelativeError(), 2 * second.Tolerance());
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

TEST_F(GemmSmallTest, RefusesWhatItCantRunAndNamesTheField) {
  Problem problem({8, 100, 64, 50, ElementType::kBf16}, 1);
  const auto field = [&](const GemmShape& shape, const GemmOperands& operands) {
    return DetailOf(runner_->Launch(shape, operands, {}, stream_)).field;
  };
  GemmOperands operands = problem.operands();
  operands.x += 2;
  EXPECT_EQ(field(problem.shape(), operands), "x");
  operands = problem.operands();
  operands.w_local_map = nullptr;
  EXPECT_EQ(field(problem.shape(), operands), "w_local_map");
  operands = problem.operands();
  operands.w_remote_map = nullptr;
  EXPECT_EQ(field(problem.shape(), operands), "w_remote_map");
  GemmShape shape = problem.shape();
  shape.batch = 8193;
  EXPECT_EQ(field(shape, problem.operands()), "batch");
  Wait();
}

}  // namespace
}  // namespace dak::kernels

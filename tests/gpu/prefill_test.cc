// The prefill GEMM's numbers on a GPU. PrefillSmallTest is small enough for compute-sanitizer:
//   compute-sanitizer --tool memcheck dak_gpu_prefill_test --gtest_filter='PrefillSmall*'
#include "allocator/base/error_detail.h"
#include "tests/gpu/gemm_fixture.h"

namespace dak::kernels {
namespace {

using PrefillTest = GemmFixture;
using PrefillSmallTest = PrefillTest;

TEST_F(PrefillSmallTest, RaggedShapesAllInHbm) {
  uint64_t seed = 1;
  for (const uint32_t batch : {257, 300, 512}) {
    for (const auto& [n, k] : {std::pair<uint64_t, uint64_t>{1, 8}, {65, 72}, {200, 136}, {264, 328}}) {
      ExpectRight({batch, n, k, n, ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16}, seed);
      if (HasFailure()) return;
    }
  }
}

TEST_F(PrefillSmallTest, RaggedShapesOfEveryRatio) {
  ExpectGridRight({{1, 8}, {65, 72}, {200, 136}, {264, 328}}, {257, 512});
}

TEST_F(PrefillTest, GridOfShapesRatiosAndBatches) {
  ExpectGridRight({{63, 64}, {129, 1000}, {515, 2056}, {1000, 520}, {4104, 264}}, {257, 384, 700, 1024, 2048});
}

TEST_F(PrefillTest, ModelShapes) {
  uint64_t seed = 1000;
  ExpectRight({2048, 4096, 4096, 4096, ElementType::kBf16}, ++seed);
  ExpectRight({2048, 4096, 1024, 3520, ElementType::kF16}, ++seed);
  ExpectRight({4096, 6144, 1024, 5555, ElementType::kBf16}, ++seed);
  ExpectRight({512, 4096, 14'336, 3686, ElementType::kBf16}, ++seed);
  ExpectRight({8192, 1024, 1024, 960, ElementType::kF16}, ++seed);
}

TEST_F(PrefillTest, EveryRaggedEndOfRows) {
  uint64_t seed = 100;
  for (uint64_t local_rows = 0; local_rows <= 130; local_rows += 13) {
    for (uint64_t remote_rows = 1; remote_rows <= 300; remote_rows += 43) {
      const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
      ExpectRight({270, local_rows + remote_rows, 328, local_rows, element}, seed);
      if (HasFailure()) return;
    }
  }
}

TEST_F(PrefillTest, TheRingIsUsedManyTimesOver) {
  // 32 boxes of 256 chunks: twice the ring.
  ExpectRight({257, 2048, 16'384, 0, ElementType::kBf16}, 1);
  ExpectRight({300, 128, 131'072, 0, ElementType::kF16}, 2);  // the largest k there is
}

TEST_F(PrefillTest, AnOutputThatTmaCantWriteIsWrittenByThreads) {
  Problem problem({400, 512, 264, 300, ElementType::kBf16}, 1);
  Launch(problem);
  Wait();
  ASSERT_LE(problem.RelativeError(), problem.Tolerance());
  const uint64_t elements = 400 * 512;
  Memory unaligned(Memory::Where::kDevice, (elements + 2) * 2);
  Check(cudaMemset(unaligned.as<void>(), 0xFF, (elements + 2) * 2), "cudaMemset");
  Check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  GemmOperands operands = problem.operands();
  operands.y = unaligned.address() + 2;
  ASSERT_TRUE(runner_->Launch(problem.shape(), operands, {}, stream_).ok());
  Wait();
  std::vector<uint16_t> y(elements + 2);
  Check(cudaMemcpy(y.data(), unaligned.as<void>(), y.size() * 2, cudaMemcpyDefault), "cudaMemcpy");
  EXPECT_EQ(y.front(), 0xFFFF);
  EXPECT_EQ(y.back(), 0xFFFF);
  EXPECT_EQ(std::vector<uint16_t>(y.begin() + 1, y.end() - 1), problem.Output());
}

TEST_F(PrefillTest, LaunchesOfBothKernelsFollowEachOther) {
  // y of each is x of the next; launches overlap, so an early read of x would show.
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Problem first({300, 512, 1024, 400, ElementType::kBf16}, seed);
    Problem second({300, 320, 512, 200, ElementType::kBf16}, seed + 10);
    Problem third({40, 512, 320, 100, ElementType::kBf16}, seed + 20);
    Problem fourth({40, 256, 512, 256, ElementType::kBf16}, seed + 30);
    Problem fifth({512, 256, 256, 100, ElementType::kBf16}, seed + 40);
    second.UseX(first.y_address());
    third.UseX(second.y_address());
    fourth.UseX(third.y_address());
    for (const Problem* problem : {&first, &second, &third, &fourth, &fifth}) Launch(*problem);
    Wait();
    for (const Problem* problem : {&first, &second, &third, &fourth, &fifth}) {
      EXPECT_LE(problem->RelativeError(), problem->Tolerance());
    }
  }
}

TEST_F(PrefillTest, ALaunchSeesWeightsThatTheOneBeforeItWrote) {
  // y of the first, [300, 512], is W of the second.
  Problem first({300, 512, 2048, 512, ElementType::kBf16}, 1);
  Problem second({260, 300, 512, 300, ElementType::kBf16}, 2);
  Problem expected({260, 300, 512, 300, ElementType::kBf16}, 2);
  Launch(first);
  Wait();
  Check(cudaMemcpy(reinterpret_cast<void*>(expected.operands().w_local), reinterpret_cast<void*>(first.y_address()),
                   300 * 512 * 2, cudaMemcpyDefault),
        "cudaMemcpy");
  Launch(expected);
  Wait();
  GemmOperands operands = first.operands();
  operands.y = second.operands().w_local;
  ASSERT_TRUE(runner_->Launch(first.shape(), operands, {}, stream_).ok());
  Launch(second);
  Wait();
  EXPECT_EQ(second.Output(), expected.Output());
}

TEST_F(PrefillTest, GraphsCaptureLaunchesAndReplayThemOnNewInputs) {
  Problem first({320, 1024, 512, 800, ElementType::kF16}, 1);
  Problem second({16, 512, 1024, 300, ElementType::kF16}, 2);
  Problem third({260, 256, 512, 0, ElementType::kF16}, 3);
  second.UseX(first.y_address());
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  for (const Problem* problem : {&first, &second, &third}) Launch(*problem);
  Check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
  Check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
  for (uint64_t seed = 10; seed < 13; ++seed) {
    first.Randomise(seed);
    third.Randomise(seed + 100);
    for (Problem* problem : {&first, &second, &third}) problem->Poison();
    Check(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch");
    Check(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch");
    Wait();
    EXPECT_LE(first.RelativeError(), first.Tolerance());
    EXPECT_LE(second.RelativeError(), 2 * second.Tolerance());
    EXPECT_LE(third.RelativeError(), third.Tolerance());
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

TEST_F(PrefillSmallTest, RefusesWhatItCantRunAndNamesTheField) {
  Problem problem({300, 100, 64, 50, ElementType::kBf16}, 1);
  const auto field = [&](const GemmShape& shape, const GemmOperands& operands) {
    return DetailOf(runner_->Launch(shape, operands, {}, stream_)).field;
  };
  GemmOperands operands = problem.operands();
  operands.x += 2;
  EXPECT_EQ(field(problem.shape(), operands), "x");
  operands = problem.operands();
  operands.y = 0;
  EXPECT_EQ(field(problem.shape(), operands), "y");
  operands = problem.operands();
  operands.w_remote_map = nullptr;
  EXPECT_EQ(field(problem.shape(), operands), "w_remote_map");
  GemmShape shape = problem.shape();
  shape.batch = 8193;
  EXPECT_EQ(field(shape, problem.operands()), "batch");
  shape = problem.shape();
  shape.k = 131'080;
  EXPECT_EQ(field(shape, problem.operands()), "k");
  Wait();
}

}  // namespace
}  // namespace dak::kernels

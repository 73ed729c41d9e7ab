// The decode GEMM's numbers on a GPU. GemmSmallTest is small enough for compute-sanitizer:
//   compute-sanitizer --tool memcheck dak_gpu_gemm_test --gtest_filter='GemmSmallTest.*'
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "allocator/base/error_detail.h"
#include "tests/gpu/gemm_problem.h"

namespace dak::kernels {
namespace {

class GemmTest : public testing::Test {
 protected:
  void SetUp() override {
    auto runner = CreateCudaGemmRunner(0);
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  void TearDown() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  void Launch(const Problem& problem) {
    const absl::Status status = runner_->Launch(problem.shape(), problem.operands(), {}, stream_);
    ASSERT_TRUE(status.ok()) << status;
  }
  void Wait() { Check(cudaStreamSynchronize(stream_), "the kernel"); }

  // Right numbers, and the same bits again.
  void ExpectRight(const GemmShape& shape, uint64_t seed) {
    SCOPED_TRACE(testing::Message() << "batch " << shape.batch << " n " << shape.n << " k " << shape.k << " local_rows "
                                    << shape.local_rows << " element " << static_cast<int>(shape.element));
    Problem problem(shape, seed);
    Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
    const std::vector<uint16_t> first = problem.Output();
    problem.Poison();
    Launch(problem);
    Wait();
    EXPECT_EQ(problem.Output(), first) << "not the same bits again";
  }

  void ExpectGridRight(const std::vector<std::pair<uint64_t, uint64_t>>& sizes, const std::vector<uint32_t>& batches) {
    uint64_t seed = 1;
    for (const auto& [n, k] : sizes) {
      for (const uint32_t batch : batches) {
        for (const uint64_t local_rows : {n, n - 1, n - n / 10, n / 2, uint64_t{0}}) {
          const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
          ExpectRight({batch, n, k, local_rows, element}, seed);
          if (HasFailure()) return;
        }
      }
    }
  }

  std::unique_ptr<GemmRunner> runner_;
  cudaStream_t stream_ = nullptr;
};

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

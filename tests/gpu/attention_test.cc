// Decode attention's numbers on a GPU. AttentionSmallTest is small enough for compute-sanitizer:
//   compute-sanitizer --tool memcheck dak_gpu_attention_test --gtest_filter='AttentionSmall*'
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "allocator/base/error_detail.h"
#include "tests/gpu/attention_problem.h"

namespace dak::kernels {
namespace {

class AttentionTest : public testing::Test {
 protected:
  void SetUp() override {
    auto runner = CreateCudaAttentionRunner(0, {});
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  void TearDown() override {
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  void Launch(const AttentionProblem& problem) {
    const absl::Status status = runner_->Launch(problem.shape(), problem.operands(), {}, stream_);
    ASSERT_TRUE(status.ok()) << status;
  }
  void Wait() { Check(cudaStreamSynchronize(stream_), "the kernel"); }

  // Right numbers, twice: the second launch finds the workspace as the first one left it.
  void ExpectRight(const AttentionCase& attention, uint64_t seed) {
    SCOPED_TRACE(testing::Message() << "heads " << attention.heads << " kv_heads " << attention.kv_heads << " head_dim "
                                    << attention.head_dim << " page_tokens " << attention.page_tokens << " batch "
                                    << attention.lengths.size() << " length " << attention.lengths[0]
                                    << " remote_share " << attention.remote_share << " element "
                                    << static_cast<int>(attention.element));
    AttentionProblem problem(attention, seed);
    for (int i = 0; i < 2; ++i) {
      problem.SetContextReady(i == 0);
      Launch(problem);
      Wait();
      EXPECT_LE(problem.RelativeError(), problem.Tolerance()) << "launch " << i;
      problem.Poison();
    }
  }

  std::unique_ptr<AttentionRunner> runner_;
  cudaStream_t stream_ = nullptr;
};

using AttentionSmallTest = AttentionTest;

// Query and KV heads: multi-head, groups of 4 and 8, odd ones, multi-query, and groups of two and four tiles.
const std::pair<uint32_t, uint32_t> kHeads[] = {{4, 4}, {8, 2}, {16, 2}, {21, 3}, {7, 1}, {32, 1}, {40, 1}, {64, 1}};

TEST_F(AttentionSmallTest, OneOfEachHeadDimAndPage) {
  uint64_t seed = 1;
  for (const uint32_t head_dim : {64, 80, 96, 128}) {
    for (const uint32_t page_tokens : {16, 64}) {
      const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
      ExpectRight({8, 2, head_dim, page_tokens, element, {1, 100, 0, 65}, 0.5}, seed);
      if (HasFailure()) return;
    }
  }
}

TEST_F(AttentionTest, GridOfHeadsDimsPagesAndRatios) {
  uint64_t seed = 100;
  for (const auto& [heads, kv_heads] : kHeads) {
    for (const uint32_t head_dim : {64, 80, 96, 128}) {
      for (const uint32_t page_tokens : {16, 64}) {
        for (const double remote_share : {0.0, 0.1, 0.5, 1.0}) {
          const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
          ExpectRight({heads, kv_heads, head_dim, page_tokens, element, {333, 1, 64, 1000}, remote_share}, seed);
          if (HasFailure()) return;
        }
      }
    }
  }
}

TEST_F(AttentionTest, EveryRaggedEndOfAContext) {
  std::vector<int32_t> lengths;
  for (int32_t length = 1; length <= 130; ++length) lengths.push_back(length);
  uint64_t seed = 1000;
  for (const uint32_t page_tokens : {16, 64}) {
    for (const double remote_share : {0.0, 0.3, 1.0}) {
      ExpectRight({8, 2, 128, page_tokens, ElementType::kBf16, lengths, remote_share}, ++seed);
      ExpectRight({3, 3, 80, page_tokens, ElementType::kF16, lengths, remote_share}, ++seed);
    }
  }
}

TEST_F(AttentionTest, ModelShapesWithLongContexts) {
  uint64_t seed = 2000;
  ExpectRight({32, 8, 128, 16, ElementType::kBf16, {16'384}, 0}, ++seed);
  ExpectRight({32, 8, 128, 64, ElementType::kF16, {16'383, 5, 4096, 4097}, 0.02}, ++seed);
  ExpectRight({64, 8, 128, 16, ElementType::kBf16, {8000, 8001, 8002}, 0.1}, ++seed);
  ExpectRight({8, 1, 64, 16, ElementType::kBf16, {131'072}, 0.02, 0}, ++seed);
  ExpectRight({8, 1, 64, 64, ElementType::kF16, {131'000}, 1, 0}, ++seed);
  ExpectRight({56, 56, 128, 16, ElementType::kBf16, {700, 1}, 0.5}, ++seed);
}

TEST_F(AttentionTest, ALargeBatchOfMixedLengths) {
  std::vector<int32_t> lengths;
  for (int32_t i = 0; i < 512; ++i) lengths.push_back(i * 37 % 300);  // some of them 0
  ExpectRight({8, 2, 128, 16, ElementType::kBf16, lengths, 0.2}, 3000);
  ExpectRight({8, 8, 64, 64, ElementType::kF16, lengths, 0}, 3001);
  ExpectRight({16, 1, 96, 16, ElementType::kBf16, std::vector<int32_t>(512, 17), 1}, 3002);
}

TEST_F(AttentionSmallTest, SequencesWithoutContextGetZeros) {
  AttentionProblem problem({8, 2, 128, 16, ElementType::kBf16, {0, 40, 0}, 0.5}, 1);
  Launch(problem);
  Wait();
  EXPECT_LE(problem.RelativeError(), problem.Tolerance());
  const std::vector<uint16_t> out = problem.Output();
  for (const uint32_t sequence : {0u, 2u}) {
    for (uint32_t i = 0; i < 8 * 128; ++i) ASSERT_EQ(out[sequence * 8 * 128 + i], 0u);
  }
  problem.Randomise({0, 0, 0}, 0.5, 2);
  problem.Poison();
  Launch(problem);
  Wait();
  EXPECT_EQ(problem.Output(), std::vector<uint16_t>(3 * 8 * 128, 0));
}

TEST_F(AttentionSmallTest, LengthsAndCountsAreClampedToTheTablesRow) {
  AttentionCase attention{8, 2, 64, 16, ElementType::kBf16, {160, 96}, 1};
  attention.spare_pages = 0;
  AttentionProblem problem(attention, 1);
  const int32_t lengths[2] = {1'000'000, 96};
  const int32_t counts[2] = {1'000'000, 0x7FFF'FFFF};
  Check(cudaMemcpy(reinterpret_cast<void*>(problem.operands().lengths), lengths, 8, cudaMemcpyDefault), "cudaMemcpy");
  Check(cudaMemcpy(reinterpret_cast<void*>(problem.operands().remote_counts), counts, 8, cudaMemcpyDefault),
        "cudaMemcpy");
  Launch(problem);
  Wait();
  EXPECT_LE(problem.RelativeError(), problem.Tolerance());
}

TEST_F(AttentionTest, GraphsReplayWhileContextsGrow) {
  AttentionProblem problem({16, 4, 128, 16, ElementType::kBf16, {900, 2000, 33, 100}, 0.3}, 1);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  Launch(problem);
  Launch(problem);
  Check(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
  Check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
  const std::vector<std::vector<int32_t>> steps = {
      {1, 1, 1, 1}, {899, 1999, 32, 99}, {0, 2000, 0, 0}, {900, 0, 33, 100}, {16, 17, 18, 96}};
  uint64_t seed = 10;
  for (const std::vector<int32_t>& lengths : steps) {
    for (const double remote_share : {0.0, 0.5, 0.9}) {
      problem.Randomise(lengths, remote_share, ++seed);
      problem.Poison();
      Check(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch");
      Check(cudaGraphLaunch(exec, stream_), "cudaGraphLaunch");
      Wait();
      EXPECT_LE(problem.RelativeError(), problem.Tolerance()) << "length " << lengths[0] << " share " << remote_share;
    }
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

TEST_F(AttentionTest, ALaunchSeesWhatTheOneBeforeItWrote) {
  // The output of the first is q of the second, which overlaps it.
  AttentionProblem first({8, 8, 128, 16, ElementType::kBf16, {2000, 100}, 0.2}, 1);
  for (const double remote_share : {0.0, 0.5, 1.0}) {
    AttentionProblem second({8, 8, 128, 16, ElementType::kBf16, {70, 70}, remote_share}, 2);
    AttentionOperands chained = second.operands();
    chained.q = first.operands().out;
    Launch(first);
    Wait();
    ASSERT_TRUE(runner_->Launch(second.shape(), chained, {}, stream_).ok());
    Wait();
    const std::vector<uint16_t> expected = second.Output();
    for (int i = 0; i < 20; ++i) {
      first.Poison();
      second.Poison();
      Launch(first);
      ASSERT_TRUE(runner_->Launch(second.shape(), chained, {}, stream_).ok());
      Wait();
      ASSERT_EQ(second.Output(), expected) << "time " << i << " remote_share " << remote_share;
    }
  }
}

TEST_F(AttentionTest, ALaunchSeesTheContextThatTheOneBeforeItWrote) {
  // The output of the first, 16 heads of 128, is one page of one KV head of the second: 16 keys or 16 values.
  AttentionProblem first({16, 16, 128, 16, ElementType::kBf16, {3000}, 0.1}, 1);
  for (const auto& [only_last_token, remote] : {std::pair(false, false), {false, true}, {true, false}, {true, true}}) {
    SCOPED_TRACE(testing::Message() << "only_last_token " << only_last_token << " remote " << remote);
    // Where only the last token is written there is no need to wait for the rest.
    AttentionProblem second({1, 1, 128, 16, ElementType::kBf16, {only_last_token ? 1 : 16}, remote ? 1.0 : 0.0}, 2);
    second.SetContextReady(only_last_token);
    AttentionOperands writes = first.operands();
    int32_t page = 0;
    Check(cudaMemcpy(&page, reinterpret_cast<void*>(second.operands().block_table), 4, cudaMemcpyDefault),
          "cudaMemcpy");
    const uint64_t pool = remote ? second.operands().kv_remote : second.operands().kv_local;
    writes.out = pool + static_cast<uint64_t>(page) * 2 * 16 * 128 * 2 + 16 * 128 * 2;  // values
    ASSERT_TRUE(runner_->Launch(first.shape(), writes, {}, stream_).ok());
    Wait();
    Launch(second);
    Wait();
    const std::vector<uint16_t> expected = second.Output();
    for (int i = 0; i < 20; ++i) {
      Check(cudaMemset(reinterpret_cast<void*>(writes.out), 0x40, 16 * 128 * 2), "cudaMemset");
      second.Poison();
      ASSERT_TRUE(runner_->Launch(first.shape(), writes, {}, stream_).ok());
      Launch(second);
      Wait();
      ASSERT_EQ(second.Output(), expected) << "time " << i;
    }
  }
}

TEST_F(AttentionSmallTest, RefusesWhatItCantRunAndNamesTheField) {
  AttentionProblem problem({8, 2, 128, 16, ElementType::kBf16, {40}, 0.5}, 1);
  const auto field = [&](const AttentionShape& shape, const AttentionOperands& operands) {
    const absl::Status status = runner_->Launch(shape, operands, {}, stream_);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return DetailOf(status).field;
  };
  AttentionShape shape = problem.shape();
  shape.head_dim = 112;
  EXPECT_EQ(field(shape, problem.operands()), "head_dim");
  shape = problem.shape();
  shape.heads = 128;
  EXPECT_EQ(field(shape, problem.operands()), "heads") << "more than the runner was made for";
  AttentionOperands operands = problem.operands();
  operands.kv_remote = 0;
  EXPECT_EQ(field(problem.shape(), operands), "kv_remote");
  auto runner = CreateCudaAttentionRunner(0, {.max_batch = 2, .max_heads = 8});
  ASSERT_TRUE(runner.ok()) << runner.status();
  shape = problem.shape();
  shape.batch = 3;
  EXPECT_EQ(DetailOf((*runner)->Launch(shape, problem.operands(), {}, stream_)).field, "batch");
  EXPECT_EQ(DetailOf(CreateCudaAttentionRunner(0, {.max_batch = 513, .max_heads = 8}).status()).field,
            "options.max_batch");
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

}  // namespace
}  // namespace dak::kernels

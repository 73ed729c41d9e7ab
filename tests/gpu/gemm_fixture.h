// What tests of GEMM kernels on a GPU share: a runner on device 0, a stream, and the comparison with the reference.
#ifndef DAK_TESTS_GPU_GEMM_FIXTURE_H_
#define DAK_TESTS_GPU_GEMM_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "tests/gpu/gemm_problem.h"

namespace dak::kernels {

// Right numbers, and the same bits again.
inline void ExpectRightTwice(GemmRunner& runner, Problem& problem, cudaStream_t stream) {
  std::vector<uint16_t> outputs[2];
  for (std::vector<uint16_t>& output : outputs) {
    problem.Poison();
    const absl::Status status = runner.Launch(problem.shape(), problem.operands(), {}, stream);
    ASSERT_TRUE(status.ok()) << status;
    Check(cudaStreamSynchronize(stream), "the kernel");
    output = problem.Output();
  }
  EXPECT_LE(problem.RelativeError(), problem.Tolerance());
  EXPECT_EQ(outputs[0], outputs[1]) << "not the same bits again";
}

class GemmFixture : public testing::Test {
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

  void ExpectRight(const GemmShape& shape, uint64_t seed, const ProblemEpilogue& epilogue = {}, bool shift_y = false) {
    SCOPED_TRACE(testing::Message() << "batch " << shape.batch << " n " << shape.n << " k " << shape.k << " local_rows "
                                    << shape.local_rows << " element " << static_cast<int>(shape.element) << " bias "
                                    << epilogue.bias << " residual " << epilogue.residual << " in_place "
                                    << epilogue.in_place << " activation " << static_cast<int>(epilogue.activation));
    Problem problem(shape, seed, epilogue);
    if (shift_y) problem.ShiftY();
    ExpectRightTwice(*runner_, problem, stream_);
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

  // Every kind of epilogue with `activation`, of every size and batch, split at quarters of n; SwiGLU's pairs together.
  void ExpectEpiloguesRight(GemmActivation activation, const std::vector<std::pair<uint64_t, uint64_t>>& sizes,
                            const std::vector<uint32_t>& batches, uint64_t seed) {
    const uint64_t unit = activation == GemmActivation::kSwiGlu ? 16 : 1;
    for (const uint32_t batch : batches) {
      for (const auto& [n, k] : sizes) {
        for (const ProblemEpilogue& epilogue : Epilogues(activation)) {
          const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
          ExpectRight({batch, n, k, n / unit * (seed % 5) / 4 * unit, element}, seed, epilogue);
          if (HasFailure()) return;
        }
      }
    }
  }

  static std::vector<ProblemEpilogue> Epilogues(GemmActivation activation) {
    return {{.activation = activation},
            {.bias = true, .activation = activation},
            {.residual = true, .activation = activation},
            {.bias = true, .residual = true, .activation = activation},
            {.bias = true, .residual = true, .in_place = true, .activation = activation}};
  }

  std::unique_ptr<GemmRunner> runner_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace dak::kernels

#endif  // DAK_TESTS_GPU_GEMM_FIXTURE_H_

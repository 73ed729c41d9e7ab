// The plain kernel, forced on a device that has a faster one: its PTX, compiled by the driver.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "allocator/base/error_detail.h"
#include "kernels/gemm_plan.h"
#include "tests/gpu/gemm_problem.h"

namespace dak::kernels {
namespace {

void Store(uint64_t& word, uint64_t value) { std::atomic_ref<uint64_t>(word).store(value, std::memory_order_relaxed); }

class GemmPlainTest : public testing::Test {
 protected:
  void SetUp() override {
    auto runner = CreateCudaGemmRunner(0, {.plain = true});
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  void Launch(const Problem& problem) {
    const absl::Status status = runner_->Launch(problem.shape(), problem.operands(), {control_, report_}, nullptr);
    ASSERT_TRUE(status.ok()) << status;
  }
  void Wait() { Check(cudaStreamSynchronize(nullptr), "the kernel"); }

  void ExpectRight(const GemmShape& shape, uint64_t seed, const ProblemEpilogue& epilogue = {}) {
    SCOPED_TRACE(testing::Message() << "batch " << shape.batch << " n " << shape.n << " k " << shape.k << " local_rows "
                                    << shape.local_rows << " element " << static_cast<int>(shape.element));
    Problem problem(shape, seed, epilogue);
    Store(control_->window_bytes, 256 * 1024);
    Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
  }

  std::unique_ptr<GemmRunner> runner_;
  Memory pages_{Memory::Where::kHost, 4096};
  v1::LinkControl* control_ = pages_.as<v1::LinkControl>();
  v1::LinkReport* report_ = reinterpret_cast<v1::LinkReport*>(pages_.as<uint8_t>() + 2048);
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
  uint64_t bytes = 0;
  uint64_t passes = 0;
  uint64_t largest = 0;
  for (const uint64_t window : {uint64_t{0}, uint64_t{kBoxBytes}, uint64_t{40'000}, uint64_t{1} << 40}) {
    Problem problem({8, 700, 520, 190, ElementType::kBf16}, window + 1);
    Store(control_->window_bytes, window);
    Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance()) << "window " << window;
    bytes += 510 * 520 * 2;
    largest = std::max<uint64_t>({largest, window, kBoxBytes});
    EXPECT_EQ(report_->bytes, bytes) << "window " << window;
    EXPECT_EQ(report_->passes, ++passes);
    EXPECT_EQ(report_->inflight_bytes, 0u);
    EXPECT_LE(report_->inflight_peak_bytes, largest) << "window " << window;
    EXPECT_GT(report_->inflight_peak_bytes, 0u);
    EXPECT_GT(report_->round_trips, 0u);
  }
  Problem local({8, 256, 128, 256, ElementType::kF16}, 1);
  Launch(local);
  Wait();
  EXPECT_EQ(report_->passes, ++passes);
  EXPECT_EQ(report_->bytes, bytes);
}

TEST_F(GemmPlainTest, AWindowThatChangesAllTheTimeIsNeverExceeded) {
  constexpr uint64_t kMost = 24 * kBoxBytes;
  Problem problem({16, 4096, 4096, 1000, ElementType::kF16}, 1);
  std::atomic<bool> stop = false;
  Store(control_->window_bytes, kMost);
  std::thread changer([&] {
    for (uint64_t i = 0; !stop; ++i) Store(control_->window_bytes, i * 7919 % (kMost + 1));
  });
  for (int i = 0; i < 5; ++i) {
    Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
    problem.Poison();
  }
  stop = true;
  changer.join();
  EXPECT_LE(report_->inflight_peak_bytes, kMost);
  EXPECT_EQ(report_->bytes, 5u * 3096 * 4096 * 2);
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

// Attention's window and report page on a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "kernels/attention_plan.h"
#include "tests/gpu/attention_problem.h"

namespace dak::kernels {
namespace {

uint64_t Load(const uint64_t& word) {
  return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(word)).load(std::memory_order_relaxed);
}
void Store(uint64_t& word, uint64_t value) { std::atomic_ref<uint64_t>(word).store(value, std::memory_order_relaxed); }

class AttentionWindowTest : public testing::Test {
 protected:
  void SetUp() override {
    auto runner = CreateCudaAttentionRunner(0, {.plain = false});
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  void Launch(const AttentionProblem& problem) {
    const absl::Status status = runner_->Launch(problem.shape(), problem.operands(), {control_, report_}, nullptr);
    ASSERT_TRUE(status.ok()) << status;
  }
  void Wait() { Check(cudaStreamSynchronize(nullptr), "the kernel"); }

  std::unique_ptr<AttentionRunner> runner_;
  Memory pages_{Memory::Where::kHost, 4096};
  v1::LinkControl* control_ = pages_.as<v1::LinkControl>();
  v1::LinkReport* report_ = reinterpret_cast<v1::LinkReport*>(pages_.as<uint8_t>() + 2048);
};

using AttentionSmallWindowTest = AttentionWindowTest;

TEST_F(AttentionSmallWindowTest, ReportsExactBytesAndStaysInsideTheWindow) {
  uint64_t bytes = 0;
  uint64_t passes = 0;
  uint64_t largest = 0;
  uint64_t seed = 1;
  for (const uint64_t window :
       {uint64_t{0}, uint64_t{1000}, uint64_t{kBoxBytes}, uint64_t{40'000}, uint64_t{184'000}, uint64_t{1} << 40}) {
    const uint32_t head_dim = ++seed % 2 == 0 ? 128 : 80;
    AttentionProblem problem({8, 2, head_dim, 16, ElementType::kBf16, {700, 90, 333}, 0.6}, seed);
    Store(control_->window_bytes, window);
    Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance()) << "window " << window;
    bytes += problem.remote_bytes();
    largest = std::max<uint64_t>({largest, window, kBoxBytes});
    EXPECT_EQ(report_->bytes, bytes) << "window " << window << ": every remote byte once, whatever the group";
    EXPECT_EQ(report_->passes, ++passes);
    EXPECT_EQ(report_->inflight_bytes, 0u);
    EXPECT_LE(report_->inflight_peak_bytes, largest) << "window " << window;
    EXPECT_GT(report_->inflight_peak_bytes, 0u);
  }
}

TEST_F(AttentionSmallWindowTest, AnAllLocalOperationCountsAsAPassAndReadsNothing) {
  AttentionProblem problem({8, 2, 64, 64, ElementType::kF16, {100, 0}, 0}, 1);
  Launch(problem);
  Wait();
  EXPECT_EQ(report_->passes, 1u);
  problem.Randomise({0, 0}, 0, 2);
  Launch(problem);
  Wait();
  EXPECT_EQ(report_->passes, 2u);
  EXPECT_EQ(report_->bytes, 0u);
  EXPECT_EQ(report_->inflight_peak_bytes, 0u);
}

TEST_F(AttentionWindowTest, ARunnerUsesMostOfAWindowAndNeverMore) {
  for (const uint64_t window : {uint64_t{kBoxBytes}, uint64_t{3 * kBoxBytes}, uint64_t{64 * 1024}, uint64_t{184'000}}) {
    SetUp();  // a fresh runner, whose peak is 0
    AttentionProblem problem({8, 8, 128, 16, ElementType::kBf16, {2048, 2048}, 0.9}, window);
    Store(control_->window_bytes, window);
    for (int i = 0; i < 4; ++i) Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
    EXPECT_LE(report_->inflight_peak_bytes, window);
    EXPECT_GE(report_->inflight_peak_bytes, window / kBoxBytes * kBoxBytes * 3 / 4) << "window " << window;
    EXPECT_EQ(report_->bytes, 4 * problem.remote_bytes());
    EXPECT_GT(report_->round_trips, 0u);
    const double round_trip_ns =
        static_cast<double>(report_->round_trip_ns) / static_cast<double>(report_->round_trips);
    EXPECT_GT(round_trip_ns, 300);
    EXPECT_LT(round_trip_ns, 1e6);
  }
}

TEST_F(AttentionWindowTest, AWindowThatGrowsWhileTheKernelRunsIsUsed) {
  constexpr uint64_t kNarrow = 2 * kBoxBytes;
  constexpr uint64_t kWide = 16 * kBoxBytes;
  AttentionProblem problem({8, 8, 128, 64, ElementType::kBf16, {16'384}, 1}, 1);  // 64 MiB: 7 ms in the narrow window
  Store(control_->window_bytes, kNarrow);
  Launch(problem);
  // The kernel reports while it runs: this is the handshake.
  while (Load(report_->bytes) == 0 && cudaStreamQuery(nullptr) == cudaErrorNotReady) {
  }
  EXPECT_LE(Load(report_->inflight_peak_bytes), kNarrow);
  Store(control_->window_bytes, kWide);
  Wait();
  EXPECT_LE(problem.RelativeError(), problem.Tolerance());
  EXPECT_GT(report_->inflight_peak_bytes, kNarrow);
  EXPECT_LE(report_->inflight_peak_bytes, kWide);
}

TEST_F(AttentionWindowTest, AWindowThatChangesAllTheTimeIsNeverExceeded) {
  constexpr uint64_t kMost = 24 * kBoxBytes;
  AttentionProblem problem({32, 8, 128, 16, ElementType::kF16, {4096, 1000, 77}, 0.8}, 1);
  std::atomic<bool> stop = false;
  Store(control_->window_bytes, kMost);
  std::thread changer([&] {
    for (uint64_t i = 0; !stop; ++i) Store(control_->window_bytes, i * 7919 % (kMost + 1));
  });
  for (int i = 0; i < 10; ++i) {
    Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
    problem.Poison();
  }
  stop = true;
  changer.join();
  EXPECT_LE(report_->inflight_peak_bytes, kMost);
  EXPECT_EQ(report_->bytes, 10 * problem.remote_bytes());
  EXPECT_EQ(report_->inflight_bytes, 0u);
}

TEST_F(AttentionWindowTest, SharesItsWindowAndReportWithAGemmRunner) {
  constexpr uint64_t kWindow = 12 * kBoxBytes;
  auto gemm = CreateCudaGemmRunner(0);
  ASSERT_TRUE(gemm.ok()) << gemm.status();
  auto runner = CreateCudaAttentionRunner(0, {.link_counters = (*gemm)->link_counters(), .plain = false});
  ASSERT_TRUE(runner.ok()) << runner.status();
  runner_ = *std::move(runner);
  AttentionProblem attention({32, 8, 128, 16, ElementType::kBf16, {2000, 1000}, 0.5}, 1);
  Problem product({8, 4096, 2048, 2048, ElementType::kBf16}, 2);
  Store(control_->window_bytes, kWindow);
  constexpr int kTimes = 10;
  for (int i = 0; i < kTimes; ++i) {
    const absl::Status status = (*gemm)->Launch(product.shape(), product.operands(), {control_, report_}, nullptr);
    ASSERT_TRUE(status.ok()) << status;
    Launch(attention);
  }
  Wait();
  EXPECT_LE(attention.RelativeError(), attention.Tolerance());
  EXPECT_LE(product.RelativeError(), product.Tolerance());
  EXPECT_EQ(report_->bytes, kTimes * (attention.remote_bytes() + 2048 * 2048 * 2));
  EXPECT_EQ(report_->passes, 2u * kTimes);
  EXPECT_LE(report_->inflight_peak_bytes, kWindow);
  EXPECT_EQ(report_->inflight_bytes, 0u);
}

}  // namespace
}  // namespace dak::kernels

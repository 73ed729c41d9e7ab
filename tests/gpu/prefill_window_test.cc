// The window and the report page of the prefill GEMM on a GPU: each remote byte crosses the link once.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "kernels/gemm_plan.h"
#include "tests/gpu/gemm_problem.h"

namespace dak::kernels {
namespace {

uint64_t Load(const uint64_t& word) {
  return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(word)).load(std::memory_order_relaxed);
}
void Store(uint64_t& word, uint64_t value) { std::atomic_ref<uint64_t>(word).store(value, std::memory_order_relaxed); }

class PrefillWindowTest : public testing::Test {
 protected:
  void SetUp() override {
    auto runner = CreateCudaGemmRunner(0);
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
  }

  void Launch(const Problem& problem) {
    const absl::Status status = runner_->Launch(problem.shape(), problem.operands(), {control_, report_}, nullptr);
    ASSERT_TRUE(status.ok()) << status;
  }
  void Wait() { Check(cudaStreamSynchronize(nullptr), "the kernel"); }

  std::unique_ptr<GemmRunner> runner_;
  Memory pages_{Memory::Where::kHost, 4096};
  v1::LinkControl* control_ = pages_.as<v1::LinkControl>();
  v1::LinkReport* report_ = reinterpret_cast<v1::LinkReport*>(pages_.as<uint8_t>() + 2048);
};

using PrefillSmallWindowTest = PrefillWindowTest;

TEST_F(PrefillSmallWindowTest, ReportsEachRemoteByteOnceAndStaysInsideTheWindow) {
  uint64_t bytes = 0;
  uint64_t passes = 0;
  uint64_t largest = 0;
  for (const uint64_t window : {uint64_t{0}, uint64_t{1000}, uint64_t{kBoxBytes}, uint64_t{3 * kBoxBytes},
                                uint64_t{40'000}, uint64_t{184'000}, uint64_t{1} << 40}) {
    Problem problem({600, 700, 520, 190, ElementType::kBf16}, window + 1);
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
  }
}

TEST_F(PrefillSmallWindowTest, AnAllLocalOperationCountsAsAPassAndReadsNothing) {
  Problem problem({300, 256, 128, 256, ElementType::kF16}, 1);
  Launch(problem);
  Wait();
  EXPECT_EQ(report_->passes, 1u);
  EXPECT_EQ(report_->bytes, 0u);
  EXPECT_EQ(report_->inflight_peak_bytes, 0u);
}

TEST_F(PrefillWindowTest, EachRemoteByteCrossesTheLinkOnceWhateverTheBatch) {
  uint64_t bytes = 0;
  Store(control_->window_bytes, 256 * 1024);
  for (const uint32_t batch : {257, 1024, 2048, 8192}) {
    Problem problem({batch, 1000, 1032, 700, ElementType::kBf16}, batch);
    Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
    bytes += 300 * 1032 * 2;
    EXPECT_EQ(report_->bytes, bytes) << "batch " << batch;
  }
}

TEST_F(PrefillWindowTest, ARunnerUsesMostOfAWindowAndNeverMore) {
  for (const uint64_t window : {uint64_t{kBoxBytes}, uint64_t{64 * 1024}, uint64_t{184'000}}) {
    SetUp();  // a fresh runner, whose peak is 0
    Problem problem({512, 1024, 4096, 0, ElementType::kBf16}, window);
    Store(control_->window_bytes, window);
    *report_ = {};
    for (int i = 0; i < 2; ++i) Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
    EXPECT_LE(report_->inflight_peak_bytes, window);
    EXPECT_GE(report_->inflight_peak_bytes, window / kBoxBytes * kBoxBytes * 3 / 4) << "window " << window;
    EXPECT_EQ(report_->bytes, 2u * 1024 * 4096 * 2);
    EXPECT_GT(report_->round_trips, 0u);
    const double round_trip_ns =
        static_cast<double>(report_->round_trip_ns) / static_cast<double>(report_->round_trips);
    EXPECT_GT(round_trip_ns, 300);
    EXPECT_LT(round_trip_ns, 1e6);
  }
}

TEST_F(PrefillWindowTest, AWindowThatGrowsWhileTheKernelRunsIsUsed) {
  constexpr uint64_t kNarrow = kBoxBytes;
  constexpr uint64_t kWide = 16 * kBoxBytes;
  Problem problem({300, 2048, 8192, 0, ElementType::kBf16}, 1);  // 32 MiB: 10 ms and more in the narrow window
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

TEST_F(PrefillWindowTest, AWindowThatChangesAllTheTimeIsNeverExceeded) {
  constexpr uint64_t kMost = 24 * kBoxBytes;
  Problem problem({512, 2048, 2048, 1000, ElementType::kF16}, 1);
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
  EXPECT_EQ(report_->bytes, 10u * 1048 * 2048 * 2);
  EXPECT_EQ(report_->inflight_bytes, 0u);
}

}  // namespace
}  // namespace dak::kernels

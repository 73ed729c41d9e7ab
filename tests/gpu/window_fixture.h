// What tests of the window and the report page on a GPU share, whatever the kernel: the pages, in memory that both
// sides map, and what every kernel must keep.
#ifndef DAK_TESTS_GPU_WINDOW_FIXTURE_H_
#define DAK_TESTS_GPU_WINDOW_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/gemm_plan.h"
#include "tests/gpu/gemm_problem.h"

namespace dak::kernels {

// `Runner` is GemmRunner or AttentionRunner. What the checks call a problem is a Problem or an AttentionProblem.
template <class Runner>
class WindowFixture : public testing::Test {
 protected:
  virtual absl::StatusOr<std::unique_ptr<Runner>> Create() = 0;

  // Also within a test, for a fresh runner whose peak is 0.
  void SetUp() override {
    auto runner = Create();
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
    *report_ = {};
  }

  template <class AnyProblem>
  void Launch(const AnyProblem& problem) {
    const absl::Status status = runner_->Launch(problem.shape(), problem.operands(), {control_, report_}, nullptr);
    ASSERT_TRUE(status.ok()) << status;
  }
  void Wait() { Check(cudaStreamSynchronize(nullptr), "the kernel"); }

  void SetWindow(uint64_t bytes) {
    std::atomic_ref<uint64_t>(control_->window_bytes).store(bytes, std::memory_order_relaxed);
  }
  static uint64_t Load(const uint64_t& word) {
    return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(word)).load(std::memory_order_relaxed);
  }

  // One operation in each window. `make` gives the i-th problem, on a pointer, and how many bytes of it are remote.
  template <class Make>
  void ExpectExactBytesInsideWindows(const std::vector<uint64_t>& windows, const Make& make) {
    uint64_t bytes = 0;
    uint64_t passes = 0;
    uint64_t largest = 0;
    for (const uint64_t window : windows) {
      SCOPED_TRACE(testing::Message() << "window " << window);
      const auto [problem, remote_bytes] = make(passes);
      SetWindow(window);
      Launch(*problem);
      Wait();
      EXPECT_LE(problem->RelativeError(), problem->Tolerance());
      bytes += remote_bytes;
      largest = std::max<uint64_t>({largest, window, kBoxBytes});
      EXPECT_EQ(report_->bytes, bytes) << "every remote byte once";
      EXPECT_EQ(report_->passes, ++passes);
      EXPECT_EQ(report_->inflight_bytes, 0u);
      EXPECT_LE(report_->inflight_peak_bytes, largest);
      EXPECT_GT(report_->inflight_peak_bytes, 0u);
    }
  }

  // `times` operations of a fresh runner, each long enough to fill the window.
  template <class AnyProblem>
  void ExpectMostOfTheWindowUsed(const AnyProblem& problem, uint64_t window, int times, uint64_t remote_bytes) {
    SCOPED_TRACE(testing::Message() << "window " << window);
    SetUp();
    SetWindow(window);
    for (int i = 0; i < times; ++i) Launch(problem);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
    EXPECT_LE(report_->inflight_peak_bytes, window);
    EXPECT_GE(report_->inflight_peak_bytes, window / kBoxBytes * kBoxBytes * 3 / 4);
    EXPECT_EQ(report_->bytes, static_cast<uint64_t>(times) * remote_bytes);
    EXPECT_GT(report_->round_trips, 0u);
    const double round_trip_ns =
        static_cast<double>(report_->round_trip_ns) / static_cast<double>(report_->round_trips);
    EXPECT_GT(round_trip_ns, 300);
    EXPECT_LT(round_trip_ns, 1e6);
  }

  // An operation of milliseconds in the narrow window, which grows to the wide one meanwhile.
  template <class AnyProblem>
  void ExpectAGrowingWindowUsed(const AnyProblem& problem, uint64_t narrow, uint64_t wide) {
    SetWindow(narrow);
    Launch(problem);
    // The kernel reports while it runs: this is the handshake.
    while (Load(report_->bytes) == 0 && cudaStreamQuery(nullptr) == cudaErrorNotReady) {
    }
    EXPECT_LE(Load(report_->inflight_peak_bytes), narrow);
    SetWindow(wide);
    Wait();
    EXPECT_LE(problem.RelativeError(), problem.Tolerance());
    EXPECT_GT(report_->inflight_peak_bytes, narrow);
    EXPECT_LE(report_->inflight_peak_bytes, wide);
  }

  template <class AnyProblem>
  void ExpectAChangingWindowKept(AnyProblem& problem, int times, uint64_t remote_bytes) {
    constexpr uint64_t kMost = 24 * kBoxBytes;
    std::atomic<bool> stop = false;
    SetWindow(kMost);
    std::thread changer([&] {
      for (uint64_t i = 0; !stop; ++i) SetWindow(i * 7919 % (kMost + 1));
    });
    for (int i = 0; i < times; ++i) {
      Launch(problem);
      Wait();
      EXPECT_LE(problem.RelativeError(), problem.Tolerance());
      problem.Poison();
    }
    stop = true;
    changer.join();
    EXPECT_LE(report_->inflight_peak_bytes, kMost);
    EXPECT_EQ(report_->bytes, static_cast<uint64_t>(times) * remote_bytes);
    EXPECT_EQ(report_->inflight_bytes, 0u);
  }

  // The report after `passes` operations without a remote part.
  void ExpectNothingRead(uint64_t passes) {
    EXPECT_EQ(report_->passes, passes);
    EXPECT_EQ(report_->bytes, 0u);
    EXPECT_EQ(report_->inflight_peak_bytes, 0u);
  }

  std::unique_ptr<Runner> runner_;
  Memory pages_{Memory::Where::kHost, 4096};
  v1::LinkControl* control_ = pages_.as<v1::LinkControl>();
  v1::LinkReport* report_ = reinterpret_cast<v1::LinkReport*>(pages_.as<uint8_t>() + 2048);
};

inline uint64_t RemoteBytes(const Problem& problem) {
  const GemmShape& shape = problem.shape();
  return (shape.n - shape.local_rows) * shape.k * 2;
}

}  // namespace dak::kernels

#endif  // DAK_TESTS_GPU_WINDOW_FIXTURE_H_

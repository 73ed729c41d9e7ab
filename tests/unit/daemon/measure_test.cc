// The profile's measuring: what it finds on a made-up machine, and what it does when a measurement fails or lies.
#include "daemon/profile/measure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "daemon/planner/planner.h"
#include "tests/unit/daemon/fake_probe.h"

namespace dak::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class MeasureTest : public testing::Test {
 protected:
  absl::StatusOr<Measurement> Measure(double budget_s = 4) {
    FakeProbe probe(&machine_);
    return MeasureProfile(probe, *planner::NamedProfile("h100-pcie"),
                          {.budget_s = budget_s,
                           .seconds_now = [this] { return machine_.now_s; },
                           .log = [this](const std::string& line) { log_.push_back(line); }});
  }

  FakeMachine machine_;
  std::vector<std::string> log_;
};

TEST_F(MeasureTest, FindsTheMachinesFigures) {
  const auto measured = Measure();
  ASSERT_TRUE(measured.ok()) << measured.status();
  const planner::Profile& profile = measured->profile;
  EXPECT_EQ(profile.hbm_bytes_per_s, 3e12);
  EXPECT_EQ(profile.link_bytes_per_s, 50e9);
  EXPECT_EQ(profile.round_trip_ns, 2000u);
  EXPECT_EQ(profile.copy_engine_bytes_per_s, 55e9);
  EXPECT_EQ(profile.copy_to_host_bytes_per_s, 54e9);
  EXPECT_EQ(profile.flops_per_s, 800e12);
  EXPECT_EQ(profile.remote_tiers.size(), 1u);
  EXPECT_THAT(measured->left_out, IsEmpty());
  EXPECT_GE(log_.size(), 10u);
}

// 100 KB fill the link: 96 KiB reach 98.3 % of it, 64 KiB 65 %.
TEST_F(MeasureTest, KneeIsTheFirstStepThatFillsTheLink) {
  const auto measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_EQ(measured->profile.knee_bytes, 96u * 1024);
}

TEST_F(MeasureTest, CliffIsTheLastStepAtWhichHbmKeepsItsRate) {
  auto measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_EQ(measured->profile.cliff_bytes, machine_.cliff_bytes);
  machine_.cliff_bytes = std::numeric_limits<uint64_t>::max();  // there is none
  measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_EQ(measured->profile.cliff_bytes, kernels::kMostProbeInflightBytes);
  machine_.cliff_bytes = 300'000;  // before the first step past the knee
  measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_EQ(measured->profile.cliff_bytes, measured->profile.knee_bytes);
}

// Below the ridge HBM's rate has what is missing to the roofline, above it the tensor cores'.
TEST_F(MeasureTest, RatesByBatchAreWhatTheKernelsReach) {
  machine_.most_batch = 1024;
  machine_.switch_s = 3e-7;
  const auto measured = Measure();
  ASSERT_TRUE(measured.ok());
  const std::vector<planner::BatchRate>& rates = measured->profile.batch_rates;
  ASSERT_EQ(rates.size(), 9u);
  EXPECT_EQ(rates.front().batch, 1u);
  EXPECT_EQ(rates.back().batch, 1024u);
  for (const planner::BatchRate& rate : rates) {
    EXPECT_NEAR(rate.operation_s, 2e-6 + 3e-7, 1e-12) << rate.batch << ": and what changing kernels costs";
    EXPECT_NEAR(rate.link_bytes_per_s, 0.8 * 50e9, 1e3) << rate.batch;
    EXPECT_NEAR(rate.remote_s, 5e-6, 1e-10) << rate.batch;
    const bool memory_bound = rate.batch <= 256;
    EXPECT_NEAR(rate.hbm_bytes_per_s, memory_bound ? 0.9 * 3e12 : 3e12, 1e6) << rate.batch;
    EXPECT_NEAR(rate.flops_per_s, memory_bound ? 800e12 : 0.95 * 800e12, 1e8) << rate.batch;
  }
}

// The side that bounds has it, and what a pass of both sizes takes under load is what the model says.
TEST_F(MeasureTest, ALoadThatLastsIsInTheRatesOfLargeBatches) {
  machine_.most_batch = 512;
  const auto cold = Measure();
  ASSERT_TRUE(cold.ok());
  machine_.hot = 1.12;
  const auto hot = Measure();
  ASSERT_TRUE(hot.ok());
  ASSERT_EQ(hot->profile.batch_rates.size(), cold->profile.batch_rates.size());
  FakeProbe probe(&machine_);
  for (size_t i = 0; i < hot->profile.batch_rates.size(); ++i) {
    const planner::BatchRate& rate = hot->profile.batch_rates[i];
    EXPECT_DOUBLE_EQ(rate.operation_s, cold->profile.batch_rates[i].operation_s) << rate.batch;
    EXPECT_DOUBLE_EQ(rate.link_bytes_per_s, cold->profile.batch_rates[i].link_bytes_per_s) << rate.batch;
    EXPECT_DOUBLE_EQ(rate.remote_s, cold->profile.batch_rates[i].remote_s) << rate.batch;
    double predicted_s = 0;
    for (const double rows : {4096.0, 28'672.0}) {
      planner::Operation operation;
      operation.bytes = static_cast<uint64_t>(4096 * rows * 2);
      operation.flops = 2.0 * static_cast<double>(rate.batch) * 4096 * rows;
      operation.batch = rate.batch;
      predicted_s += planner::OperationSeconds(hot->profile, operation, {0}) / 2;
    }
    const auto batch = static_cast<uint32_t>(rate.batch);
    const double steady_s =
        *probe.GemmSeconds({.batch = batch, .n = 4096, .k = 4096, .other_n = 28'672, .steady_s = 0.1});
    EXPECT_NEAR(predicted_s / steady_s, 1, 1e-9) << rate.batch;
  }
  machine_.hot = 0.9;  // nothing gets faster by it
  const auto lucky = Measure();
  ASSERT_TRUE(lucky.ok());
  EXPECT_DOUBLE_EQ(lucky->profile.batch_rates.back().flops_per_s, cold->profile.batch_rates.back().flops_per_s);
}

TEST_F(MeasureTest, ModelGivesTheMeasuredTimesBack) {
  const auto measured = Measure();
  ASSERT_TRUE(measured.ok());
  FakeProbe probe(&machine_);
  for (const uint32_t batch : {1u, 64u, 256u}) {
    for (const uint64_t remote_rows : {0, 100, 800, 8192}) {
      planner::Operation operation;
      operation.bytes = 4096 * 8192 * 2;
      operation.flops = 2.0 * batch * 4096 * 8192;
      operation.batch = batch;
      const double ratio = static_cast<double>(remote_rows) / 8192;
      const double seconds =
          *probe.GemmSeconds({.batch = batch, .n = 8192, .k = 4096, .remote_rows = remote_rows, .window_bytes = 1});
      EXPECT_NEAR(planner::OperationSeconds(measured->profile, operation, {ratio}) / seconds, 1, 1e-9)
          << batch << " " << remote_rows;
    }
  }
}

// Others on the machine make some takes longer, every one by another amount: none of it is in the profile.
TEST_F(MeasureTest, WhatDisturbsSomeTakesIsntMeasured) {
  const auto quiet = Measure();
  ASSERT_TRUE(quiet.ok());
  for (const int one_in : {2, 3, 5}) {
    machine_.disturbed_one_in = one_in;
    const auto disturbed = Measure();
    ASSERT_TRUE(disturbed.ok());
    ASSERT_EQ(disturbed->profile.batch_rates.size(), quiet->profile.batch_rates.size());
    for (size_t i = 0; i < quiet->profile.batch_rates.size(); ++i) {
      const planner::BatchRate& rate = disturbed->profile.batch_rates[i];
      EXPECT_DOUBLE_EQ(rate.link_bytes_per_s, quiet->profile.batch_rates[i].link_bytes_per_s) << one_in;
      EXPECT_DOUBLE_EQ(rate.hbm_bytes_per_s, quiet->profile.batch_rates[i].hbm_bytes_per_s) << one_in;
    }
  }
}

// Also of what lasts, and by less than what a GPU's own clock may do.
TEST_F(MeasureTest, WhatDisturbsATakeOfALoadThatLastsIsntMeasured) {
  machine_.hot = 1.15;
  const auto quiet = Measure();
  ASSERT_TRUE(quiet.ok());
  machine_.disturbed_times = 1.25;
  for (const int one_in : {3, 5, 7}) {
    machine_.disturbed_one_in = one_in;
    const auto disturbed = Measure();
    ASSERT_TRUE(disturbed.ok());
    ASSERT_EQ(disturbed->profile.batch_rates.size(), quiet->profile.batch_rates.size());
    EXPECT_NEAR(
        disturbed->profile.batch_rates.back().hbm_bytes_per_s / quiet->profile.batch_rates.back().hbm_bytes_per_s, 1,
        1e-9)
        << one_in;
  }
}

// What nothing works without: the whole measurement is refused, and says what failed.
TEST_F(MeasureTest, FailureOfANeededMeasurementIsTheWhole) {
  for (const char* method :
       {"HbmBytesPerS", "LinkBytesPerS", "RoundTripSeconds", "CopyToHbm", "CopyToHost", "FlopsPerS"}) {
    machine_.faults = {{method, absl::InternalError("cudaMalloc: cudaErrorMemoryAllocation (2)")}};
    const auto measured = Measure();
    EXPECT_EQ(measured.status().code(), absl::StatusCode::kInternal) << method;
    EXPECT_THAT(std::string(measured.status().message()), HasSubstr("cudaErrorMemoryAllocation")) << method;
    machine_.faults.clear();
    for (const double lie : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity(), 1e30}) {
      machine_.lies = {{method, lie}};
      EXPECT_EQ(Measure().status().code(), absl::StatusCode::kInternal) << method << " " << lie;
    }
    machine_.lies.clear();
  }
}

TEST_F(MeasureTest, FailureOfWhatCanBeDoneWithoutIsLeftOut) {
  machine_.faults = {{"HbmBytesPerSBeside", absl::InternalError("no cliff")}};
  auto measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_THAT(measured->left_out, ElementsAre(HasSubstr("no cliff")));
  EXPECT_EQ(measured->profile.cliff_bytes, planner::NamedProfile("h100-pcie")->cliff_bytes);
  EXPECT_FALSE(measured->profile.batch_rates.empty());
  machine_.faults = {{"GemmSeconds", absl::InternalError("no GEMM")}};
  measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_THAT(measured->left_out, ElementsAre(HasSubstr("no GEMM")));
  EXPECT_THAT(measured->profile.batch_rates, IsEmpty());
  EXPECT_EQ(measured->profile.cliff_bytes, machine_.cliff_bytes);
  machine_.faults = {{"RemoteGemmSeconds", absl::InternalError("no remote GEMM")}};
  measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_THAT(measured->left_out, ElementsAre(HasSubstr("no remote GEMM")));
  EXPECT_THAT(measured->profile.batch_rates, IsEmpty());
  machine_.faults = {{"SteadyGemmSeconds", absl::InternalError("no lasting GEMM")}};
  measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_THAT(measured->left_out, ElementsAre(HasSubstr("no lasting GEMM")));
  EXPECT_NEAR(measured->profile.batch_rates.back().hbm_bytes_per_s, 0.9 * 3e12, 1e6) << "as without load";
  machine_.faults.clear();
  machine_.hot = 1.2;
  machine_.steady_fails_from = 256;
  measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_THAT(measured->left_out, ElementsAre(HasSubstr("rates under a load that lasts: GEMM of batch 256: too hot")));
  EXPECT_NEAR(measured->profile.batch_rates[5].hbm_bytes_per_s, 0.9 * 3e12, 1e6) << "all batches' or none's";
  machine_.steady_fails_from = ~0u;
  machine_.hot = 1;
  machine_.faults.clear();
  machine_.most_batch = 0;
  measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_THAT(measured->left_out, ElementsAre(HasSubstr("GEMM of batch 1")));
  machine_.most_batch = 256;
  machine_.lies = {{"GemmSeconds", 1e-5}};  // as long for seven times the rows
  measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_THAT(measured->left_out, ElementsAre(HasSubstr("more rows don't take longer")));
  machine_.lies = {{"RemoteGemmSeconds", 1e-5}};
  measured = Measure();
  ASSERT_TRUE(measured.ok());
  EXPECT_THAT(measured->left_out, ElementsAre(HasSubstr("more remote rows don't take longer")));
}

TEST_F(MeasureTest, StopsWhenTheTimeIsUp) {
  machine_.seconds_a_call = 0.2;  // 17 calls for what is needed, 28 for the batches, and more for a load that lasts
  auto measured = Measure();
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_THAT(measured->left_out, ElementsAre(HasSubstr("rates by batch: not measured within 4 s"),
                                              HasSubstr("cliff: not measured within 4 s")));
  EXPECT_LT(machine_.now_s, 5);
  machine_.seconds_a_call = 0;
  machine_.calls = 0;
  ASSERT_TRUE(Measure().ok());
  machine_.seconds_a_call = 4.0001 / (machine_.calls - 1);  // the last one, a load that lasts, would begin too late
  machine_.now_s = 0;
  measured = Measure();
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_THAT(measured->left_out, ElementsAre(HasSubstr("rates under a load that lasts: not measured within 4 s")));
  EXPECT_LT(machine_.now_s, 4.1);
  machine_.seconds_a_call = 1;
  machine_.now_s = 0;
  measured = Measure();
  EXPECT_EQ(measured.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(machine_.now_s, 6);
}

}  // namespace
}  // namespace dak::daemon

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <vector>

#include "allocator/base/error_detail.h"
#include "kernels/element.h"
#include "kernels/gemm.h"
#include "kernels/gemm_plan.h"

namespace dak::kernels {
namespace {

constexpr uint16_t kPoison = 0x7FFF;  // NaN in both types

// Operands with fresh random elements, and y poisoned.
struct Problem {
  Problem(const GemmShape& s, uint64_t seed) : shape(s) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    const auto fill = [&](std::vector<uint16_t>& elements, uint64_t count) {
      elements.resize(count);
      for (uint16_t& element : elements) element = FloatToElement(shape.element, uniform(random));
    };
    fill(x, shape.batch * shape.k);
    fill(w, shape.n * shape.k);
    y.assign(shape.batch * shape.n, kPoison);
  }

  GemmOperands Operands() {
    GemmOperands operands;
    operands.x = reinterpret_cast<uint64_t>(x.data());
    operands.w_local = reinterpret_cast<uint64_t>(w.data());
    operands.w_remote = reinterpret_cast<uint64_t>(w.data() + shape.local_rows * shape.k);
    operands.y = reinterpret_cast<uint64_t>(y.data());
    return operands;
  }

  // ||y - reference|| / ||reference||, the reference in double; NaN if an element wasn't written.
  double RelativeError() const {
    double error = 0;
    double norm = 0;
    for (uint32_t b = 0; b < shape.batch; ++b) {
      for (uint64_t row = 0; row < shape.n; ++row) {
        double sum = 0;
        for (uint64_t i = 0; i < shape.k; ++i) {
          sum += static_cast<double>(ElementToFloat(shape.element, x[b * shape.k + i])) *
                 ElementToFloat(shape.element, w[row * shape.k + i]);
        }
        const double difference = ElementToFloat(shape.element, y[b * shape.n + row]) - sum;
        error += difference * difference;
        norm += sum * sum;
      }
    }
    return std::sqrt(error / norm);
  }

  GemmShape shape;
  std::vector<uint16_t> x;
  std::vector<uint16_t> w;
  std::vector<uint16_t> y;
};

LinkModel TestModel() { return {.bandwidth_bytes_per_s = 1'000'000'000, .round_trip_ns = 10'000}; }

TEST(GemmReferenceTest, EqualsADoubleProductForAllSplits) {
  for (const ElementType element : {ElementType::kBf16, ElementType::kF16}) {
    for (const uint64_t n : {1, 63, 64, 65, 200}) {
      for (const uint64_t k : {8, 64, 200}) {
        for (const uint64_t local_rows : {uint64_t{0}, n / 3, n}) {
          Problem problem({7, n, k, local_rows, element}, n * k + local_rows);
          ASSERT_TRUE(GemmReference(problem.shape, problem.Operands(), {}, TestModel(), false).ok());
          EXPECT_LT(problem.RelativeError(), element == ElementType::kBf16 ? 4e-3 : 5e-4)
              << "n " << n << " k " << k << " local_rows " << local_rows;
        }
      }
    }
  }
}

TEST(GemmReferenceTest, ReportsExactBytesAndEndsWithNothingInFlight) {
  Problem problem({3, 150, 136, 20, ElementType::kBf16}, 1);
  v1::LinkControl control{};
  control.window_bytes = 5 * kBoxBytes / 2;
  v1::LinkReport report{};
  const auto stats = GemmReference(problem.shape, problem.Operands(), {&control, &report}, TestModel(), false);
  ASSERT_TRUE(stats.ok());
  const uint64_t bytes = 130 * 136 * 2;
  EXPECT_EQ(stats->remote_bytes, bytes);
  EXPECT_EQ(stats->round_trips, RemoteChunks(130, 136));
  EXPECT_EQ(stats->inflight_peak_bytes, 2 * kBoxBytes) << "whole boxes of the window";
  EXPECT_EQ(report.bytes, bytes);
  EXPECT_EQ(report.round_trips, stats->round_trips);
  EXPECT_NEAR(static_cast<double>(report.round_trip_ns), stats->round_trip_ns, stats->round_trips);
  EXPECT_EQ(report.inflight_bytes, 0u);
  EXPECT_EQ(report.inflight_peak_bytes, 2 * kBoxBytes);
  EXPECT_EQ(report.passes, 1u);

  control.window_bytes = kBoxBytes;
  ASSERT_TRUE(GemmReference(problem.shape, problem.Operands(), {&control, &report}, TestModel(), false).ok());
  EXPECT_EQ(report.bytes, 2 * bytes);
  EXPECT_EQ(report.passes, 2u);
  EXPECT_EQ(report.inflight_peak_bytes, 2 * kBoxBytes) << "the peak is kept";
}

TEST(GemmReferenceTest, ALargeBatchReadsEachRemoteByteOnceToo) {
  for (const ElementType element : {ElementType::kBf16, ElementType::kF16}) {
    Problem problem({700, 150, 136, 20, element}, 11);
    v1::LinkReport report{};
    const auto stats = GemmReference(problem.shape, problem.Operands(), {nullptr, &report}, TestModel(), false);
    ASSERT_TRUE(stats.ok());
    EXPECT_EQ(report.bytes, 130u * 136 * 2);
    EXPECT_EQ(stats->remote_bytes, report.bytes);
    EXPECT_LT(problem.RelativeError(), element == ElementType::kBf16 ? 4e-3 : 5e-4);
  }
}

TEST(GemmReferenceTest, AWindowOfZeroStillEnds) {
  Problem problem({2, 100, 64, 0, ElementType::kF16}, 2);
  v1::LinkControl control{};
  v1::LinkReport report{};
  const auto stats = GemmReference(problem.shape, problem.Operands(), {&control, &report}, TestModel(), false);
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->inflight_peak_bytes, kBoxBytes);
  EXPECT_LT(problem.RelativeError(), 5e-4);
}

TEST(GemmReferenceTest, TheModelledTimeIsTheLinksAtTheWindow) {
  Problem problem({1, 1024, 64, 0, ElementType::kBf16}, 3);
  const double bytes = 1024 * 64 * 2;
  v1::LinkControl control{};
  control.window_bytes = kBoxBytes;  // below bandwidth x round trip
  auto stats = GemmReference(problem.shape, problem.Operands(), {&control, nullptr}, TestModel(), false);
  ASSERT_TRUE(stats.ok());
  EXPECT_NEAR(stats->modelled_seconds, bytes / kBoxBytes * 10e-6, 1e-9);
  EXPECT_NEAR(stats->round_trip_ns / static_cast<double>(stats->round_trips), 10'000, 1);
  stats = GemmReference(problem.shape, problem.Operands(), {}, TestModel(), false);
  ASSERT_TRUE(stats.ok());
  EXPECT_GT(stats->modelled_seconds, bytes / 1e9 * 0.99);
}

TEST(GemmReferenceTest, NeighboursInFlightSlowItDown) {
  Problem problem({1, 1024, 64, 0, ElementType::kBf16}, 4);
  v1::LinkControl control{};
  control.window_bytes = 4 * kBoxBytes;
  const auto alone = GemmReference(problem.shape, problem.Operands(), {&control, nullptr}, TestModel(), false);
  control.neighbour_inflight_bytes = 4 * kBoxBytes;
  const auto beside = GemmReference(problem.shape, problem.Operands(), {&control, nullptr}, TestModel(), false);
  ASSERT_TRUE(alone.ok() && beside.ok());
  EXPECT_GT(beside->modelled_seconds, 1.8 * alone->modelled_seconds);
}

TEST(GemmReferenceTest, AnAllLocalOperationReadsNothingRemote) {
  Problem problem({4, 128, 64, 128, ElementType::kBf16}, 5);
  v1::LinkReport report{};
  const auto stats = GemmReference(problem.shape, problem.Operands(), {nullptr, &report}, TestModel(), false);
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->remote_bytes, 0u);
  EXPECT_EQ(report.bytes, 0u);
  EXPECT_EQ(report.inflight_peak_bytes, 0u);
  EXPECT_EQ(report.passes, 1u);
  EXPECT_DOUBLE_EQ(stats->modelled_seconds, 128 * 64 * 2 / 2.99e12);
}

TEST(GemmReferenceTest, RealTimeTakesAtLeastTheModelledTime) {
  Problem problem({1, 512, 256, 0, ElementType::kBf16}, 6);
  LinkModel slow = TestModel();
  slow.bandwidth_bytes_per_s = 20'000'000;
  const auto start = std::chrono::steady_clock::now();
  const auto stats = GemmReference(problem.shape, problem.Operands(), {}, slow, true);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(stats.ok());
  EXPECT_GT(stats->modelled_seconds, 0.01);
  EXPECT_GE(elapsed.count(), stats->modelled_seconds - 250e-6);
}

TEST(GemmReferenceTest, RefusesMissingAndMisalignedOperands) {
  Problem problem({2, 100, 64, 50, ElementType::kBf16}, 7);
  const auto refused = [&](const GemmOperands& operands) {
    const auto stats = GemmReference(problem.shape, operands, {}, TestModel(), false);
    EXPECT_EQ(stats.status().code(), absl::StatusCode::kInvalidArgument);
    return DetailOf(stats.status()).field;
  };
  GemmOperands operands = problem.Operands();
  operands.x = 0;
  EXPECT_EQ(refused(operands), "x");
  operands = problem.Operands();
  operands.w_local = 0;
  EXPECT_EQ(refused(operands), "w_local");
  operands = problem.Operands();
  operands.w_remote += 8;
  EXPECT_EQ(refused(operands), "w_remote");
  operands = problem.Operands();
  operands.y += 1;
  EXPECT_EQ(refused(operands), "y");
  LinkModel dead = TestModel();
  dead.bandwidth_bytes_per_s = 0;
  EXPECT_EQ(DetailOf(GemmReference(problem.shape, problem.Operands(), {}, dead, false).status()).field,
            "model.bandwidth_bytes_per_s");
  EXPECT_EQ(problem.y[0], kPoison) << "a refused operation writes nothing";
}

}  // namespace
}  // namespace dak::kernels

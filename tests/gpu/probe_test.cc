// The probe on a GPU: figures that can be true, bounds, and memory that comes back.
#include "kernels/probe.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "allocator/base/error_detail.h"

namespace dak::kernels {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

uint64_t FreeHbm() {
  size_t free = 0;
  size_t total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  return free;
}

std::unique_ptr<Probe> MustCreate() {
  absl::StatusOr<std::unique_ptr<Probe>> probe = CreateCudaProbe(0, -1);
  EXPECT_TRUE(probe.ok()) << probe.status();
  return probe.ok() ? *std::move(probe) : nullptr;
}

TEST(ProbeTest, FiguresCanBeTrue) {
  const std::unique_ptr<Probe> probe = MustCreate();
  ASSERT_NE(probe, nullptr);
  const double hbm = probe->HbmBytesPerS().value_or(0);
  const double link = probe->LinkBytesPerS(256 * 1024).value_or(0);
  const double trip_s = probe->RoundTripSeconds().value_or(0);
  const double flops = probe->FlopsPerS().value_or(0);
  std::printf("HBM %.0f GB/s, link %.1f GB/s, round trip %.2f us, %.0f TFLOP/s\n", hbm * 1e-9, link * 1e-9,
              trip_s * 1e6, flops * 1e-12);
  EXPECT_GT(hbm, 1e12);
  EXPECT_LT(hbm, 1e13);
  EXPECT_GT(link, 5e9);
  EXPECT_LT(link, hbm);
  EXPECT_GT(trip_s, 0.5e-6);
  EXPECT_LT(trip_s, 50e-6);
  EXPECT_GT(flops, 1e14);
  EXPECT_LT(flops, 2e15);
  // One chunk at a time is a chunk a round trip.
  EXPECT_NEAR(probe->LinkBytesPerS(kProbeChunkBytes).value_or(0) * trip_s / kProbeChunkBytes, 1, 0.2);
  EXPECT_GT(probe->HbmBytesPerSBeside(128 * 1024).value_or(0), 0.5 * hbm);
  for (const bool to_hbm : {true, false}) EXPECT_GT(probe->CopyEngineBytesPerS(to_hbm).value_or(0), 5e9);
  const ProbeGemm local = {.batch = 8, .n = 4096, .k = 4096, .remote_rows = 0, .window_bytes = 262'144};
  ProbeGemm remote = local;
  remote.remote_rows = 1024;
  EXPECT_GT(probe->GemmSeconds(local).value_or(0), 4096.0 * 8192 / hbm);
  EXPECT_GT(probe->GemmSeconds(remote).value_or(0), 0.9 * 1024.0 * 8192 / link);
  ProbeGemm lasting = local;
  lasting.steady_s = 0.01;
  EXPECT_GT(probe->GemmSeconds(lasting).value_or(0), 4096.0 * 8192 / hbm);
}

TEST(ProbeTest, OutOfBoundsIsRefusedAndHarmsNothing) {
  const std::unique_ptr<Probe> probe = MustCreate();
  ASSERT_NE(probe, nullptr);
  for (const uint64_t inflight : {uint64_t{0}, kMostProbeInflightBytes + 1}) {
    EXPECT_EQ(DetailOf(probe->LinkBytesPerS(inflight).status()).field, "inflight_bytes");
    EXPECT_EQ(DetailOf(probe->HbmBytesPerSBeside(inflight).status()).field, "inflight_bytes");
  }
  const ProbeGemm huge = {.batch = 8, .n = 1 << 20, .k = 4096, .remote_rows = 0, .window_bytes = 0};
  EXPECT_EQ(probe->GemmSeconds(huge).status().code(), absl::StatusCode::kInvalidArgument);
  const ProbeGemm large_batch = {.batch = 1 << 20, .n = 4096, .k = 4096, .remote_rows = 0, .window_bytes = 0};
  EXPECT_EQ(probe->GemmSeconds(large_batch).status().code(), absl::StatusCode::kInvalidArgument);
  for (const double steady_s : {-1.0, 11.0, std::nan("")}) {
    const ProbeGemm forever = {.batch = 8, .n = 4096, .k = 4096, .window_bytes = 0, .steady_s = steady_s};
    EXPECT_EQ(DetailOf(probe->GemmSeconds(forever).status()).field, "steady_s");
  }
  EXPECT_TRUE(probe->HbmBytesPerS().ok());
}

TEST(ProbeTest, MemoryComesBack) {
  MustCreate();  // what the runtime keeps for good is there now
  const uint64_t before = FreeHbm();
  {
    const std::unique_ptr<Probe> probe = MustCreate();
    EXPECT_LE(before - FreeHbm(), kMostProbeHbmBytes + 64 * kMiB);
  }
  EXPECT_LE(before - std::min(before, FreeHbm()), 2 * kMiB);
}

TEST(ProbeTest, WorksWhereHbmIsNearlyFullAndSaysSoWhereItIsFull) {
  MustCreate();
  for (const uint64_t left : {400 * kMiB, 100 * kMiB}) {
    void* others = nullptr;
    ASSERT_EQ(cudaMalloc(&others, FreeHbm() - left), cudaSuccess);
    const auto probe = CreateCudaProbe(0, -1);
    if (left > 2 * kLeastProbeHbmBytes) {
      ASSERT_TRUE(probe.ok()) << probe.status();
      EXPECT_GT((*probe)->HbmBytesPerS().value_or(0), 1e12);
    } else {
      EXPECT_EQ(probe.status().code(), absl::StatusCode::kResourceExhausted) << probe.status();
    }
    cudaFree(others);
  }
}

}  // namespace
}  // namespace dak::kernels

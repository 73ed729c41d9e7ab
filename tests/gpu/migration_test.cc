// Migration on a real GPU: tensors that move while passes run, and a session that leaves HBM and comes back. Results
// are compared before, during and after; HBM that is given back is what cuMemGetInfo says.
//
// Run: dak_gpu_migration_test [--dakd=PATH] [--gtest_filter=...]. By default it starts ../../../bin/dakd, as the bundle
// has it. Needs one GPU with 4 GiB free, and nobody else who allocates there meanwhile; 10 s.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "allocator/device/device.h"
#include "dak/dak.hpp"
#include "dak/v1/migration.grpc.pb.h"
#include "tests/integration/harness/daemon_process.h"
#include "tests/integration/harness/matrix.h"

namespace dak::testing {

std::string* DakdPath() {
  static auto* const path = new std::string;
  return path;
}

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kRows = 8192;
constexpr uint64_t kCols = 8192;
constexpr uint64_t kLayers = 8;  // 128 MiB each
constexpr uint64_t kLayerBytes = kRows * kCols * 2;
constexpr uint32_t kBatch = 4;
constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr double kModelMib = static_cast<double>(kLayers * kLayerBytes) / kMiB;
// What the driver takes for page tables and streams of its own.
constexpr double kSlackMib = 48;

double Since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

dak::TensorSpec Spec(const std::string& name, uint64_t rows) {
  dak::TensorSpec spec;
  spec.name = name;
  spec.rows = rows;
  spec.cols = kCols;
  return spec;
}

class GpuMigrationTest : public ::testing::Test {
 protected:
  GpuMigrationTest()
      : daemon_({.flags = {}, .config = "", .hbm = "3GiB", .host = "3GiB", .device = "cuda", .dakd = *DakdPath()}) {}

  void SetUp() override {
    DeviceOptions options;
    options.kind = DeviceOptions::Kind::kCuda;
    auto device = OpenDevice(options);
    ASSERT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
    auto session = dak::Session::Open({.runtime_dir = daemon_.runtime_dir(),
                                       .name = "migration",
                                       .weight = 0,
                                       .hbm_quota_bytes = 0,
                                       .host_quota_bytes = 0,
                                       .cxl_quota_bytes = 0,
                                       .timeout = std::chrono::seconds(60)});
    ASSERT_TRUE(session.ok()) << session.status().ToString();
    session_ = *std::move(session);
    std::vector<dak::TensorSpec> specs;
    for (uint64_t i = 0; i < kLayers; ++i) specs.push_back(Spec("l" + std::to_string(i), kRows));
    auto layers = session_.Allocate(specs, "model");
    ASSERT_TRUE(layers.ok()) << layers.status().ToString();
    layers_ = *layers;
    weights_ = RandomMatrix(kRows, kCols, 1, false);
    for (const dak::Tensor& layer : layers_) ASSERT_TRUE(layer.Upload(std::span(weights_)).ok());
    const std::vector<dak::TensorSpec> io = {Spec("x", kBatch), Spec("y", kBatch * kLayers)};
    auto buffers = session_.Allocate(io, "io");
    ASSERT_TRUE(buffers.ok()) << buffers.status().ToString();
    x_ = (*buffers)[0];
    y_ = (*buffers)[1];
    const auto x = RandomMatrix(kBatch, kCols, 2, false);
    ASSERT_TRUE(x_.Upload(std::span(x)).ok());
    x_address_ = x_.GetParts()->front().device_address;
    y_address_ = y_.GetParts()->front().device_address;
    expected_ = Pass();
  }
  // One pass over all layers; every layer's result.
  std::vector<uint16_t> Pass() {
    for (uint64_t i = 0; i < kLayers; ++i) {
      const dak::Status status = session_.Gemm(layers_[i], x_address_, y_address_ + i * kBatch * kCols * 2, kBatch);
      EXPECT_TRUE(status.ok()) << status.ToString();
    }
    EXPECT_TRUE(session_.Synchronize().ok());
    std::vector<uint16_t> y(kBatch * kLayers * kCols);
    EXPECT_TRUE(y_.Download(std::span(y)).ok());
    return y;
  }
  // Another split may sum up in another order: at most one rounding of the result apart.
  void ExpectSame(const std::vector<uint16_t>& y, const char* when) {
    double worst = 0;
    for (size_t i = 0; i < y.size(); ++i) {
      const double expected = FromBf16(expected_[i]);
      const double error = std::abs(FromBf16(y[i]) - expected) / (std::abs(expected) + 1);
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    }
    EXPECT_LT(worst, 1.0 / 128) << when;
  }
  void ExpectWeightsIntact() {
    std::vector<uint16_t> found(weights_.size());
    for (const uint64_t layer : {uint64_t{0}, kLayers - 1}) {
      ASSERT_TRUE(layers_[layer].Download(std::span(found)).ok());
      EXPECT_TRUE(found == weights_) << "layer " << layer;
    }
  }
  double FreeHbmMib() { return static_cast<double>(*device_->GetTier(Tier::kHbm)->free_bytes) / kMiB; }
  double PassSeconds() {
    Pass();
    const auto begin = Clock::now();
    for (int i = 0; i < 3; ++i) Pass();
    return Since(begin) / 3;
  }

  // Moves all layers to `ratio` while passes run, and commits between two of them.
  void MoveUnderPasses(double ratio) {
    std::vector<dak::TensorMove> moves(kLayers);
    for (uint64_t i = 0; i < kLayers; ++i) {
      moves[i].tensor = layers_[i];
      moves[i].offload_ratio = ratio;
    }
    const double before = PassSeconds();
    std::atomic<bool> prepared = false;
    dak_move_info info{};
    double prepare_seconds = 0;
    std::thread mover([&] {
      const auto begin = Clock::now();
      const auto result = session_.PrepareMove(moves);
      prepare_seconds = Since(begin);
      EXPECT_TRUE(result.ok()) << result.status().ToString();
      if (result.ok()) info = *result;
      prepared = true;
    });
    int passes = 0;
    double worst = 0;
    while (!prepared) {
      const auto begin = Clock::now();
      const std::vector<uint16_t> y = Pass();
      worst = std::max(worst, Since(begin));
      ExpectSame(y, "while rows move");
      ++passes;
    }
    mover.join();
    const auto begin = Clock::now();
    ASSERT_TRUE(session_.CommitMove().ok());
    const double commit_seconds = Since(begin);
    ExpectSame(Pass(), "after the commit");
    const double over_link = static_cast<double>(info.hbm_to_remote_bytes + info.remote_to_hbm_bytes);
    const double copy_seconds = static_cast<double>(info.copy_ns) / 1e9;
    std::printf(
        "move to %.2f: %.0f MiB over the link and %.0f MiB within a tier in %.1f ms (%.1f GB/s over the link), prepare "
        "%.1f ms, commit %.2f ms; %d passes meanwhile, worst %.2f ms, before %.2f ms\n",
        ratio, over_link / kMiB, static_cast<double>(info.within_tier_bytes) / kMiB, copy_seconds * 1e3,
        over_link / copy_seconds / 1e9, prepare_seconds * 1e3, commit_seconds * 1e3, passes, worst * 1e3, before * 1e3);
  }

  grpc::Status Demote(v1::MigrationProgress* last) {
    grpc::ClientContext context;
    v1::DemoteSessionRequest request;
    request.set_session_id(session_.GetInfo()->session_id);
    auto reader = migrations_->DemoteSession(&context, request);
    while (reader->Read(last)) {
    }
    return reader->Finish();
  }

  DaemonProcess daemon_;
  std::unique_ptr<v1::MigrationService::Stub> migrations_ = v1::MigrationService::NewStub(daemon_.NewChannel());
  std::unique_ptr<Device> device_;
  dak::Session session_;
  std::vector<dak::Tensor> layers_;
  dak::Tensor x_, y_;
  uint64_t x_address_ = 0;
  uint64_t y_address_ = 0;
  std::vector<uint16_t> weights_;
  std::vector<uint16_t> expected_;
};

TEST_F(GpuMigrationTest, TensorsMoveWhilePassesRunAndHbmIsFreed) {
  const double free_before = FreeHbmMib();
  MoveUnderPasses(0.25);  // nobody reads the link: the whole of it
  EXPECT_NEAR(FreeHbmMib(), free_before + kModelMib / 4, kSlackMib);
  ExpectWeightsIntact();
  MoveUnderPasses(0.5);  // passes read the link: what they leave
  EXPECT_NEAR(FreeHbmMib(), free_before + kModelMib / 2, kSlackMib);
  ExpectWeightsIntact();
  MoveUnderPasses(0);
  EXPECT_NEAR(FreeHbmMib(), free_before, kSlackMib);
  ExpectWeightsIntact();
  for (const dak::Tensor& layer : layers_) EXPECT_TRUE(layer.VerifyMap(0).ok());
}

TEST_F(GpuMigrationTest, AnIdleSessionLeavesHbmAndComesBackAtTheSameAddresses) {
  const double free_before = FreeHbmMib();
  const uint64_t address = layers_[3].GetParts()->front().device_address;
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(session_.Suspend().ok());
    v1::MigrationProgress last;
    const auto begin = Clock::now();
    const grpc::Status demoted = Demote(&last);
    const double demote_seconds = Since(begin);
    ASSERT_TRUE(demoted.ok()) << demoted.error_message();
    ASSERT_TRUE(last.finished());
    const double demoted_mib = static_cast<double>(last.done_bytes()) / kMiB;
    EXPECT_GE(demoted_mib, kModelMib);
    EXPECT_NEAR(FreeHbmMib(), free_before + demoted_mib, kSlackMib);
    EXPECT_NEAR(static_cast<double>(last.hbm_free_after_bytes()) / kMiB,
                static_cast<double>(last.hbm_free_before_bytes()) / kMiB + demoted_mib, kSlackMib);
    EXPECT_EQ(layers_[3].GetParts()->front().device_address, address);
    EXPECT_EQ(layers_[3].GetParts()->front().tier, DAK_TIER_HOST);
    const auto resume_begin = Clock::now();
    const dak::Status resumed = session_.Resume();
    const double resume_seconds = Since(resume_begin);
    ASSERT_TRUE(resumed.ok()) << resumed.ToString();
    EXPECT_NEAR(FreeHbmMib(), free_before, kSlackMib);
    EXPECT_EQ(layers_[3].GetParts()->front().device_address, address);
    EXPECT_EQ(layers_[3].GetParts()->front().tier, DAK_TIER_HBM);
    ExpectSame(Pass(), "after it came back");
    ExpectWeightsIntact();
    std::printf("demote %.0f MiB: %.1f ms, copies %.1f ms (%.1f GB/s); resume %.1f ms\n", demoted_mib,
                demote_seconds * 1e3, static_cast<double>(last.copy_ns()) / 1e6,
                static_cast<double>(last.done_bytes()) / static_cast<double>(last.copy_ns()), resume_seconds * 1e3);
  }
}

}  // namespace
}  // namespace dak::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  *dak::testing::DakdPath() =
      (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "../../../bin/dakd").string();
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("--dakd=", 0) == 0) *dak::testing::DakdPath() = argument.substr(7);
  }
  return RUN_ALL_TESTS();
}

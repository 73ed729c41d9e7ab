#include "kernels/gemm_tuning.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"

namespace dak::kernels {
namespace {

constexpr char kLine[] = "bf16,64,4096,14336,4000,2,8,1,5,1,NVIDIA H100 80GB HBM3";

TuningKey Key() { return {"NVIDIA H100 80GB HBM3", false, 64, 4096, 14'336, 4000}; }

class TuningFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "dak-tuning-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST(GemmTuningTest, ReadsALineAndSkipsCommentsAndBlanks) {
  const auto tuning = GemmTuning::Parse(absl::StrCat("# a comment\n\n  ", kLine, "  # another\r\n"));
  ASSERT_TRUE(tuning.ok()) << tuning.status();
  const TuningChoice* const choice = tuning->Find(Key());
  ASSERT_NE(choice, nullptr);
  EXPECT_EQ(*choice, (TuningChoice{2, 8, true, 5}));
  TuningKey other = Key();
  other.local_rows = 3999;
  EXPECT_EQ(tuning->Find(other), nullptr);
  other = Key();
  other.device = "NVIDIA H200";
  EXPECT_EQ(tuning->Find(other), nullptr);
}

TEST(GemmTuningTest, WhatItWritesItReads) {
  GemmTuning tuning;
  TuningKey f16 = Key();
  f16.f16 = true;
  f16.device = "a name, with a comma";
  tuning.Set(Key(), {1, 12, false, 0});
  tuning.Set(f16, {2, 6, true, 32});
  TuningKey large = Key();
  large.batch_tile = 256;
  tuning.Set(large, {1, 6, true, 4, kClusterCtas});
  const auto read = GemmTuning::Parse(tuning.ToText());
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_NE(read->Find(Key()), nullptr);
  ASSERT_NE(read->Find(f16), nullptr);
  EXPECT_EQ(*read->Find(Key()), (TuningChoice{1, 12, false, 0}));
  EXPECT_EQ(*read->Find(f16), (TuningChoice{2, 6, true, 32}));
  ASSERT_NE(read->Find(large), nullptr);
  EXPECT_EQ(*read->Find(large), (TuningChoice{1, 6, true, 4, kClusterCtas}));
}

TEST(GemmTuningTest, RefusesBadLinesWithTheirNumber) {
  const auto field = [](const std::string& line) {
    const auto tuning = GemmTuning::Parse(absl::StrCat(kLine, "\n", line, "\n"));
    EXPECT_EQ(tuning.status().code(), absl::StatusCode::kInvalidArgument) << line;
    return DetailOf(tuning.status()).field;
  };
  EXPECT_EQ(field("bf16,64,4096"), "line 2");
  EXPECT_EQ(field("bf16,64,4096,14336,4000,2,8,1,5,d"), "line 2") << "without a cluster";
  EXPECT_EQ(field("f32,64,4096,14336,4000,2,8,1,5,1,d"), "line 2: element");
  EXPECT_EQ(field("bf16,x,4096,14336,4000,2,8,1,5,1,d"), "line 2: batch_tile");
  EXPECT_EQ(field("bf16,4,4096,14336,4000,2,8,1,5,1,d"), "line 2: batch_tile");
  EXPECT_EQ(field("bf16,24,4096,14336,4000,2,8,1,5,1,d"), "line 2: batch_tile");
  EXPECT_EQ(field("bf16,64,0,14336,4000,2,8,1,5,1,d"), "line 2: n");
  EXPECT_EQ(field("bf16,64,4096,99999999999,4000,2,8,1,5,1,d"), "line 2: k");
  EXPECT_EQ(field("bf16,64,4096,14336,4097,2,8,1,5,1,d"), "line 2: local_rows");
  EXPECT_EQ(field("bf16,64,4096,14336,4000,3,8,1,5,1,d"), "line 2: row_boxes");
  EXPECT_EQ(field("bf16,64,4096,14336,4000,2,1,1,5,1,d"), "line 2: local_inflight_boxes");
  EXPECT_EQ(field("bf16,64,4096,14336,4000,2,8,2,5,1,d"), "line 2: promote_local");
  EXPECT_EQ(field("bf16,64,4096,14336,4000,2,8,1,33,1,d"), "line 2: remote_ctas");
  EXPECT_EQ(field("bf16,64,4096,14336,4000,2,8,1,5,1,"), "line 2: device");
  EXPECT_EQ(field("bf16,64,4096,14336,4000,1,8,1,5,4,d"), "line 2: cluster") << "too small a batch";
  EXPECT_EQ(field("bf16,256,4096,14336,4000,2,8,1,5,1,d"), "line 2: row_boxes") << "too large a batch";
  EXPECT_EQ(field("bf16,128,4096,14336,4000,2,8,1,5,4,d"), "line 2: cluster") << "of tiles of two boxes";
  EXPECT_EQ(field("bf16,256,4096,14336,4000,1,8,1,5,2,d"), "line 2: cluster");
  EXPECT_EQ(field("bf16,256,4096,14336,4000,1,8,1,5,3,d"), "line 2: cluster");
  EXPECT_EQ(field("bf16,256,4096,14336,4000,1,8,1,5,8,d"), "line 2: cluster");
  EXPECT_EQ(field(kLine), "line 2") << "twice the same shape";
}

TEST(GemmTuningTest, ForgetsOtherDevices) {
  GemmTuning tuning;
  TuningKey other = Key();
  other.device = "another";
  tuning.Set(Key(), {1, 12, false, 0});
  tuning.Set(other, {1, 12, false, 0});
  tuning.KeepOnly(Key().device);
  EXPECT_NE(tuning.Find(Key()), nullptr);
  EXPECT_EQ(tuning.Find(other), nullptr);
  tuning.KeepOnly("neither");
  EXPECT_TRUE(tuning.empty());
}

TEST_F(TuningFileTest, StoresAndLoads) {
  const std::string path = folder_ / "tuning.csv";
  GemmTuning tuning;
  tuning.Set(Key(), {2, 8, true, 5});
  ASSERT_TRUE(tuning.Store(path).ok());
  tuning.Set(Key(), {1, 8, true, 5});
  ASSERT_TRUE(tuning.Store(path).ok());
  const auto loaded = GemmTuning::Load(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->ToText(), tuning.ToText());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1) << "nothing else is left behind";
}

TEST_F(TuningFileTest, NamesTheFileThatIsMissingOrBroken) {
  const std::string path = folder_ / "tuning.csv";
  EXPECT_EQ(GemmTuning::Load(path).status().code(), absl::StatusCode::kNotFound);
  std::ofstream(path) << "\nnonsense\n";
  const absl::Status status = GemmTuning::Load(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find(path), absl::string_view::npos) << status;
  EXPECT_EQ(DetailOf(status).field, "line 2");
  const absl::Status unwritable = GemmTuning().Store(folder_ / "missing" / "tuning.csv");
  EXPECT_EQ(unwritable.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(unwritable.message().find("missing"), absl::string_view::npos);
}

TEST(ApplyChoiceTest, TakesTheChoiceAndStaysWithinTheDevice) {
  const DeviceTraits device;
  const GemmPlan model = PlanGemm(8, 14'336, 4096, 7168, device, {});
  const GemmPlan plan = ApplyChoice({1, 7, false, 9}, 14'336, 4096, 7168, device, {}, model);
  EXPECT_EQ(plan.batch_tile, model.batch_tile);
  EXPECT_EQ(plan.row_boxes, 1u);
  EXPECT_EQ(plan.local_inflight_boxes, 7u);
  EXPECT_FALSE(plan.promote_local);
  EXPECT_EQ(plan.remote_ctas, 9u);
  EXPECT_LE(plan.local_ctas + plan.remote_ctas, device.multiprocessors);
  EXPECT_GE(plan.local_ctas + plan.remote_ctas, 120u);
}

// What GemmTuningTest.TwoCtasOfATileOfTwoBoxesGiveRightNumbers runs.
TEST(ApplyChoiceTest, TilesOfTwoBoxesAreFinishedInHalvesToo) {
  const auto plan_of = [](uint64_t local_rows, const TuningChoice& choice) {
    const GemmPlan model = PlanGemm(128, 8'192, 512, local_rows, {}, {});
    return ApplyChoice(choice, 8'192, 512, local_rows, {}, {}, model);
  };
  const GemmPlan alone = plan_of(8'192, {2, 6, true, 0});
  EXPECT_EQ(alone.row_boxes, 2u);
  EXPECT_EQ(alone.local_ctas, 128u);
  EXPECT_TRUE(alone.halves);
  const GemmPlan beside = plan_of(8'192 - 128, {2, 6, true, 2});
  EXPECT_EQ(beside.remote_ctas, 2u);
  EXPECT_EQ(beside.local_ctas, 126u);
  EXPECT_TRUE(beside.halves);
  EXPECT_FALSE(plan_of(8'192 - 64, {2, 6, true, 0}).halves) << "beside a single remote CTA";
}

// Where whole tiles leave SMs idle, more remote CTAs take none from the local ones.
TEST(ApplyChoiceTest, MoreRemoteCtasTakeIdleSms) {
  const GemmPlan model = PlanGemm(256, 28'672, 4'096, 28'352, {}, {});
  ASSERT_TRUE(model.whole_tiles);
  const GemmPlan plan = ApplyChoice({1, 12, false, model.remote_ctas + 2}, 28'672, 4'096, 28'352, {}, {}, model);
  EXPECT_EQ(plan.remote_ctas, model.remote_ctas + 2);
  EXPECT_EQ(plan.local_ctas, model.local_ctas);
  EXPECT_TRUE(plan.whole_tiles);
}

TEST(ApplyChoiceTest, EveryChoiceIsAPlanThatCanRun) {
  std::mt19937_64 random(20261125);
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t n = 1 + random() % (random() % 2 == 0 ? 200 : 40'000);
    const uint64_t k = 8 * (1 + random() % 500);
    const uint64_t local_rows = random() % 4 == 0 ? 0 : random() % 4 == 0 ? n : random() % (n + 1);
    const auto multiprocessors = static_cast<uint32_t>(1 + random() % 140);
    const DeviceTraits device{.multiprocessors = multiprocessors,
                              .clustered_ctas = static_cast<uint32_t>(multiprocessors * (random() % 5) / 16 * 4)};
    TuningChoice choice;
    choice.cluster = random() % 2 == 0 ? 1 : kClusterCtas;
    choice.row_boxes = 1 + random() % 2;
    choice.local_inflight_boxes = choice.row_boxes + random() % 20;
    choice.remote_ctas = random() % (kMaxRemoteCtas + 1);
    const GemmPlan model = PlanGemm(1 + random() % kMaxBatch, n, k, local_rows, device, {});
    const GemmPlan plan = ApplyChoice(choice, n, k, local_rows, device, {}, model);
    ASSERT_EQ(plan.remote_ctas == 0, local_rows == n);
    ASSERT_EQ(plan.local_ctas == 0, local_rows == 0);
    ASSERT_LE(plan.remote_ctas, kMaxRemoteCtas);
    ASSERT_LE(plan.remote_ctas + plan.local_ctas, std::max(device.multiprocessors, 2u));
    ASSERT_TRUE(plan.cluster == 1 || plan.cluster == choice.cluster);
    ASSERT_LE(plan.local_ctas / plan.cluster, LocalChunks(local_rows, k, plan));
    ASSERT_TRUE(!plan.halves || CanHalve(local_rows, k, plan));
    ASSERT_TRUE(!plan.whole_tiles || plan.local_ctas / plan.cluster <= LocalTiles(local_rows, plan));
    if (local_rows < n) {
      ASSERT_LE(plan.remote_ctas, CutRemote(plan.batch_tile, n - local_rows, k).count);
    }
    ASSERT_GE(plan.local_inflight_boxes, plan.row_boxes);
    ASSERT_LE(plan.row_boxes, plan.batch_tile <= kMostTwoBoxTile ? 2u : 1u);
    if (plan.cluster == 1) continue;
    ASSERT_GE(plan.batch_tile, kLeastClusteredTile);
    ASSERT_EQ(plan.row_boxes, 1u);
    ASSERT_EQ(plan.local_ctas % plan.cluster, 0u);
    ASSERT_EQ(plan.remote_ctas % plan.cluster, 0u);
    ASSERT_LE(plan.remote_ctas + plan.local_ctas, device.clustered_ctas);
  }
}

TEST(ApplyChoiceTest, ClustersTakeWhatTheDeviceRunsAtOnce) {
  const DeviceTraits device{.multiprocessors = 132, .clustered_ctas = 120};
  const auto plan = [&](uint32_t batch, uint64_t local_rows, uint32_t cluster) {
    const GemmPlan model = PlanGemm(batch, 28'672, 4096, local_rows, device, {});
    return ApplyChoice({1, 12, true, 0, cluster}, 28'672, 4096, local_rows, device, {}, model);
  };
  EXPECT_EQ(plan(256, 28'672, 4).local_ctas, 120u);
  EXPECT_EQ(plan(256, 14'336, 4).remote_ctas % 4, 0u);
  EXPECT_GE(plan(256, 14'336, 4).remote_ctas, 4u);
  EXPECT_EQ(plan(64, 28'672, 4).cluster, 1u) << "no instance";
  EXPECT_EQ(plan(256, 0, 4).cluster, 1u) << "nothing local";
}

}  // namespace
}  // namespace dak::kernels

#include "kernels/gemm_plan.h"

#include <gtest/gtest.h>

#include <random>

namespace dak::kernels {
namespace {

TEST(PlanGemmTest, EveryShapeGetsCtasForItsPartsAndFitsTheDevice) {
  std::mt19937_64 random(20261124);
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t n = 1 + random() % (random() % 2 == 0 ? 200 : 40'000);
    const uint64_t k = 8 * (1 + random() % (random() % 2 == 0 ? 16 : 4'000));
    const uint64_t local_rows = random() % 4 == 0 ? 0 : random() % 4 == 0 ? n : random() % (n + 1);
    const auto batch = static_cast<uint32_t>(1 + random() % kMaxBatch);
    const DeviceTraits device{.multiprocessors = static_cast<uint32_t>(random() % 3 == 0 ? 132 : 1 + random() % 140)};
    const GemmPlan plan = PlanGemm(batch, n, k, local_rows, device, {});
    ASSERT_GE(plan.batch_tile, batch);
    ASSERT_LE(plan.batch_tile, kMaxBatch);
    ASSERT_EQ(plan.remote_ctas == 0, local_rows == n);
    ASSERT_EQ(plan.local_ctas == 0, local_rows == 0);
    ASSERT_LE(plan.remote_ctas, kMaxRemoteCtas);
    ASSERT_LE(plan.remote_ctas + plan.local_ctas, std::max(device.multiprocessors, 2u));
    ASSERT_LE(plan.local_ctas, LocalChunks(local_rows, k, plan));
    if (plan.whole_tiles) {
      ASSERT_LE(plan.local_ctas / plan.cluster, LocalTiles(local_rows, plan));
    }
    if (local_rows < n) {
      ASSERT_LE(plan.remote_ctas, CutRemote(plan.batch_tile, n - local_rows, k).count);
    }
  }
}

TEST(CutRemoteTest, EveryChunkIsInOneUnitAndOnlyTheLastTilesAreCut) {
  for (uint64_t rows = 1; rows < 20'000; rows += 1 + rows / 7) {
    for (uint64_t k = 8; k < 60'000; k += 8 + k / 5 / 8 * 8) {
      const uint32_t batch_tile = rows % 2 == 0 ? 256 : 8;
      const RemoteUnits units = CutRemote(batch_tile, rows, k);
      const uint64_t tiles = DivideUp(rows, kBoxRows);
      const uint64_t k_chunks = DivideUp(k, kChunkColumns);
      ASSERT_LT(units.whole, tiles);
      ASSERT_EQ(units.count, units.whole + (tiles - units.whole) * units.per_tile);
      ASSERT_GE(units.chunks * units.per_tile, k_chunks) << rows << " x " << k;
      ASSERT_LT(units.chunks * (units.per_tile - 1), k_chunks) << "no unit is empty";
      ASSERT_LE(units.count - units.whole, kMaxSharedUnits);
      if (units.per_tile > 1) {
        ASSERT_GE(units.chunks, batch_tile == 256 ? 16u : 8u);
        ASSERT_LE(units.per_tile, batch_tile == 256 ? 4u : kMaxSharedUnits);
      }
    }
  }
}

TEST(CutRemoteTest, TilesAreCutInNoMoreUnitsThanThePlanAllows) {
  for (const uint32_t most : {1u, 2u, 3u, 5u, 8u, 100u}) {
    for (uint64_t k = 8; k < 60'000; k += 8 + k / 5 / 8 * 8) {
      const RemoteUnits units = CutRemote(64, 64, k, most);
      const RemoteUnits all = CutRemote(64, 64, k);
      ASSERT_LE(units.per_tile, std::min(most, all.per_tile));
      ASSERT_GE(units.chunks * units.per_tile, DivideUp(k, kChunkColumns));
    }
  }
  GemmPlan plan = PlanGemm(256, 4'096, 14'336, 4'032, {}, {});
  plan.most_units = 2;
  PlanCtas(4'096, 14'336, 4'032, {}, {}, plan);
  EXPECT_EQ(plan.remote_ctas, 2u) << "no more CTAs than units";
}

TEST(CutRemoteTest, ThereAreShortUnitsForAllAtTheEnd) {
  EXPECT_GE(CutRemote(8, 410, 14'336).count, 100u);
  const RemoteUnits many = CutRemote(8, 64 * 500, 4096);
  EXPECT_EQ(many.whole, 492u);
  EXPECT_EQ(many.per_tile, 8u);
  EXPECT_EQ(CutRemote(256, 64 * 500, 4096).per_tile, 4u);
}

TEST(PlanGemmTest, AFullLinkIsFilledByFewCtas) {
  const GemmPlan plan = PlanGemm(8, 14'336, 4'096, 7'168, {}, {});
  EXPECT_GE(plan.remote_ctas, 3u);
  EXPECT_LE(plan.remote_ctas, 6u);
  EXPECT_GE(plan.remote_ctas + plan.local_ctas, 128u);
}

TEST(PlanGemmTest, ASmallRemoteShareTakesFewerSms) {
  const GemmPlan small = PlanGemm(8, 8'192, 8'192, 8'192 - 64, {}, {});
  const GemmPlan large = PlanGemm(8, 8'192, 8'192, 8'192 / 2, {}, {});
  EXPECT_LT(small.remote_ctas, large.remote_ctas);
  EXPECT_GE(small.local_ctas, large.local_ctas);
}

TEST(PlanGemmTest, WhereUnitsTakeLongToFinishMoreCtasHoldTheWindow) {
  const GemmPlan small = PlanGemm(8, 14'336, 4'096, 7'168, {}, {});
  const GemmPlan large = PlanGemm(256, 14'336, 4'096, 7'168, {}, {});
  EXPECT_GT(large.remote_ctas, small.remote_ctas);
}

constexpr DeviceTraits kH100{.clustered_ctas = 120};

GemmPlan PlanOfTiles(uint32_t batch, uint64_t tiles) {
  return PlanGemm(batch, tiles * kBoxRows, 8'192, tiles * kBoxRows, kH100, {});
}

TEST(PlanGemmTest, ManyTilesAreLeftWhole) {
  for (const uint32_t batch : {1u, 32u, 64u, 128u, 256u}) {
    const GemmPlan plan = PlanGemm(batch, 28'672, 4'096, 28'672, kH100, {});
    EXPECT_EQ(plan.local_ctas, 112u) << batch << ": with two or four tiles each";
    EXPECT_TRUE(plan.whole_tiles) << batch;
    EXPECT_EQ(plan.cluster, 1u) << batch;
    EXPECT_EQ(plan.row_boxes, batch <= 128 ? 2u : 1u) << batch;
  }
  EXPECT_EQ(PlanOfTiles(256, 160).local_ctas, 80u) << "although 52 SMs have nothing to do";
  EXPECT_EQ(PlanOfTiles(256, 263).local_ctas, 132u) << "one CTA has a tile less";
  const GemmPlan beside = PlanGemm(256, 28'672, 4'096, 28'352, kH100, {});
  EXPECT_EQ(beside.local_ctas, 111u) << "443 tiles";
  EXPECT_TRUE(beside.whole_tiles);
}

TEST(PlanGemmTest, WhereWholeTilesLeaveTooManySmsTheyArePartedAndClustersReadX) {
  EXPECT_EQ(PlanOfTiles(256, 140).cluster, kClusterCtas);
  EXPECT_FALSE(PlanOfTiles(256, 140).whole_tiles);
  EXPECT_EQ(PlanOfTiles(256, 140).local_ctas, 120u);
  EXPECT_EQ(PlanGemm(256, 140 * kBoxRows, 8'192, 140 * kBoxRows, {}, {}).cluster, 1u) << "a device that runs none";
  EXPECT_EQ(PlanOfTiles(256, 132).cluster, 1u);
  EXPECT_EQ(PlanOfTiles(64, 140).cluster, 1u) << "x is little";
}

TEST(PlanGemmTest, TilesAreHigherWhereThatLeavesNoMoreSmsIdle) {
  for (const uint32_t batch : {32u, 64u, 128u}) {
    for (const uint64_t tiles : {133u, 160u, 256u, 448u, 896u}) {
      EXPECT_EQ(PlanOfTiles(batch, tiles).row_boxes, 2u) << batch << " " << tiles;
    }
    for (const uint64_t tiles : {64u, 132u, 280u, 336u}) {
      EXPECT_EQ(PlanOfTiles(batch, tiles).row_boxes, 1u) << batch << " " << tiles;
    }
  }
  EXPECT_EQ(PlanOfTiles(16, 64).row_boxes, 2u);
  EXPECT_EQ(PlanOfTiles(16, 336).row_boxes, 1u) << "112 CTAs with three each, not 84 with two of twice the rows";
}

TEST(PlanGemmTest, ATileIsSharedWhereThatCostsLessThanItSaves) {
  EXPECT_EQ(PlanGemm(256, 6'144, 4'096, 6'144, {}, {}).local_ctas, 96u) << "one for each tile";
  EXPECT_EQ(PlanGemm(128, 6'144, 4'096, 6'144, {}, {}).local_ctas, 132u);
  EXPECT_EQ(PlanGemm(256, 6'144, 16'384, 6'144, {}, {}).local_ctas, 132u) << "long tiles";
  EXPECT_EQ(PlanGemm(256, 4'096, 4'096, 4'096, {}, {}).local_ctas, 128u) << "two for each tile";
}

TEST(PlanGemmTest, TilesAreFinishedInHalvesWhereTwoCtasHaveEach) {
  EXPECT_TRUE(PlanGemm(256, 4'096, 4'096, 4'096, {}, {}).halves);
  EXPECT_TRUE(PlanGemm(256, 4'100, 4'096, 4'096, {}, {}).halves) << "beside a pair of remote CTAs, where one would do";
  EXPECT_TRUE(PlanGemm(128, 4'096, 4'096, 4'096, {}, {}).halves);
  EXPECT_FALSE(PlanGemm(64, 4'096, 4'096, 4'096, {}, {}).halves) << "too few columns";
  EXPECT_FALSE(PlanGemm(256, 4'096, 4'160, 4'096, {}, {}).halves) << "an odd number of chunks";
  EXPECT_FALSE(PlanGemm(256, 6'144, 4'096, 6'144, {}, {}).halves) << "a CTA for each tile";
  GemmPlan plan = PlanGemm(256, 4'096, 4'096, 4'096, {}, {});
  plan.remote_ctas = 3;
  EXPECT_FALSE(CanHalve(4'096, 4'096, plan));
}

TEST(PlanGemmTest, ALargeWindowTakesMoreCtas) {
  const GemmPlan narrow = PlanGemm(8, 8'192, 8'192, 0, {}, {.window_bytes = 128'000});
  const GemmPlan wide = PlanGemm(8, 8'192, 8'192, 0, {}, {.window_bytes = 512'000});
  EXPECT_LT(narrow.remote_ctas, wide.remote_ctas);
}

TEST(PlanGemmTest, SmallShapesUseNoMoreCtasThanTheyHaveWork) {
  const GemmPlan plan = PlanGemm(8, 64, 64, 64, {}, {});
  EXPECT_EQ(plan.local_ctas, 1u);
  EXPECT_EQ(plan.remote_ctas, 0u);
}

}  // namespace
}  // namespace dak::kernels

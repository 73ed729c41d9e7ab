#include "kernels/prefill_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace dak::kernels {
namespace {

PrefillPlan RandomPlan(std::mt19937_64& random, DeviceTraits* device, uint64_t* n, uint64_t* local_rows) {
  const bool small = random() % 2 == 0;
  *n = 1 + random() % (small ? 700 : 30'000);
  const uint64_t k = 8 * (1 + random() % (small ? 40 : 3'000));
  *local_rows = random() % 4 == 0 ? 0 : random() % 4 == 0 ? *n : random() % (*n + 1);
  const auto batch = static_cast<uint32_t>(1 + random() % kMaxPrefillBatch);
  device->multiprocessors = static_cast<uint32_t>(random() % 2 == 0 ? 132 : 1 + random() % 140);
  return PlanPrefill(batch, *n, k, *local_rows, *device, {});
}

TEST(PlanPrefillTest, EveryShapeGetsClustersAndFetchersThatFitTheDevice) {
  std::mt19937_64 random(20261125);
  for (int i = 0; i < 5'000; ++i) {
    DeviceTraits device;
    uint64_t n = 0;
    uint64_t local_rows = 0;
    const PrefillPlan plan = RandomPlan(random, &device, &n, &local_rows);
    ASSERT_GE(plan.clusters, 1u);
    ASSERT_LE(plan.clusters, plan.layout.Items());
    ASSERT_EQ(plan.fetchers == 0, local_rows == n);
    ASSERT_EQ(plan.fetchers % kPrefillClusterCtas, 0u);
    ASSERT_LE(plan.fetchers, kMaxPrefillFetchers);
    if (device.multiprocessors >= 4) {
      ASSERT_LE(plan.clusters * kPrefillClusterCtas + plan.fetchers, device.multiprocessors);
    }
  }
}

TEST(PlanPrefillTest, EveryGroupFitsInTheRing) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 2'000; ++i) {
    DeviceTraits device;
    uint64_t n = 0;
    uint64_t local_rows = 0;
    const PrefillPlan plan = RandomPlan(random, &device, &n, &local_rows);
    for (uint32_t group = 0; group < plan.layout.Groups(); ++group) {
      ASSERT_LE(uint64_t{PrefillGroup(plan.layout, group).count} * plan.layout.k_chunks, kPrefillRingSlots);
    }
  }
}

TEST(PlanPrefillTest, TheLargestKThatCheckGemmTakesFits) {
  const PrefillPlan plan = PlanPrefill(8'192, 4'096, kMaxPrefillRemoteK, 0, {}, {});
  for (uint32_t group = 0; group < plan.layout.Groups(); ++group) {
    EXPECT_LE(uint64_t{PrefillGroup(plan.layout, group).count} * plan.layout.k_chunks, kPrefillRingSlots);
  }
}

TEST(PlanPrefillTest, WideTilesForLargeShapesAndNarrowOnesWhereSmsWouldIdle) {
  EXPECT_EQ(PlanPrefill(2'048, 4'096, 4'096, 4'096, {}, {}).layout.row_boxes, 4u);
  EXPECT_EQ(PlanPrefill(4'096, 28'672, 4'096, 28'672, {}, {}).layout.row_boxes, 4u);
  EXPECT_EQ(PlanPrefill(512, 4'096, 4'096, 4'096, {}, {}).layout.row_boxes, 2u);
}

TEST(PlanPrefillTest, ALinkThatHidesTakesMoreFetchersThanAFewRows) {
  EXPECT_EQ(PlanPrefill(2'048, 4'096, 4'096, 3'520, {}, {}).fetchers, 4u);
  EXPECT_EQ(PlanPrefill(2'048, 28'672, 4'096, 28'608, {}, {}).fetchers, 2u);
}

TEST(PlanPrefillTest, SlowFetchersAreAsManyAsTheTraitsAllow) {
  for (uint32_t most = 2; most <= kMaxPrefillFetchers; most += 2) {
    PrefillTraits traits;
    traits.fetcher_bytes_per_s = 1e9;
    traits.most_fetchers = most;
    const PrefillPlan plan = PlanPrefillTile(4, 2'048, 4'096, 4'096, 3'520, {}, {}, traits);
    EXPECT_EQ(plan.fetchers, most);
    EXPECT_EQ(plan.clusters, 66 - most / 2);
  }
}

TEST(PlanPrefillTest, TheFirstWaveIsLocalWhereTheOthersHaveRoom) {
  const PrefillPlan plan = PlanPrefill(2'048, 4'096, 4'096, 3'584, {}, {});
  EXPECT_EQ(plan.layout.first_remote_tile, 8u);  // 64 clusters, 8 pairs
  const PrefillPlan all_remote = PlanPrefill(2'048, 4'096, 4'096, 0, {}, {});
  EXPECT_EQ(all_remote.layout.first_remote_tile, 0u);
}

TEST(PlanPrefillTest, XIsKeptInL2WhereItFits) {
  EXPECT_TRUE(PlanPrefill(2'048, 4'096, 4'096, 4'096, {}, {}).keep_x);
  EXPECT_FALSE(PlanPrefill(4'096, 4'096, 14'336, 4'096, {}, {}).keep_x);
}

// ---- The layout -----------------------------------------------------------------------------------------------------

TEST(PrefillLayoutTest, EveryBoxIsInOneTile) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 1'000; ++i) {
    DeviceTraits device;
    uint64_t n = 0;
    uint64_t local_rows = 0;
    const PrefillLayout layout = RandomPlan(random, &device, &n, &local_rows).layout;
    std::vector<uint32_t> local(layout.local_boxes);
    std::vector<uint32_t> remote(layout.remote_boxes);
    ASSERT_EQ(local.size(), DivideUp(local_rows, kBoxRows));
    ASSERT_EQ(remote.size(), DivideUp(n - local_rows, kBoxRows));
    for (uint32_t number = 0; number < layout.tiles; ++number) {
      const PrefillTile tile = layout.Tile(number);
      ASSERT_LE(tile.remote, tile.count);
      ASSERT_LE(tile.count, layout.row_boxes);
      for (uint32_t j = 0; j < tile.count; ++j) {
        ASSERT_EQ(tile.At(j).remote, j < tile.remote);
        ++(tile.At(j).remote ? remote : local).at(tile.At(j).index);
      }
    }
    ASSERT_EQ(std::count(local.begin(), local.end(), 1u), static_cast<std::ptrdiff_t>(local.size()));
    ASSERT_EQ(std::count(remote.begin(), remote.end(), 1u), static_cast<std::ptrdiff_t>(remote.size()));
  }
}

TEST(PrefillLayoutTest, SequenceNumbersAreAllDifferentAndFollowTheGroupsColumns) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 200; ++i) {
    DeviceTraits device;
    uint64_t n = 0;
    uint64_t local_rows = 0;
    const PrefillLayout layout = RandomPlan(random, &device, &n, &local_rows).layout;
    if (layout.RemoteChunks() > 200'000) continue;
    std::vector<bool> seen(layout.RemoteChunks());
    for (uint32_t number = 0; number < layout.tiles; ++number) {
      const PrefillGroup group(layout, number / layout.group_tiles);
      for (uint32_t j = 0; j < layout.Tile(number).remote; ++j) {
        const uint32_t box = layout.Tile(number).At(j).index;
        for (uint32_t chunk = 0; chunk < layout.k_chunks; ++chunk) {
          const uint64_t sequence = group.Of(box, chunk);
          ASSERT_LT(sequence, seen.size());
          ASSERT_FALSE(seen[sequence]);
          seen[sequence] = true;
          // What the fetchers make of the number.
          ASSERT_EQ((sequence - group.begin) / group.count, chunk);
          ASSERT_EQ((sequence - group.begin) % group.count + group.first, box);
        }
      }
    }
    ASSERT_EQ(std::count(seen.begin(), seen.end(), true), static_cast<std::ptrdiff_t>(seen.size()));
  }
}

TEST(PrefillLayoutTest, RemoteBoxesAreDealtOutEvenlyBehindTheFirstRemoteTile) {
  PrefillLayout layout;
  layout.row_boxes = 4;
  layout.tiles = 16;
  layout.local_boxes = 54;
  layout.remote_boxes = 10;
  layout.first_remote_tile = 8;
  for (uint32_t tile = 0; tile < 8; ++tile) EXPECT_EQ(layout.Tile(tile).remote, 0u);
  for (uint32_t tile = 8; tile < 16; ++tile) {
    EXPECT_GE(layout.Tile(tile).remote, 1u);
    EXPECT_LE(layout.Tile(tile).remote, 2u);
  }
}

}  // namespace
}  // namespace dak::kernels

#include "kernels/prefill_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <sstream>
#include <string>
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

TEST(PlanPrefillTest, AFewRowsTakeFewerFetchersThanAsManyAsHide) {
  EXPECT_EQ(PlanPrefill(2'048, 4'096, 4'096, 3'520, {}, {}).fetchers, 4u);
  EXPECT_EQ(PlanPrefill(2'048, 28'672, 4'096, 28'608, {}, {}).fetchers, 2u);
}

TEST(PlanPrefillTest, SlowFetchersAreAsManyAsTheTraitsAllow) {
  for (uint32_t most = 2; most <= kMaxPrefillFetchers; most += 2) {
    PrefillTraits traits;
    traits.fetcher_bytes_per_s = 1;
    traits.most_fetchers = most;
    const PrefillPlan plan = PlanPrefillTile(4, 2'048, 4'096, 4'096, 3'520, {}, {}, traits);
    EXPECT_EQ(plan.fetchers, most);
    EXPECT_EQ(plan.clusters, 66 - most / 2);
  }
}

TEST(PlanPrefillTest, FetchersHaveABoxOfTheExpectedWindowEach) {
  for (const uint32_t boxes : {0u, 2u, 4u, 6u, 32u}) {
    LinkTraits link;
    link.window_bytes = boxes * double{kBoxBytes};
    const PrefillTraits traits{.most_fetchers = kMaxPrefillFetchers};
    const uint32_t fetchers = PlanPrefill(2'048, 28'672, 4'096, 24'832, {}, link, traits).fetchers;
    EXPECT_EQ(fetchers, std::clamp(boxes, 2u, 6u)) << boxes;
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

// ---- Against measurements -------------------------------------------------------------------------------------------

// Rows of `dak-bench prefill --tune` on an H100: docs/results/2026-11-25-h100-prefill (batch 2048, two to eight
// fetchers) and docs/results/2026-11-25-h100-kernels (run 2, batch 4096, two and four).
struct MeasuredRow {
  const char* shape;
  uint32_t batch;
  uint64_t n;
  uint64_t k;
  uint64_t local_rows;
  uint32_t most_fetchers;  // that were measured
  const char* us_by_plan;  // rows of a tile, fetchers, and k where x is kept
};

constexpr MeasuredRow kMeasured[] = {
    {"8b.qkv", 2048, 6144, 4096, 6144, 8, "128f0 181.1 128f0k 180.3 256f0 136.6 256f0k 136.1"},
    {"8b.qkv", 2048, 6144, 4096, 5312, 8,
     "128f2 324.7 128f4 187.5 128f6 221.6 128f8 242.9 128f2k 323.6 128f4k 186.0 128f6k 223.3 128f8k 240.0 "
     "256f2 333.2 256f4 176.6 256f6 177.4 256f8 194.8 256f2k 333.7 256f4k 175.8 256f6k 177.2 256f8k 190.6"},
    {"8b.o", 2048, 4096, 4096, 4096, 8, "128f0 127.2 128f0k 128.4 256f0 93.8 256f0k 92.3"},
    {"8b.o", 2048, 4096, 4096, 3584, 8,
     "128f2 213.4 128f4 127.4 128f6 158.3 128f8 162.5 128f2k 204.3 128f4k 126.8 128f6k 156.6 128f8k 163.3 "
     "256f2 210.6 256f4 113.7 256f6 136.8 256f8 139.6 256f2k 211.7 256f4k 113.7 256f6k 132.4 256f8k 139.9"},
    {"8b.gate_up", 2048, 28672, 4096, 28672, 8, "128f0 834.7 128f0k 831.1 256f0 624.2 256f0k 622.8"},
    {"8b.gate_up", 2048, 28672, 4096, 24832, 8,
     "128f2 1444.7 128f4 848.4 128f6 932.9 128f8 1004.4 128f2k 1417.7 128f4k 845.4 128f6k 926.6 128f8k "
     "1010.3 256f2 1435.1 256f4 739.1 256f6 705.2 256f8 771.7 256f2k 1460.9 256f4k 741.8 256f6k 702.5 "
     "256f8k 766.8"},
    {"8b.down", 2048, 4096, 14336, 4096, 8, "128f0 412.5 128f0k 419.7 256f0 304.6 256f0k 303.9"},
    {"8b.down", 2048, 4096, 14336, 3584, 8,
     "128f2 687.0 128f4 424.6 128f6 515.2 128f8 528.1 128f2k 693.3 128f4k 421.9 128f6k 510.1 128f8k 531.5 "
     "256f2 716.0 256f4 369.0 256f6 441.5 256f8 434.8 256f2k 712.3 256f4k 368.2 256f6k 443.7 256f8k 432.5"},
    {"8b.qkv", 4096, 6144, 4096, 6144, 4, "128f0 369.6 128f0k 373.0 256f0 269.8 256f0k 269.2"},
    {"8b.qkv", 4096, 6144, 4096, 4544, 4,
     "128f4 381.4 128f2 609.5 128f4k 379.2 128f2k 636.9 256f4 321.8 256f2 643.5 256f4k 321.9 256f2k 634.6"},
    {"8b.o", 4096, 4096, 4096, 4096, 4, "128f0 262.0 128f0k 252.6 256f0 182.0 256f0k 181.8"},
    {"8b.o", 4096, 4096, 4096, 3008, 4,
     "128f4 259.6 128f2 424.5 128f4k 258.0 128f2k 432.3 256f4 226.5 256f2 437.7 256f4k 226.3 256f2k 429.1"},
    {"8b.gate_up", 4096, 28672, 4096, 28672, 4, "128f0 1690.8 128f0k 1683.8 256f0 1245.0 256f0k 1246.1"},
    {"8b.gate_up", 4096, 28672, 4096, 21056, 4,
     "128f4 1763.6 128f2 2848.6 128f4k 1733.1 128f2k 2832.7 256f4 1464.8 256f2 2904.9 256f4k 1454.7 256f2k "
     "2909.0"},
    {"8b.down", 4096, 4096, 14336, 4096, 4, "128f0 839.8 128f0k 838.9 256f0 607.4 256f0k 606.5"},
    {"8b.down", 4096, 4096, 14336, 3072, 4,
     "128f4 917.6 128f2 1362.4 128f4k 865.9 128f2k 1391.0 256f4 718.7 256f2 1395.9 256f4k 716.5 256f2k "
     "1401.3"},
};

std::map<std::string, double> ParseTimes(const char* us_by_plan) {
  std::map<std::string, double> times;
  std::istringstream stream(us_by_plan);
  std::string name;
  for (double us = 0; stream >> name >> us;) times[name] = us;
  return times;
}

std::string NameOf(const PrefillPlan& plan) {
  return std::to_string(plan.layout.row_boxes * kBoxRows) + "f" + std::to_string(plan.fetchers) +
         (plan.keep_x ? "k" : "");
}

PrefillTraits TraitsOf(const MeasuredRow& row) {
  PrefillTraits traits;
  traits.most_fetchers = row.most_fetchers;
  return traits;
}

PrefillPlan PlanOf(const MeasuredRow& row) {
  return PlanPrefill(row.batch, row.n, row.k, row.local_rows, {}, {}, TraitsOf(row));
}

TEST(PlanPrefillTest, NoMeasuredPlanIsMuchFasterThanTheChosenOne) {
  for (const MeasuredRow& row : kMeasured) {
    double best_us = std::numeric_limits<double>::infinity();
    const std::map<std::string, double> times = ParseTimes(row.us_by_plan);
    for (const auto& [name, us] : times) best_us = std::min(best_us, us);
    const std::string chosen = NameOf(PlanOf(row));
    ASSERT_EQ(times.count(chosen), 1u) << row.shape << " " << row.batch << ": " << chosen;
    EXPECT_LE(times.at(chosen), 1.03 * best_us) << row.shape << " " << row.batch << ": " << chosen;
  }
}

TEST(PlanPrefillTest, NoMeasuredNumberOfFetchersIsMuchFasterThanTheChosenOneWithAnyTile) {
  for (const MeasuredRow& row : kMeasured) {
    const std::map<std::string, double> times = ParseTimes(row.us_by_plan);
    for (const uint32_t row_boxes : {2u, 4u}) {
      PrefillPlan plan = PlanPrefillTile(row_boxes, row.batch, row.n, row.k, row.local_rows, {}, {}, TraitsOf(row));
      for (const bool keep_x : {false, true}) {
        plan.keep_x = keep_x;
        const std::string chosen = NameOf(plan);
        ASSERT_EQ(times.count(chosen), 1u) << row.shape << " " << row.batch << ": " << chosen;
        PrefillPlan other = plan;
        for (other.fetchers = 0; other.fetchers <= row.most_fetchers; other.fetchers += kPrefillClusterCtas) {
          const auto time = times.find(NameOf(other));
          if (time == times.end()) continue;
          EXPECT_LE(times.at(chosen), 1.03 * time->second) << row.shape << " " << row.batch << ": " << chosen;
        }
      }
    }
  }
}

TEST(PlanPrefillTest, TheModelsSecondsAreNearTheMeasuredOnes) {
  for (const MeasuredRow& row : kMeasured) {
    const PrefillPlan plan = PlanOf(row);
    const double measured_us = ParseTimes(row.us_by_plan).at(NameOf(plan));
    const double us = ModelPrefillSeconds(plan, {}, {}) * 1e6;
    EXPECT_NEAR(us / measured_us, 1, 0.08) << row.shape << " " << row.batch << ": " << NameOf(plan);
  }
}

TEST(PlanPrefillTest, SixFetchersWhereTheWavesAllowThemAndTheTraits) {
  const PrefillTraits traits{.most_fetchers = kMaxPrefillFetchers};
  EXPECT_EQ(PlanPrefill(2'048, 28'672, 4'096, 24'832, {}, {}, traits).fetchers, 6u);  // 15 waves rather than 14
  EXPECT_EQ(PlanPrefill(2'048, 4'096, 4'096, 3'584, {}, {}, traits).fetchers, 4u);    // it would be 3 rather than 2
  EXPECT_EQ(PlanPrefill(2'048, 28'672, 4'096, 14'336, {}, {}, traits).fetchers, 6u);  // the link's time alone
  EXPECT_EQ(PlanPrefill(2'048, 28'672, 4'096, 14'336, {}, {}).fetchers, 4u);
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

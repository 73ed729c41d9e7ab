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

constexpr double kFastLink = 80e9;  // which four fetchers don't fill

TEST(PlanPrefillTest, FetchersHaveABoxOfTheExpectedWindowEach) {
  for (const uint32_t boxes : {0u, 2u, 4u, 6u, 32u}) {
    LinkTraits link;
    link.bytes_per_s = kFastLink;
    link.window_bytes = boxes * double{kBoxBytes};
    const PrefillTraits traits{.most_fetchers = kMaxPrefillFetchers};
    const uint32_t fetchers = PlanPrefill(2'048, 28'672, 4'096, 23'040, {}, link, traits).fetchers;
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

// Rows of `dak-bench prefill --tune` on an H100, all in HBM, at 0.8 of the edge and at it:
// docs/results/2026-11-25-h100-epilogue, prefill_tune.
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
    {"8b.qkv", 2048, 6144, 4096, 6144, 8, "128f0 181.5 128f0k 181.7 256f0 135.8 256f0k 135.5"},
    {"8b.qkv", 2048, 6144, 4096, 5504, 8,
     "128f2 204.7 128f4 189.6 128f6 214.1 128f8 215.1 128f2k 205.6 128f4k 191.0 128f6k 218.1 128f8k 215.4 "
     "256f2 212.5 256f4 139.7 256f6 178.2 256f8 175.0 256f2k 209.7 256f4k 138.5 256f6k 173.3 256f8k 173.7"},
    {"8b.qkv", 2048, 6144, 4096, 5312, 8,
     "128f2 291.2 128f4 187.9 128f6 221.9 128f8 217.2 128f2k 265.3 128f4k 186.9 128f6k 215.5 128f8k 222.7 "
     "256f2 267.8 256f4 150.3 256f6 178.1 256f8 175.7 256f2k 267.7 256f4k 149.8 256f6k 178.3 256f8k 175.7"},
    {"8b.o", 2048, 4096, 4096, 4096, 8, "128f0 132.1 128f0k 127.7 256f0 92.0 256f0k 91.7"},
    {"8b.o", 2048, 4096, 4096, 3648, 8,
     "128f2 149.7 128f4 130.9 128f6 157.1 128f8 154.9 128f2k 146.6 128f4k 128.5 128f6k 157.0 128f8k 155.9 "
     "256f2 150.2 256f4 93.9 256f6 136.7 256f8 132.5 256f2k 149.8 256f4k 93.5 256f6k 131.4 256f8k 130.3"},
    {"8b.o", 2048, 4096, 4096, 3584, 8,
     "128f2 173.1 128f4 128.0 128f6 158.2 128f8 155.1 128f2k 166.6 128f4k 126.0 128f6k 160.7 128f8k 157.1 "
     "256f2 170.1 256f4 97.9 256f6 132.3 256f8 131.8 256f2k 169.7 256f4k 97.8 256f6k 132.9 256f8k 131.0"},
    {"8b.gate_up", 2048, 28672, 4096, 28672, 8, "128f0 836.1 128f0k 831.8 256f0 622.3 256f0k 620.2"},
    {"8b.gate_up", 2048, 28672, 4096, 25600, 8,
     "128f2 961.8 128f4 843.7 128f6 869.1 128f8 863.1 128f2k 963.7 128f4k 840.4 128f6k 857.4 128f8k 889.9 "
     "256f2 952.8 256f4 632.5 256f6 662.0 256f8 661.0 256f2k 950.3 256f4k 628.7 256f6k 661.7 256f8k 659.5"},
    {"8b.gate_up", 2048, 28672, 4096, 24832, 8,
     "128f2 1187.1 128f4 843.9 128f6 872.4 128f8 882.4 128f2k 1159.9 128f4k 846.8 128f6k 865.0 128f8k 879.8 "
     "256f2 1158.3 256f4 648.9 256f6 672.3 256f8 663.8 256f2k 1185.8 256f4k 646.0 256f6k 672.3 256f8k 659.9"},
    {"8b.down", 2048, 4096, 14336, 4096, 8, "128f0 421.1 128f0k 412.8 256f0 304.5 256f0k 303.4"},
    {"8b.down", 2048, 4096, 14336, 3712, 8,
     "128f2 422.0 128f4 427.8 128f6 522.4 128f8 516.7 128f2k 419.1 128f4k 425.5 128f6k 512.2 128f8k 512.7 "
     "256f2 436.7 256f4 310.3 256f6 432.1 256f8 433.3 256f2k 434.7 256f4k 309.6 256f6k 440.2 256f8k 430.0"},
    {"8b.down", 2048, 4096, 14336, 3584, 8,
     "128f2 557.3 128f4 424.8 128f6 511.9 128f8 514.0 128f2k 558.9 128f4k 423.6 128f6k 518.2 128f8k 516.6 "
     "256f2 572.6 256f4 310.7 256f6 439.4 256f8 441.6 256f2k 570.3 256f4k 309.7 256f6k 437.9 256f8k 439.6"},
    {"8b.qkv", 4096, 6144, 4096, 6144, 8, "128f0 371.3 128f0k 373.1 256f0 270.3 256f0k 270.0"},
    {"8b.qkv", 4096, 6144, 4096, 4800, 8,
     "128f2 436.7 128f4 380.8 128f6 418.0 128f8 411.7 128f2k 426.7 128f4k 391.2 128f6k 417.3 128f8k 405.1 "
     "256f2 440.4 256f4 281.2 256f6 320.1 256f8 318.8 256f2k 433.4 256f4k 280.1 256f6k 316.2 256f8k 316.1"},
    {"8b.qkv", 4096, 6144, 4096, 4480, 8,
     "128f2 519.5 128f4 381.3 128f6 412.5 128f8 411.1 128f2k 532.3 128f4k 378.4 128f6k 428.9 128f8k 412.0 "
     "256f2 530.6 256f4 285.5 256f6 316.7 256f8 321.3 256f2k 525.7 256f4k 283.4 256f6k 327.2 256f8k 324.7"},
    {"8b.o", 4096, 4096, 4096, 4096, 8, "128f0 261.8 128f0k 254.2 256f0 182.7 256f0k 182.2"},
    {"8b.o", 4096, 4096, 4096, 3200, 8,
     "128f2 294.0 128f4 260.1 128f6 282.6 128f8 286.4 128f2k 286.5 128f4k 259.0 128f6k 283.1 128f8k 282.7 "
     "256f2 289.7 256f4 190.1 256f6 229.0 256f8 232.0 256f2k 300.6 256f4k 189.4 256f6k 239.7 256f8k 230.5"},
    {"8b.o", 4096, 4096, 4096, 3008, 8,
     "128f2 367.3 128f4 258.9 128f6 289.6 128f8 289.8 128f2k 344.7 128f4k 255.7 128f6k 315.2 128f8k 290.5 "
     "256f2 357.0 256f4 190.8 256f6 234.0 256f8 241.9 256f2k 362.7 256f4k 191.3 256f6k 237.4 256f8k 234.8"},
    {"8b.gate_up", 4096, 28672, 4096, 28672, 8, "128f0 1704.8 128f0k 1694.7 256f0 1247.2 256f0k 1242.2"},
    {"8b.gate_up", 4096, 28672, 4096, 22464, 8,
     "128f2 1942.2 128f4 1737.7 128f6 1761.5 128f8 1775.8 128f2k 1929.3 128f4k 1733.8 128f6k 1754.0 "
     "128f8k 1774.7 256f2 1899.9 256f4 1289.8 256f6 1322.6 256f8 1319.8 256f2k 1904.6 256f4k 1284.1 "
     "256f6k 1319.4 256f8k 1315.2"},
    {"8b.gate_up", 4096, 28672, 4096, 20928, 8,
     "128f2 2383.2 128f4 1742.0 128f6 1763.6 128f8 1784.7 128f2k 2372.8 128f4k 1737.0 128f6k 1758.4 "
     "128f8k 1781.3 256f2 2359.6 256f4 1302.0 256f6 1374.6 256f8 1333.1 256f2k 2359.7 256f4k 1298.5 "
     "256f6k 1373.1 256f8k 1327.6"},
    {"8b.down", 4096, 4096, 14336, 4096, 8, "128f0 855.3 128f0k 841.6 256f0 612.3 256f0k 611.1"},
    {"8b.down", 4096, 4096, 14336, 3264, 8,
     "128f2 923.1 128f4 903.0 128f6 1002.7 128f8 999.7 128f2k 927.3 128f4k 895.6 128f6k 982.2 128f8k 1005.8 "
     "256f2 924.0 256f4 631.2 256f6 771.8 256f8 775.0 256f2k 915.6 256f4k 629.2 256f6k 767.3 256f8k 768.5"},
    {"8b.down", 4096, 4096, 14336, 3008, 8,
     "128f2 1184.0 128f4 911.3 128f6 961.0 128f8 957.4 128f2k 1182.3 128f4k 867.6 128f6k 958.6 128f8k 958.3 "
     "256f2 1200.3 256f4 640.8 256f6 777.8 256f8 782.2 256f2k 1187.4 256f4k 638.6 256f6k 778.4 256f8k 775.6"},
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

TEST(PlanPrefillTest, SixFetchersWhereTheLinkTheWavesAndTheTraitsAllowThem) {
  const PrefillTraits traits{.most_fetchers = kMaxPrefillFetchers};
  const LinkTraits fast{.bytes_per_s = kFastLink};
  EXPECT_EQ(PlanPrefill(2'048, 28'672, 4'096, 24'832, {}, {}, traits).fetchers, 4u);    // the link is full
  EXPECT_EQ(PlanPrefill(2'048, 28'672, 4'096, 23'040, {}, fast, traits).fetchers, 6u);  // 15 waves rather than 14
  EXPECT_EQ(PlanPrefill(2'048, 4'096, 4'096, 3'456, {}, fast, traits).fetchers, 4u);    // it would be 3 rather than 2
  EXPECT_EQ(PlanPrefill(2'048, 28'672, 4'096, 14'336, {}, fast, traits).fetchers, 6u);  // the link's time alone
  EXPECT_EQ(PlanPrefill(2'048, 28'672, 4'096, 14'336, {}, fast).fetchers, 4u);
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

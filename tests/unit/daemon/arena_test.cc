#include "daemon/session/arena.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "allocator/device/emulated_device.h"
#include "allocator/ledger.h"
#include "daemon/session/limits.h"

namespace dak::daemon {
namespace {

constexpr uint64_t kGranule = kGranuleBytes;

class ArenaTest : public testing::Test {
 protected:
  OwnedSegment Make(uint64_t id, uint64_t bytes) {
    return {.id = id, .memory = *device_.CreateSegment(Tier::kHbm, bytes)};
  }
  static TensorPart Part(uint64_t bytes) {
    TensorPart part;
    part.bytes = bytes;
    return part;
  }
  EmulatedDevice device_{EmulatedDeviceOptions{}};
  Arena arena_;
};

TEST_F(ArenaTest, PlacesNothingWithoutSegments) {
  TensorPart part = Part(1);
  EXPECT_FALSE(arena_.Place(part));
}

TEST_F(ArenaTest, PlacesInBlocksAndNeverAcrossSegments) {
  arena_.AddSegment(Make(1, kGranule));
  arena_.AddSegment(Make(2, kGranule));
  TensorPart large = Part(kGranule + 1);
  EXPECT_FALSE(arena_.Place(large));
  TensorPart a = Part(1), b = Part(kBlockBytes), c = Part(kGranule);
  ASSERT_TRUE(arena_.Place(a) && arena_.Place(b) && arena_.Place(c));
  EXPECT_EQ(a.segment_id, 1u);
  EXPECT_EQ(b.segment_id, 1u);
  EXPECT_EQ(b.offset_bytes, kBlockBytes);
  EXPECT_EQ(c.segment_id, 2u);
  EXPECT_EQ(c.offset_bytes, 0u);
}

TEST_F(ArenaTest, SegmentLeavesWithItsLastPart) {
  arena_.AddSegment(Make(1, kGranule));
  TensorPart a = Part(100), b = Part(100);
  ASSERT_TRUE(arena_.Place(a) && arena_.Place(b));
  EXPECT_FALSE(arena_.Free(a).has_value());
  const std::optional<OwnedSegment> last = arena_.Free(b);
  ASSERT_TRUE(last.has_value());
  EXPECT_EQ(last->id, 1u);
  EXPECT_EQ(arena_.segment_count(), 0u);
  EXPECT_EQ(arena_.segment_bytes(), 0u);
  EXPECT_EQ(arena_.extents().stats().capacity, 0u);
}

// Against a map of what is live: no two parts overlap, segments leave exactly when they are empty.
TEST_F(ArenaTest, RandomUseMatchesAModel) {
  std::mt19937_64 random(7);
  std::map<std::pair<uint64_t, uint64_t>, TensorPart> live;  // by segment and offset
  uint64_t next_id = 1;
  for (int step = 0; step < 20'000; ++step) {
    if (random() % 2 == 0 || live.empty()) {
      TensorPart part = Part(1 + random() % (kGranule / 2));
      if (!arena_.Place(part)) {
        arena_.AddSegment(Make(next_id++, kGranule));
        ASSERT_TRUE(arena_.Place(part));
      }
      const auto [it, inserted] = live.emplace(std::pair(part.segment_id, part.offset_bytes), part);
      ASSERT_TRUE(inserted);
      ASSERT_LE(part.offset_bytes + part.bytes, kGranule);
      if (auto next = std::next(it); next != live.end() && next->first.first == part.segment_id) {
        ASSERT_LE(part.offset_bytes + part.bytes, next->second.offset_bytes);
      }
      if (it != live.begin() && std::prev(it)->first.first == part.segment_id) {
        ASSERT_LE(std::prev(it)->second.offset_bytes + std::prev(it)->second.bytes, part.offset_bytes);
      }
    } else {
      const auto victim = std::next(live.begin(), static_cast<long>(random() % live.size()));
      const TensorPart part = victim->second;
      live.erase(victim);
      const auto it = live.lower_bound({part.segment_id, 0});
      const bool was_last = it == live.end() || it->first.first != part.segment_id;
      const std::optional<OwnedSegment> left = arena_.Free(part);
      ASSERT_EQ(left.has_value(), was_last);
      ASSERT_TRUE(!was_last || left->id == part.segment_id);
    }
    ASSERT_EQ(device_.used_bytes(Tier::kHbm), arena_.segment_bytes());
    while (live.size() > 300) {
      arena_.Free(live.begin()->second);
      live.erase(live.begin());
    }
  }
  EXPECT_TRUE(arena_.extents().CheckInvariants().ok());
}

}  // namespace
}  // namespace dak::daemon

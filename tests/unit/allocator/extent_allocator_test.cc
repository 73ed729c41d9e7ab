#include "allocator/extent_allocator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace dak {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();

std::string Message(const absl::Status& status) { return std::string(status.message()); }

class ExtentAllocatorTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(allocator_.CheckInvariants(), absl::OkStatus()); }

  // The offset of a new extent; the test fails if there is none.
  uint64_t Allocate(uint64_t length) {
    absl::StatusOr<Extent> extent = allocator_.Allocate(length);
    EXPECT_TRUE(extent.ok()) << extent.status();
    if (!extent.ok()) return kMost;
    EXPECT_EQ(extent->length, length);
    return extent->offset;
  }
  // Expects `status` to have this code, and to have changed nothing.
  void ExpectRefused(const absl::Status& status, absl::StatusCode code, const ExtentAllocator::Stats& before) {
    EXPECT_EQ(status.code(), code) << status;
    const ExtentAllocator::Stats after = allocator_.stats();
    EXPECT_EQ(after.capacity, before.capacity);
    EXPECT_EQ(after.free, before.free);
    EXPECT_EQ(after.largest_free, before.largest_free);
    EXPECT_EQ(after.live_extents, before.live_extents);
    EXPECT_EQ(after.free_extents, before.free_extents);
    EXPECT_EQ(after.ranges, before.ranges);
    EXPECT_EQ(allocator_.CheckInvariants(), absl::OkStatus());
  }

  ExtentAllocator allocator_;
};

TEST_F(ExtentAllocatorTest, StartsEmpty) {
  const auto stats = allocator_.stats();
  EXPECT_EQ(stats.capacity + stats.free + stats.largest_free + stats.live_extents + stats.free_extents + stats.ranges,
            0u);
  EXPECT_EQ(stats.fragmentation(), 0.0);
  ExpectRefused(allocator_.Allocate(1).status(), absl::StatusCode::kResourceExhausted, stats);
  ExpectRefused(allocator_.Free(0), absl::StatusCode::kNotFound, stats);
}

TEST_F(ExtentAllocatorTest, TakesTheSmallestThatFits) {
  ASSERT_TRUE(allocator_.AddRange({0, 50}).ok());
  ASSERT_TRUE(allocator_.AddRange({100, 8}).ok());
  ASSERT_TRUE(allocator_.AddRange({200, 10}).ok());
  EXPECT_EQ(Allocate(9), 200u);
  EXPECT_EQ(Allocate(8), 100u);
  EXPECT_EQ(Allocate(8), 0u);
  EXPECT_EQ(Allocate(1), 209u);
}

TEST_F(ExtentAllocatorTest, TakesTheLowestOfEquals) {
  ASSERT_TRUE(allocator_.AddRange({300, 4}).ok());
  ASSERT_TRUE(allocator_.AddRange({100, 4}).ok());
  ASSERT_TRUE(allocator_.AddRange({200, 4}).ok());
  EXPECT_EQ(Allocate(3), 100u);
  EXPECT_EQ(Allocate(4), 200u);
  EXPECT_EQ(Allocate(2), 300u);
}

TEST_F(ExtentAllocatorTest, MergesWithBothNeighbours) {
  ASSERT_TRUE(allocator_.AddRange({10, 30}).ok());
  const uint64_t a = Allocate(10), b = Allocate(10), c = Allocate(10);
  EXPECT_EQ(allocator_.stats().free_extents, 0u);
  ASSERT_TRUE(allocator_.Free(a).ok());
  ASSERT_TRUE(allocator_.Free(c).ok());
  EXPECT_EQ(allocator_.stats().free_extents, 2u);
  EXPECT_DOUBLE_EQ(allocator_.stats().fragmentation(), 0.5);
  ASSERT_TRUE(allocator_.Free(b).ok());
  EXPECT_EQ(allocator_.stats().free_extents, 1u);
  EXPECT_EQ(allocator_.stats().largest_free, 30u);
  EXPECT_EQ(Allocate(30), 10u);
}

TEST_F(ExtentAllocatorTest, MergesWithOneNeighbour) {
  ASSERT_TRUE(allocator_.AddRange({0, 40}).ok());
  const uint64_t a = Allocate(10), b = Allocate(10), c = Allocate(10), d = Allocate(10);
  ASSERT_TRUE(allocator_.Free(a).ok());
  ASSERT_TRUE(allocator_.Free(b).ok());  // with the one before
  EXPECT_EQ(allocator_.stats().largest_free, 20u);
  ASSERT_TRUE(allocator_.Free(d).ok());
  EXPECT_EQ(allocator_.stats().free_extents, 2u);
  EXPECT_EQ(Allocate(10), d);
  ASSERT_TRUE(allocator_.Free(d).ok());
  ASSERT_TRUE(allocator_.Free(c).ok());  // with both, to the whole
  EXPECT_EQ(allocator_.stats().largest_free, 40u);
}

TEST_F(ExtentAllocatorTest, NeverMergesAcrossRanges) {
  ASSERT_TRUE(allocator_.AddRange({0, 10}).ok());
  ASSERT_TRUE(allocator_.AddRange({10, 10}).ok());
  const uint64_t a = Allocate(10), b = Allocate(10);
  ASSERT_TRUE(allocator_.Free(a).ok());
  ASSERT_TRUE(allocator_.Free(b).ok());
  EXPECT_EQ(allocator_.stats().free_extents, 2u);
  EXPECT_EQ(allocator_.stats().largest_free, 10u);
  ExpectRefused(allocator_.Allocate(11).status(), absl::StatusCode::kResourceExhausted, allocator_.stats());
}

TEST_F(ExtentAllocatorTest, NamesTheShortfall) {
  ASSERT_TRUE(allocator_.AddRange({0, 10}).ok());
  Allocate(4);
  const absl::Status status = allocator_.Allocate(9).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(status), HasSubstr("largest free extent has 6, 3 too few"));
  ExpectRefused(allocator_.Allocate(kMost).status(), absl::StatusCode::kResourceExhausted, allocator_.stats());
}

TEST_F(ExtentAllocatorTest, RefusesAnEmptyExtent) {
  ASSERT_TRUE(allocator_.AddRange({0, 10}).ok());
  ExpectRefused(allocator_.Allocate(0).status(), absl::StatusCode::kInvalidArgument, allocator_.stats());
}

TEST_F(ExtentAllocatorTest, RefusesToFreeWhatIsNotLive) {
  ASSERT_TRUE(allocator_.AddRange({100, 10}).ok());
  const uint64_t a = Allocate(4);
  const auto before = allocator_.stats();
  ExpectRefused(allocator_.Free(a + 1), absl::StatusCode::kNotFound, before);  // inside of a live one
  ExpectRefused(allocator_.Free(104), absl::StatusCode::kNotFound, before);    // start of a free one
  ExpectRefused(allocator_.Free(99), absl::StatusCode::kNotFound, before);     // before the range
  ExpectRefused(allocator_.Free(110), absl::StatusCode::kNotFound, before);    // after it
  ExpectRefused(allocator_.Free(kMost), absl::StatusCode::kNotFound, before);
  // A distance whose low 32 bits are those of a live extent.
  ExpectRefused(allocator_.Free(a + (uint64_t{1} << 32)), absl::StatusCode::kNotFound, before);
  ASSERT_TRUE(allocator_.Free(a).ok());
  ExpectRefused(allocator_.Free(a), absl::StatusCode::kNotFound, allocator_.stats());  // twice
}

TEST_F(ExtentAllocatorTest, RefusesBadRanges) {
  ASSERT_TRUE(allocator_.AddRange({100, 10}).ok());
  const auto before = allocator_.stats();
  const std::vector<std::pair<Extent, std::string>> bad = {
      {{0, 0}, "empty"},
      {{100, 10}, "overlaps"},
      {{99, 2}, "overlaps"},
      {{109, 1}, "overlaps"},
      {{90, 30}, "overlaps"},
      {{102, 3}, "overlaps"},
      {{0, ExtentAllocator::kMostRangeUnits + 1}, "longer than 2147483647"},
      {{0, kMost}, "longer than"},
      {{kMost - 4, 5}, "ends past 64 bits"},
      {{kMost, 1}, "ends past 64 bits"},
  };
  for (const auto& [range, problem] : bad) {
    const absl::Status status = allocator_.AddRange(range);
    ExpectRefused(status, absl::StatusCode::kInvalidArgument, before);
    EXPECT_THAT(Message(status), HasSubstr(problem)) << range.offset << " " << range.length;
  }
}

TEST_F(ExtentAllocatorTest, TakesRangesAtTheEndsOfWhatIsCounted) {
  ASSERT_TRUE(allocator_.AddRange({kMost - 4, 4}).ok());
  ASSERT_TRUE(allocator_.AddRange({0, ExtentAllocator::kMostRangeUnits}).ok());
  EXPECT_EQ(Allocate(4), kMost - 4);
  EXPECT_EQ(Allocate(ExtentAllocator::kMostRangeUnits - 1), 0u);
  EXPECT_EQ(Allocate(1), ExtentAllocator::kMostRangeUnits - 1);
  ASSERT_TRUE(allocator_.Free(ExtentAllocator::kMostRangeUnits - 1).ok());
  ASSERT_TRUE(allocator_.Free(0).ok());
  ASSERT_TRUE(allocator_.Free(kMost - 4).ok());
  EXPECT_EQ(allocator_.stats().free, allocator_.stats().capacity);
  EXPECT_EQ(allocator_.stats().free_extents, 2u);
}

TEST_F(ExtentAllocatorTest, RemovesOnlyAFreeRange) {
  ASSERT_TRUE(allocator_.AddRange({0, 10}).ok());
  ASSERT_TRUE(allocator_.AddRange({10, 10}).ok());
  const uint64_t a = Allocate(10);
  ASSERT_EQ(a, 0u);
  EXPECT_FALSE(allocator_.RangeIsFree(0));
  EXPECT_TRUE(allocator_.RangeIsFree(10));
  EXPECT_FALSE(allocator_.RangeIsFree(5));
  EXPECT_FALSE(allocator_.RangeIsFree(20));
  ExpectRefused(allocator_.RemoveRange(0), absl::StatusCode::kFailedPrecondition, allocator_.stats());
  ExpectRefused(allocator_.RemoveRange(5), absl::StatusCode::kNotFound, allocator_.stats());
  ASSERT_TRUE(allocator_.RemoveRange(10).ok());
  ExpectRefused(allocator_.RemoveRange(10), absl::StatusCode::kNotFound, allocator_.stats());
  EXPECT_EQ(allocator_.stats().capacity, 10u);
  EXPECT_EQ(allocator_.stats().free, 0u);
  ASSERT_TRUE(allocator_.Free(a).ok());
  ASSERT_TRUE(allocator_.RemoveRange(0).ok());
  EXPECT_EQ(allocator_.stats().capacity, 0u);
  ExpectRefused(allocator_.Allocate(1).status(), absl::StatusCode::kResourceExhausted, allocator_.stats());
}

TEST_F(ExtentAllocatorTest, ARangeIsNotFreeWhileAnyPartIsLive) {
  ASSERT_TRUE(allocator_.AddRange({0, 10}).ok());
  const uint64_t a = Allocate(3), b = Allocate(3);
  ASSERT_TRUE(allocator_.Free(a).ok());
  EXPECT_FALSE(allocator_.RangeIsFree(0));  // its first extent is free, though
  ASSERT_TRUE(allocator_.Free(b).ok());
  EXPECT_TRUE(allocator_.RangeIsFree(0));
}

TEST_F(ExtentAllocatorTest, ARemovedRangeCanBeAddedAgain) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(allocator_.AddRange({uint64_t{1} << 40, 6}).ok());
    ASSERT_TRUE(allocator_.Free(Allocate(2)).ok());
    ASSERT_TRUE(allocator_.RemoveRange(uint64_t{1} << 40).ok());
  }
}

TEST_F(ExtentAllocatorTest, MovesWithAllItHolds) {
  ASSERT_TRUE(allocator_.AddRange({0, 10}).ok());
  const uint64_t a = Allocate(3);
  ExtentAllocator other = std::move(allocator_);
  EXPECT_EQ(other.stats().live_extents, 1u);
  EXPECT_TRUE(other.Free(a).ok());
  EXPECT_EQ(other.CheckInvariants(), absl::OkStatus());
  allocator_ = std::move(other);
  EXPECT_EQ(allocator_.stats().largest_free, 10u);
}

TEST_F(ExtentAllocatorTest, ReportsFragmentation) {
  ASSERT_TRUE(allocator_.AddRange({0, 100}).ok());
  std::vector<uint64_t> live;
  for (int i = 0; i < 10; ++i) live.push_back(Allocate(10));
  for (int i = 0; i < 10; i += 2) ASSERT_TRUE(allocator_.Free(live[i]).ok());
  EXPECT_EQ(allocator_.stats().free, 50u);
  EXPECT_EQ(allocator_.stats().largest_free, 10u);
  EXPECT_DOUBLE_EQ(allocator_.stats().fragmentation(), 0.8);
}

}  // namespace
}  // namespace dak

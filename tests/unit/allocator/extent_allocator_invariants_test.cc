// Breaks an ExtentAllocator from within, one thing at a time: CheckInvariants must name each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "allocator/extent_allocator.h"
#include "allocator/extent_allocator_rep.h"

namespace dak {

class ExtentAllocatorPeer {
 public:
  using Rep = ExtentAllocator::Rep;
  static Rep& RepOf(ExtentAllocator& allocator) { return *allocator.rep_; }
};

namespace {

using ::testing::HasSubstr;
using Rep = ExtentAllocatorPeer::Rep;

struct Damage {
  const char* name;
  const char* expected;
  std::function<void(Rep&)> inflict;
};

Rep::Range& First(Rep& rep) { return *rep.ranges.begin()->second; }

// Ranges [0, 100) and [100, 150). In the first: live [0, 10), free [10, 20), live [20, 30), free [30, 100).
ExtentAllocator MakeSound() {
  ExtentAllocator allocator;
  EXPECT_TRUE(allocator.AddRange({0, 100}).ok());
  EXPECT_TRUE(allocator.Allocate(10).ok());
  EXPECT_TRUE(allocator.Allocate(10).ok());
  EXPECT_TRUE(allocator.Allocate(10).ok());
  EXPECT_TRUE(allocator.Free(10).ok());
  EXPECT_TRUE(allocator.AddRange({100, 50}).ok());
  EXPECT_EQ(allocator.CheckInvariants(), absl::OkStatus());
  return allocator;
}

class CheckInvariantsTest : public ::testing::TestWithParam<Damage> {};

TEST_P(CheckInvariantsTest, NamesWhatIsBroken) {
  ExtentAllocator allocator = MakeSound();
  GetParam().inflict(ExtentAllocatorPeer::RepOf(allocator));
  const absl::Status status = allocator.CheckInvariants();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(
    Damages, CheckInvariantsTest,
    ::testing::Values(Damage{"Capacity", "capacity isn't the sum", [](Rep& rep) { ++rep.capacity; }},
                      Damage{"Free", "free isn't the sum", [](Rep& rep) { --rep.free; }},
                      Damage{"Extents", "number of extents", [](Rep& rep) { ++rep.extents; }},
                      Damage{"StraySize", "holds something that isn't free",
                             [](Rep& rep) { rep.by_size.Insert(MakeSizeKey(10, 20), {}); }},
                      Damage{"LostSize", "isn't in the order of sizes at 10",
                             [](Rep& rep) { rep.by_size.Erase(MakeSizeKey(10, 10)); }},
                      Damage{"WrongSize", "isn't in the order of sizes at 30",
                             [](Rep& rep) {
                               rep.by_size.Erase(MakeSizeKey(70, 30));
                               rep.by_size.Insert(MakeSizeKey(60, 30), {});
                             }},
                      Damage{"TouchingFree", "two free extents touch at 20",
                             [](Rep& rep) {
                               First(rep).starts.Find(MakeStartKey(20, false)).Retag(MakeStartKey(20, true));
                               rep.by_size.Insert(MakeSizeKey(10, 20), {});
                             }},
                      Damage{"NoFirstExtent", "no extent is at the start",
                             [](Rep& rep) { First(rep).starts.Erase(MakeStartKey(0, false)); }},
                      Damage{"NoExtent", "no extent is at the start",
                             [](Rep& rep) {
                               Rep::Range& last = *rep.ranges.rbegin()->second;
                               last.starts.Erase(MakeStartKey(0, true));
                             }},
                      Damage{"PastTheEnd", "passes its range",
                             [](Rep& rep) { First(rep).starts.Insert(MakeStartKey(100, false), {}); }},
                      Damage{"ShorterRange", "passes its range", [](Rep& rep) { First(rep).length = 30; }},
                      Damage{"EmptyRange", "out of bounds", [](Rep& rep) { First(rep).length = 0; }},
                      Damage{"LongRange", "out of bounds",
                             [](Rep& rep) { First(rep).length = ExtentAllocator::kMostRangeUnits + 1; }},
                      Damage{"OverlappingRanges", "overlaps the one before",
                             [](Rep& rep) {
                               First(rep).length = 101;
                               rep.by_size.Erase(MakeSizeKey(70, 30));
                               rep.by_size.Insert(MakeSizeKey(71, 30), {});
                             }},
                      Damage{"MisplacedRange", "under another offset", [](Rep& rep) { First(rep).offset = 1; }},
                      Damage{"UnsortedStarts", "keys are out of order",
                             [](Rep& rep) { First(rep).starts.First().Next().Retag(MakeStartKey(25, true)); }},
                      Damage{"UnsortedSizes", "by size: keys are out of order",
                             [](Rep& rep) { rep.by_size.First().Retag(MakeSizeKey(60, 0)); }}),
    [](const ::testing::TestParamInfo<Damage>& param) { return param.param.name; });

}  // namespace
}  // namespace dak

// Conformance: bytes that move between tiers, by copies and by other memory behind the same addresses.
#include <algorithm>
#include <limits>
#include <tuple>

#include "tests/unit/device/conformance.h"

namespace dak {
namespace {

using ::testing::Each;
using ::testing::Eq;

using MoveParam = std::tuple<std::string, Tier, Tier>;

class DeviceMoveTest : public TierFixture, public ::testing::WithParamInterface<MoveParam> {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(Open(device_case())); }
  const DeviceCase& device_case() const { return FindDeviceCase(std::get<0>(GetParam())); }
  Tier from() const { return std::get<1>(GetParam()); }
  Tier to() const { return std::get<2>(GetParam()); }
  ExportedHandle Exported(const Segment& segment) { return device_->Export(segment, Access::kReadWrite).value(); }
};

TEST_P(DeviceMoveTest, CopiesARangeAndNothingElse) {
  auto source_segment = Create(from());
  auto target_segment = Create(to());
  auto source = Map(*source_segment, Access::kReadOnly);
  auto target = Map(*target_segment, Access::kReadWrite);
  auto writer = Map(*source_segment, Access::kReadWrite);
  ASSERT_NE(source, nullptr);
  ASSERT_NE(target, nullptr);
  ASSERT_NE(writer, nullptr);
  const std::vector<std::byte> sent = Pattern(1'000'001, 21);
  ASSERT_THAT(device_->Upload(*writer, 77, sent), IsOk());
  // Across the border of two granules, at an odd offset.
  const uint64_t offset = kDeviceGranuleBytes - 4'321;
  ASSERT_THAT(device_->Copy(*source, 77, *target, offset, sent.size()), IsOk());
  EXPECT_EQ(Read(*target, offset, sent.size()), sent);
  EXPECT_THAT(Read(*target, offset - 64, 64), Each(Eq(std::byte{0})));
  EXPECT_THAT(Read(*target, offset + sent.size(), 64), Each(Eq(std::byte{0})));
  EXPECT_EQ(Read(*source, 77, sent.size()), sent);
}

TEST_P(DeviceMoveTest, CopiesAreBoundedAndNeedAWritableTarget) {
  auto source_segment = Create(from());
  auto target_segment = Create(to());
  auto source = Map(*source_segment, Access::kReadWrite);
  auto target = Map(*target_segment, Access::kReadWrite);
  auto reader = Map(*target_segment, Access::kReadOnly);
  ASSERT_NE(reader, nullptr);
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  for (uint64_t offset : {kBytes - 1, kBytes, kBytes + 1, kMax}) {
    absl::Status status = device_->Copy(*source, offset, *target, 0, 2);
    EXPECT_THAT(status, Fails(absl::StatusCode::kOutOfRange, "OUT_OF_RANGE")) << offset;
    EXPECT_EQ(DetailOf(status).field, "source_offset_bytes");
    status = device_->Copy(*source, 0, *target, offset, 2);
    EXPECT_THAT(status, Fails(absl::StatusCode::kOutOfRange, "OUT_OF_RANGE")) << offset;
    EXPECT_EQ(DetailOf(status).field, "target_offset_bytes");
  }
  EXPECT_THAT(device_->Copy(*source, kBytes, *target, kBytes, 0), IsOk());
  EXPECT_THAT(device_->Copy(*source, 0, *reader, 0, 2), Fails(absl::StatusCode::kFailedPrecondition, "READ_ONLY"));
}

TEST_P(DeviceMoveTest, OtherMemoryTakesTheSameAddresses) {
  auto old_segment = Create(from());
  auto new_segment = Create(to());
  if (old_segment->kind() != new_segment->kind()) GTEST_SKIP() << "the driver can't map memfds";
  auto mapping = Map(*old_segment, Access::kReadWrite);
  auto other = Map(*new_segment, Access::kReadWrite);
  ASSERT_NE(mapping, nullptr);
  ASSERT_NE(other, nullptr);
  const std::vector<std::byte> old_bytes = Pattern(5'000, 22);
  const std::vector<std::byte> new_bytes = Pattern(5'000, 23);
  ASSERT_THAT(device_->Upload(*mapping, 100, old_bytes), IsOk());
  ASSERT_THAT(device_->Upload(*other, 100, new_bytes), IsOk());
  const uint64_t address = mapping->address();
  const absl::Status replaced = device_->Replace(*mapping, Exported(*new_segment));
  if (old_segment->kind() == HandleKind::kMemfd && device_->description().kind == "cuda") {
    EXPECT_THAT(replaced, Fails(absl::StatusCode::kFailedPrecondition, "DEVICE_UNSUPPORTED"));
    EXPECT_EQ(Read(*mapping, 100, old_bytes.size()), old_bytes);
    return;
  }
  ASSERT_THAT(replaced, IsOk());
  EXPECT_EQ(mapping->address(), address);
  EXPECT_EQ(mapping->tier(), to());
  EXPECT_EQ(mapping->bytes(), kBytes);
  EXPECT_EQ(Read(*mapping, 100, new_bytes.size()), new_bytes);
  // What is written now goes to the new memory.
  ASSERT_THAT(device_->Upload(*mapping, kBytes - 3, Pattern(3, 24)), IsOk());
  EXPECT_EQ(Read(*other, kBytes - 3, 3), Pattern(3, 24));
  // And back, with the old bytes still there.
  ASSERT_THAT(device_->Replace(*mapping, Exported(*old_segment)), IsOk());
  EXPECT_EQ(mapping->address(), address);
  EXPECT_EQ(mapping->tier(), from());
  EXPECT_EQ(Read(*mapping, 100, old_bytes.size()), old_bytes);
}

TEST_P(DeviceMoveTest, AReplacedMappingKeepsItsAccess) {
  auto old_segment = Create(from());
  auto new_segment = Create(to());
  auto mapping = Map(*old_segment, Access::kReadOnly);
  ASSERT_NE(mapping, nullptr);
  const absl::Status replaced = device_->Replace(*mapping, Exported(*new_segment));
  if (absl::IsFailedPrecondition(replaced)) GTEST_SKIP() << replaced;
  ASSERT_THAT(replaced, IsOk());
  EXPECT_EQ(mapping->access(), Access::kReadOnly);
  EXPECT_THAT(device_->Upload(*mapping, 0, Pattern(4, 1)), Fails(absl::StatusCode::kFailedPrecondition, "READ_ONLY"));
}

TEST_P(DeviceMoveTest, AReplacementOfAnotherSizeIsRefusedAndItsDescriptorClosed) {
  auto old_segment = Create(from());
  auto new_segment = Create(to(), kDeviceGranuleBytes);
  auto mapping = Map(*old_segment, Access::kReadWrite);
  ASSERT_NE(mapping, nullptr);
  const std::vector<std::byte> sent = Pattern(1'000, 25);
  ASSERT_THAT(device_->Upload(*mapping, 0, sent), IsOk());
  const int before = OpenDescriptors();
  EXPECT_THAT(device_->Replace(*mapping, Exported(*new_segment)),
              Fails(absl::StatusCode::kInvalidArgument, "SIZE_MISMATCH"));
  EXPECT_EQ(OpenDescriptors(), before);
  EXPECT_EQ(Read(*mapping, 0, sent.size()), sent);
  EXPECT_EQ(mapping->tier(), from());
}

TEST_P(DeviceMoveTest, SynchronizeWaitsForNothingWhereNothingRuns) { EXPECT_THAT(device_->Synchronize(), IsOk()); }

std::vector<MoveParam> AllMoveParams() {
  std::vector<MoveParam> params;
  for (const DeviceCase& device_case : DeviceCases()) {
    for (Tier from : device_case.tiers) {
      for (Tier to : device_case.tiers) params.emplace_back(device_case.name, from, to);
    }
  }
  return params;
}

std::string ParamName(const ::testing::TestParamInfo<MoveParam>& param) {
  return std::get<0>(param.param) + "_" + TierName(std::get<1>(param.param)) + "_" + TierName(std::get<2>(param.param));
}

INSTANTIATE_TEST_SUITE_P(All, DeviceMoveTest, ::testing::ValuesIn(AllMoveParams()), ParamName);

}  // namespace
}  // namespace dak

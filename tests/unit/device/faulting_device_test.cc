#include "allocator/device/testing/faulting_device.h"

#include <memory>
#include <vector>

#include "allocator/device/device_checks.h"
#include "gtest/gtest.h"
#include "tests/unit/device/conformance.h"

namespace dak {
namespace {

using Method = FaultingDevice::Method;

std::unique_ptr<FaultingDevice> MakeDevice() {
  DeviceOptions options;
  options.kind = DeviceOptions::Kind::kEmulated;
  return std::make_unique<FaultingDevice>(OpenDevice(options).value());
}

// Every method once, on objects that were made without faults.
std::vector<absl::Status> CallAll(FaultingDevice& device) {
  std::unique_ptr<Segment> segment = device.inner().CreateSegment(Tier::kHbm, kDeviceGranuleBytes).value();
  std::unique_ptr<Mapping> mapping =
      device.inner().Map(device.inner().Export(*segment, Access::kReadWrite).value(), Access::kReadWrite).value();
  std::unique_ptr<Mapping> other =
      device.inner().Map(device.inner().Export(*segment, Access::kReadWrite).value(), Access::kReadWrite).value();
  const TensorMapSpec spec{.rows = 64, .cols = 64};
  const TensorMap map = device.inner().EncodeTensorMap(spec, 0).value();
  std::byte byte{1};
  UniqueFd page_fd;
  UniqueFd other_page_fd;
  auto page = device.inner().CreateSharedPage(kSharedPageGranuleBytes, &page_fd).value();
  return {device.GetTier(Tier::kHbm).status(),
          device.CreateSegment(Tier::kHbm, kDeviceGranuleBytes).status(),
          device.Export(*segment, Access::kReadOnly).status(),
          device.Map(device.inner().Export(*segment, Access::kReadOnly).value(), Access::kReadOnly).status(),
          device.Upload(*mapping, 0, {&byte, 1}),
          device.Download(*mapping, 0, {&byte, 1}),
          device.Copy(*mapping, 0, *other, 0, 1),
          device.Replace(*other, device.inner().Export(*segment, Access::kReadWrite).value()),
          device.Synchronize(),
          device.EncodeTensorMap(spec, 0).status(),
          device.RebaseTensorMap(map, 128).status(),
          device.CreateSharedPage(kSharedPageGranuleBytes, &other_page_fd).status(),
          device.MapSharedPage(std::move(page_fd), kSharedPageGranuleBytes, Access::kReadOnly).status()};
}

TEST(FaultingDeviceTest, PassesEverythingOnUnlessTold) {
  auto device = MakeDevice();
  for (const absl::Status& status : CallAll(*device)) EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(device->description().kind, "emulated");
  EXPECT_FALSE(device->fired());
}

TEST(FaultingDeviceTest, FailsExactlyTheMethodThatWasChosen) {
  for (size_t chosen = 0; chosen < FaultingDevice::kMethodCount; ++chosen) {
    auto device = MakeDevice();
    device->FailNth(static_cast<Method>(chosen), 1, absl::DataLossError("injected"));
    const std::vector<absl::Status> statuses = CallAll(*device);
    ASSERT_EQ(statuses.size(), FaultingDevice::kMethodCount);
    for (size_t i = 0; i < statuses.size(); ++i) {
      EXPECT_EQ(statuses[i].code(), i == chosen ? absl::StatusCode::kDataLoss : absl::StatusCode::kOk) << chosen << i;
    }
    EXPECT_TRUE(device->fired());
    EXPECT_EQ(device->calls(static_cast<Method>(chosen)), 1);
  }
}

TEST(FaultingDeviceTest, CountsFromTheOrderAndFailsOnce) {
  auto device = MakeDevice();
  ASSERT_TRUE(device->GetTier(Tier::kHbm).ok());
  device->FailNth(Method::kGetTier, 2, absl::InternalError("injected"));
  EXPECT_TRUE(device->GetTier(Tier::kHbm).ok());
  EXPECT_EQ(device->GetTier(Tier::kHbm).status(), absl::InternalError("injected"));
  EXPECT_TRUE(device->GetTier(Tier::kHbm).ok());
  EXPECT_EQ(device->calls(Method::kGetTier), 4);
}

TEST(FaultingDeviceTest, AnOrderCanBeCancelled) {
  auto device = MakeDevice();
  device->FailNth(Method::kGetTier, 1, absl::InternalError("injected"));
  device->FailNth(Method::kGetTier, 0, absl::OkStatus());
  EXPECT_TRUE(device->GetTier(Tier::kHbm).ok());
}

TEST(FaultingDeviceTest, WalksThroughEveryCallOfAnOperation) {
  uint64_t failures = 0;
  for (uint64_t n = 1;; ++n) {
    auto device = MakeDevice();
    device->FailNthOfAny(n, absl::InternalError("injected"));
    int failed = 0;
    for (const absl::Status& status : CallAll(*device)) failed += status.ok() ? 0 : 1;
    EXPECT_EQ(failed, device->fired() ? 1 : 0);
    if (!device->fired()) break;
    ++failures;
  }
  EXPECT_EQ(failures, FaultingDevice::kMethodCount);
}

TEST(FaultingDeviceTest, AFailedMapClosesTheDescriptor) {
  auto device = MakeDevice();
  auto segment = device->CreateSegment(Tier::kHost, kDeviceGranuleBytes).value();
  const int before = OpenDescriptors();
  device->FailNth(Method::kMap, 1, absl::InternalError("injected"));
  EXPECT_FALSE(device->Map(device->Export(*segment, Access::kReadOnly).value(), Access::kReadOnly).ok());
  EXPECT_EQ(OpenDescriptors(), before);
}

}  // namespace
}  // namespace dak

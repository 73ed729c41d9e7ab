// Fixture and helpers of the conformance suite: what every Device must do, on every tier.
#ifndef DAK_TESTS_UNIT_DEVICE_CONFORMANCE_H_
#define DAK_TESTS_UNIT_DEVICE_CONFORMANCE_H_

#include <memory>
#include <string>
#include <vector>

#include "allocator/base/error_detail.h"
#include "allocator/device/device.h"
#include "allocator/device/device_checks.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/device/device_case.h"

namespace dak {

MATCHER(IsOk, "") {
  *result_listener << arg;
  return arg.ok();
}

MATCHER_P2(Fails, code, reason, "") {
  *result_listener << arg << " with reason " << DetailOf(arg).reason;
  return arg.code() == code && DetailOf(arg).reason == std::string(reason);
}

// A device and two granules of one tier, mapped read-write.
class TierFixture : public ::testing::Test {
 protected:
  static constexpr uint64_t kBytes = 2 * kDeviceGranuleBytes;

  void Open(const DeviceCase& device_case) {
    absl::StatusOr<std::unique_ptr<Device>> device = device_case.open();
    ASSERT_THAT(device.status(), IsOk());
    device_ = *std::move(device);
  }
  std::unique_ptr<Segment> Create(Tier tier, uint64_t bytes = kBytes) {
    absl::StatusOr<std::unique_ptr<Segment>> segment = device_->CreateSegment(tier, bytes);
    EXPECT_THAT(segment.status(), IsOk());
    return segment.ok() ? *std::move(segment) : nullptr;
  }
  std::unique_ptr<Mapping> Map(const Segment& segment, Access access) {
    absl::StatusOr<ExportedHandle> handle = device_->Export(segment, access);
    EXPECT_THAT(handle.status(), IsOk());
    if (!handle.ok()) return nullptr;
    absl::StatusOr<std::unique_ptr<Mapping>> mapping = device_->Map(*std::move(handle), access);
    EXPECT_THAT(mapping.status(), IsOk());
    return mapping.ok() ? *std::move(mapping) : nullptr;
  }
  std::vector<std::byte> Read(const Mapping& mapping, uint64_t offset, uint64_t size) {
    std::vector<std::byte> bytes(size, std::byte{0xEE});
    EXPECT_THAT(device_->Download(mapping, offset, absl::MakeSpan(bytes)), IsOk());
    return bytes;
  }

  std::unique_ptr<Device> device_;
};

// `size` bytes that differ from their neighbours and between seeds.
std::vector<std::byte> Pattern(uint64_t size, uint32_t seed);

// Number of descriptors open in this process.
int OpenDescriptors();

}  // namespace dak

#endif  // DAK_TESTS_UNIT_DEVICE_CONFORMANCE_H_

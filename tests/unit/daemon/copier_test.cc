// Copies between segments: every byte, progress, ends, and what is counted.
#include "daemon/session/copier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "allocator/device/emulated_device.h"
#include "allocator/device/testing/faulting_device.h"

namespace dak::daemon {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class CopierTest : public testing::Test {
 protected:
  std::unique_ptr<Segment> Make(Tier tier, uint64_t mib, int fill) {
    std::unique_ptr<Segment> segment = device_.CreateSegment(tier, mib * kMiB).value();
    std::vector<std::byte> bytes(mib * kMiB);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 + fill + (i >> 12));
    EXPECT_TRUE(device_.Upload(*Map(*segment), 0, bytes).ok());
    return segment;
  }
  std::unique_ptr<Mapping> Map(const Segment& segment) {
    return device_.Map(device_.Export(segment, Access::kReadWrite).value(), Access::kReadWrite).value();
  }
  std::vector<std::byte> Read(const Segment& segment, uint64_t offset, uint64_t size) {
    std::vector<std::byte> bytes(size);
    EXPECT_TRUE(device_.Download(*Map(segment), offset, absl::MakeSpan(bytes)).ok());
    return bytes;
  }

  FaultingDevice device_{std::make_unique<EmulatedDevice>(EmulatedDeviceOptions{})};
  CopyHooks hooks_{.check = [] { return absl::OkStatus(); }, .progress = {}};
};

TEST_F(CopierTest, CopiesEveryStepAndCountsByTier) {
  const auto hbm = Make(Tier::kHbm, 40, 1);
  const auto host = Make(Tier::kHost, 40, 2);
  const auto other = Make(Tier::kHost, 2, 3);
  // 40 MiB less a page takes several chunks; the second step stays on the host.
  const std::vector<CopyStep> steps = {{hbm.get(), 4096, host.get(), 0, 40 * kMiB - 4096},
                                       {other.get(), 0, host.get(), 40 * kMiB - 4096, 100}};
  std::vector<uint64_t> progress;
  hooks_.progress = [&](uint64_t done) { progress.push_back(done); };
  CopyStats stats;
  ASSERT_TRUE(CopyAll(device_, nullptr, steps, hooks_, &stats).ok());
  EXPECT_EQ(Read(*host, 0, 40 * kMiB - 4096), Read(*hbm, 4096, 40 * kMiB - 4096));
  EXPECT_EQ(Read(*host, 40 * kMiB - 4096, 100), Read(*other, 0, 100));
  EXPECT_EQ(TotalBytes(steps), 40 * kMiB - 4096 + 100);
  EXPECT_EQ(LinkBytes(steps), 40 * kMiB - 4096);
  EXPECT_EQ(stats.total_bytes(), TotalBytes(steps));
  EXPECT_EQ(stats.link_bytes(), LinkBytes(steps));
  EXPECT_EQ(stats.bytes[TierIndex(Tier::kHost)][TierIndex(Tier::kHost)], 100u);
  EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
  EXPECT_GT(progress.size(), 2u);
  EXPECT_EQ(progress.back(), TotalBytes(steps));
  EXPECT_THAT(Describe(stats), HasSubstr("hbm to host 41938944 bytes, host to host 100 bytes in "));
  EXPECT_EQ(Describe(CopyStats{}), "nothing to copy");
}

TEST_F(CopierTest, EndsBetweenTwoChunksWhenItIsTold) {
  const auto hbm = Make(Tier::kHbm, 64, 1);
  const auto host = Make(Tier::kHost, 64, 2);
  int checks = 0;
  hooks_.check = [&] { return ++checks < 3 ? absl::OkStatus() : absl::CancelledError("enough"); };
  CopyStats stats;
  EXPECT_EQ(CopyAll(device_, nullptr, std::vector<CopyStep>{{hbm.get(), 0, host.get(), 0, 64 * kMiB}}, hooks_, &stats),
            absl::CancelledError("enough"));
  EXPECT_GT(stats.total_bytes(), 0u);
  EXPECT_LT(stats.total_bytes(), 64 * kMiB);
}

TEST_F(CopierTest, EachSegmentIsMappedOnceAndEveryFailureIsTold) {
  const auto hbm = Make(Tier::kHbm, 2, 1);
  const auto host = Make(Tier::kHost, 2, 2);
  const std::vector<CopyStep> steps = {{hbm.get(), 0, host.get(), 0, 100}, {hbm.get(), 200, host.get(), 200, 100}};
  const uint64_t maps = device_.calls(FaultingDevice::Method::kMap);
  CopyStats stats;
  ASSERT_TRUE(CopyAll(device_, nullptr, steps, hooks_, &stats).ok());
  EXPECT_EQ(device_.calls(FaultingDevice::Method::kMap), maps + 2);
  int failures = 0;
  for (uint64_t n = 1;; ++n) {
    device_.FailNthOfAny(n, absl::InternalError("injected"));
    const absl::Status status = CopyAll(device_, nullptr, steps, hooks_, &stats);
    if (!device_.fired()) break;
    EXPECT_EQ(status, absl::InternalError("injected"));
    ++failures;
  }
  EXPECT_EQ(failures, 6);  // two segments exported and mapped, two copies
}

}  // namespace
}  // namespace dak::daemon

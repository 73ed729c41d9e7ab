// Conformance: memory of one tier, in this process and between two.
#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <limits>
#include <thread>
#include <tuple>

#include "tests/unit/device/conformance.h"
#include "tests/unit/device/peer_process.h"

namespace dak {
namespace {

using ::testing::Each;
using ::testing::ElementsAreArray;
using ::testing::Eq;

using TierParam = std::tuple<std::string, Tier>;

class DeviceTierTest : public TierFixture, public ::testing::WithParamInterface<TierParam> {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(Open(device_case())); }
  const DeviceCase& device_case() const { return FindDeviceCase(std::get<0>(GetParam())); }
  Tier tier() const { return std::get<1>(GetParam()); }
  bool IsBounded() const {
    const auto& bounded = device_case().bounded_tiers;
    return std::find(bounded.begin(), bounded.end(), tier()) != bounded.end();
  }
};

TEST_P(DeviceTierTest, SaysHowLargeItIs) {
  absl::StatusOr<Device::TierInfo> info = device_->GetTier(tier());
  ASSERT_THAT(info.status(), IsOk());
  EXPECT_GE(info->total_bytes, 2 * kBytes);
  if (IsRemote(tier())) {
    EXPECT_GE(info->numa_node, 0);
  } else {
    EXPECT_EQ(info->numa_node, -1);
  }
}

TEST_P(DeviceTierTest, ASegmentSaysWhatItIs) {
  auto segment = Create(tier());
  ASSERT_NE(segment, nullptr);
  EXPECT_EQ(segment->tier(), tier());
  EXPECT_EQ(segment->bytes(), kBytes);
  if (IsRemote(tier())) {
    EXPECT_EQ(segment->kind(), device_case().remote_kind);
  }
  absl::StatusOr<ExportedHandle> handle = device_->Export(*segment, Access::kReadWrite);
  ASSERT_THAT(handle.status(), IsOk());
  EXPECT_EQ(handle->tier, tier());
  EXPECT_EQ(handle->bytes, kBytes);
  EXPECT_EQ(handle->kind, segment->kind());
  EXPECT_TRUE(::fcntl(handle->fd.get(), F_GETFD) & FD_CLOEXEC);
}

TEST_P(DeviceTierTest, NewMemoryIsZeroAlsoWhereOldMemoryWasFreed) {
  for (int round = 0; round < 4; ++round) {
    auto segment = Create(tier());
    ASSERT_NE(segment, nullptr);
    auto mapping = Map(*segment, Access::kReadWrite);
    ASSERT_NE(mapping, nullptr);
    const std::vector<std::byte> found = Read(*mapping, 0, kBytes);
    ASSERT_TRUE(std::all_of(found.begin(), found.end(), [](std::byte b) { return b == std::byte{0}; })) << round;
    ASSERT_THAT(device_->Upload(*mapping, 0, std::vector<std::byte>(kBytes, std::byte{0xA5})), IsOk());
  }
}

TEST_P(DeviceTierTest, WhatIsUploadedIsDownloadedAndNothingElseChanges) {
  auto segment = Create(tier());
  auto mapping = Map(*segment, Access::kReadWrite);
  ASSERT_NE(mapping, nullptr);
  EXPECT_EQ(mapping->tier(), tier());
  EXPECT_EQ(mapping->bytes(), kBytes);
  EXPECT_EQ(mapping->access(), Access::kReadWrite);
  EXPECT_NE(mapping->address(), 0);
  EXPECT_EQ(mapping->address() % kSharedPageGranuleBytes, 0);
  // Across the border of two granules, at an odd offset.
  const uint64_t offset = kDeviceGranuleBytes - 1237;
  const std::vector<std::byte> sent = Pattern(5'001, 1);
  ASSERT_THAT(device_->Upload(*mapping, offset, sent), IsOk());
  EXPECT_EQ(Read(*mapping, offset, sent.size()), sent);
  EXPECT_THAT(Read(*mapping, offset - 64, 64), Each(Eq(std::byte{0})));
  EXPECT_THAT(Read(*mapping, offset + sent.size(), 64), Each(Eq(std::byte{0})));
}

TEST_P(DeviceTierTest, BoundsAreChecked) {
  auto segment = Create(tier());
  auto mapping = Map(*segment, Access::kReadWrite);
  ASSERT_NE(mapping, nullptr);
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  std::vector<std::byte> two(2, std::byte{1});
  std::vector<std::byte> none;
  for (uint64_t offset : {kBytes - 1, kBytes, kBytes + 1, kMax, kMax - 1}) {
    EXPECT_THAT(device_->Upload(*mapping, offset, two), Fails(absl::StatusCode::kOutOfRange, "OUT_OF_RANGE")) << offset;
    EXPECT_THAT(device_->Download(*mapping, offset, absl::MakeSpan(two)),
                Fails(absl::StatusCode::kOutOfRange, "OUT_OF_RANGE"))
        << offset;
  }
  EXPECT_EQ(DetailOf(device_->Upload(*mapping, kBytes, two)).field, "offset_bytes");
  EXPECT_THAT(device_->Upload(*mapping, kBytes - 2, two), IsOk());
  EXPECT_THAT(device_->Upload(*mapping, kBytes, none), IsOk());
  EXPECT_THAT(device_->Download(*mapping, kBytes, absl::MakeSpan(none)), IsOk());
  EXPECT_THAT(device_->Upload(*mapping, kBytes + 1, none), Fails(absl::StatusCode::kOutOfRange, "OUT_OF_RANGE"));
}

TEST_P(DeviceTierTest, OddSizesAreRefused) {
  for (uint64_t bytes : {uint64_t{0}, uint64_t{1}, kDeviceGranuleBytes - 1, kDeviceGranuleBytes + 4096,
                         (uint64_t{1} << 47) + kDeviceGranuleBytes, std::numeric_limits<uint64_t>::max()}) {
    const absl::Status status = device_->CreateSegment(tier(), bytes).status();
    EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE")) << bytes;
    EXPECT_EQ(DetailOf(status).field, "bytes");
  }
}

TEST_P(DeviceTierTest, MoreThanThereIsIsRefusedAndLeavesTheDeviceUsable) {
  if (!IsBounded()) GTEST_SKIP() << "asking for all of the host's memory isn't safe";
  absl::StatusOr<Device::TierInfo> info = device_->GetTier(tier());
  ASSERT_THAT(info.status(), IsOk());
  const uint64_t granules = info->total_bytes / kDeviceGranuleBytes + 1;
  const absl::Status status = device_->CreateSegment(tier(), granules * kDeviceGranuleBytes).status();
  EXPECT_THAT(status, Fails(absl::StatusCode::kResourceExhausted, "DRIVER_ERROR"));
  EXPECT_NE(Create(tier()), nullptr);
}

TEST_P(DeviceTierTest, AReadOnlyMappingRefusesUploads) {
  auto segment = Create(tier());
  auto writer = Map(*segment, Access::kReadWrite);
  auto reader = Map(*segment, Access::kReadOnly);
  ASSERT_NE(writer, nullptr);
  ASSERT_NE(reader, nullptr);
  EXPECT_EQ(reader->access(), Access::kReadOnly);
  const std::vector<std::byte> sent = Pattern(100, 2);
  EXPECT_THAT(device_->Upload(*reader, 0, sent), Fails(absl::StatusCode::kFailedPrecondition, "READ_ONLY"));
  ASSERT_THAT(device_->Upload(*writer, 4096, sent), IsOk());
  EXPECT_EQ(Read(*reader, 4096, sent.size()), sent);
}

TEST_P(DeviceTierTest, MakeReadOnlyKeepsTheBytesAndRefusesUploadsFromThenOn) {
  auto segment = Create(tier());
  auto mapping = Map(*segment, Access::kReadWrite);
  ASSERT_NE(mapping, nullptr);
  const std::vector<std::byte> sent = Pattern(100, 3);
  ASSERT_THAT(device_->Upload(*mapping, 64, sent), IsOk());
  ASSERT_THAT(mapping->MakeReadOnly(), IsOk());
  EXPECT_EQ(mapping->access(), Access::kReadOnly);
  EXPECT_THAT(mapping->MakeReadOnly(), IsOk());
  EXPECT_THAT(device_->Upload(*mapping, 64, sent), Fails(absl::StatusCode::kFailedPrecondition, "READ_ONLY"));
  EXPECT_EQ(Read(*mapping, 64, sent.size()), sent);
}

TEST_P(DeviceTierTest, TwoMappingsShareTheBytes) {
  auto segment = Create(tier());
  auto one = Map(*segment, Access::kReadWrite);
  auto other = Map(*segment, Access::kReadWrite);
  ASSERT_NE(one, nullptr);
  ASSERT_NE(other, nullptr);
  EXPECT_NE(one->address(), other->address());
  const std::vector<std::byte> sent = Pattern(1'000, 4);
  ASSERT_THAT(device_->Upload(*one, 12'345, sent), IsOk());
  EXPECT_EQ(Read(*other, 12'345, sent.size()), sent);
}

TEST_P(DeviceTierTest, TheHostPointerShowsTheSameBytes) {
  auto segment = Create(tier());
  auto mapping = Map(*segment, Access::kReadWrite);
  ASSERT_NE(mapping, nullptr);
  if (mapping->host_pointer() == nullptr) {
    // Only the GPU's own memory may be out of the CPU's reach.
    EXPECT_EQ(tier(), Tier::kHbm);
    return;
  }
  auto* bytes = static_cast<std::byte*>(mapping->host_pointer());
  const std::vector<std::byte> sent = Pattern(1'000, 5);
  ASSERT_THAT(device_->Upload(*mapping, 8'192, sent), IsOk());
  EXPECT_TRUE(std::equal(sent.begin(), sent.end(), bytes + 8'192));
  bytes[0] = std::byte{77};
  EXPECT_EQ(Read(*mapping, 0, 1)[0], std::byte{77});
}

TEST_P(DeviceTierTest, AMappingOutlivesItsSegmentAndItsDevice) {
  auto segment = Create(tier());
  auto mapping = Map(*segment, Access::kReadWrite);
  ASSERT_NE(mapping, nullptr);
  const std::vector<std::byte> sent = Pattern(1'000, 6);
  ASSERT_THAT(device_->Upload(*mapping, 0, sent), IsOk());
  segment.reset();
  EXPECT_EQ(Read(*mapping, 0, sent.size()), sent);
  auto other = Create(tier());
  device_.reset();
  mapping.reset();
  other.reset();
}

TEST_P(DeviceTierTest, AHandleThatLiesIsRefusedAndItsDescriptorClosed) {
  auto segment = Create(tier());
  auto warm_up = Map(*segment, Access::kReadOnly);
  ASSERT_NE(warm_up, nullptr);
  const int before = OpenDescriptors();
  auto exported = [&] { return device_->Export(*segment, Access::kReadWrite).value(); };
  ExportedHandle handle = exported();
  handle.bytes += kDeviceGranuleBytes;
  EXPECT_FALSE(device_->Map(std::move(handle), Access::kReadOnly).ok());
  handle = exported();
  handle.bytes = 4096;
  EXPECT_THAT(device_->Map(std::move(handle), Access::kReadOnly).status(),
              Fails(absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE"));
  handle = exported();
  handle.tier = static_cast<Tier>(9);
  EXPECT_THAT(device_->Map(std::move(handle), Access::kReadOnly).status(),
              Fails(absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE"));
  handle = exported();
  handle.kind = static_cast<HandleKind>(9);
  EXPECT_THAT(device_->Map(std::move(handle), Access::kReadOnly).status(),
              Fails(absl::StatusCode::kInvalidArgument, "BAD_HANDLE_KIND"));
  handle = exported();
  handle.fd.reset();
  EXPECT_THAT(device_->Map(std::move(handle), Access::kReadOnly).status(),
              Fails(absl::StatusCode::kInvalidArgument, "BAD_DESCRIPTOR"));
  handle = exported();
  handle.fd.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(device_->Map(std::move(handle), Access::kReadOnly).ok());
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_P(DeviceTierTest, AReadOnlyMemfdCannotBeMappedForWriting) {
  auto segment = Create(tier());
  ASSERT_NE(segment, nullptr);
  if (segment->kind() != HandleKind::kMemfd) GTEST_SKIP() << "the driver's handles don't carry access";
  ExportedHandle handle = device_->Export(*segment, Access::kReadOnly).value();
  EXPECT_EQ(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, handle.fd.get(), 0), MAP_FAILED);
  EXPECT_THAT(device_->Map(std::move(handle), Access::kReadWrite).status(),
              Fails(absl::StatusCode::kPermissionDenied, "DRIVER_ERROR"));
}

TEST_P(DeviceTierTest, ThreadsMayWorkAtOnce) {
  std::vector<std::thread> threads;
  for (uint32_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([this, seed] {
      for (uint32_t round = 0; round < 5; ++round) {
        auto segment = Create(tier(), kDeviceGranuleBytes);
        auto mapping = Map(*segment, Access::kReadWrite);
        const std::vector<std::byte> sent = Pattern(10'000, seed * 100 + round);
        EXPECT_THAT(device_->Upload(*mapping, 100, sent), IsOk());
        EXPECT_EQ(Read(*mapping, 100, sent.size()), sent);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(DeviceTierTest, AnotherProcessReadsWhatThisOneWroteAndCannotWrite) {
  PeerProcess peer(device_case().name);
  auto segment = Create(tier());
  auto mapping = Map(*segment, Access::kReadWrite);
  ASSERT_NE(mapping, nullptr);
  const std::vector<std::byte> sent = Pattern(4'000, 7);
  ASSERT_THAT(device_->Upload(*mapping, kDeviceGranuleBytes - 100, sent), IsOk());
  ASSERT_THAT(peer.Map(device_->Export(*segment, Access::kReadOnly).value(), Access::kReadOnly), IsOk());
  auto received = peer.Read(kDeviceGranuleBytes - 100, 4'000);
  ASSERT_THAT(received.status(), IsOk());
  EXPECT_EQ(*received, sent);
  EXPECT_EQ(peer.Write(0, sent).code(), absl::StatusCode::kFailedPrecondition);
  // A change made after the import is seen too: it is the same memory.
  ASSERT_THAT(device_->Upload(*mapping, 0, Pattern(64, 8)), IsOk());
  received = peer.Read(0, 64);
  ASSERT_THAT(received.status(), IsOk());
  EXPECT_EQ(*received, Pattern(64, 8));
  EXPECT_THAT(peer.Unmap(), IsOk());
}

TEST_P(DeviceTierTest, ThisProcessReadsWhatAnotherWrote) {
  PeerProcess peer(device_case().name);
  auto segment = Create(tier());
  auto mapping = Map(*segment, Access::kReadOnly);
  ASSERT_NE(mapping, nullptr);
  ASSERT_THAT(peer.Map(device_->Export(*segment, Access::kReadWrite).value(), Access::kReadWrite), IsOk());
  const std::vector<std::byte> sent = Pattern(4'000, 9);
  ASSERT_THAT(peer.Write(kDeviceGranuleBytes - 7, sent), IsOk());
  EXPECT_EQ(Read(*mapping, kDeviceGranuleBytes - 7, sent.size()), sent);
}

TEST_P(DeviceTierTest, MemoryStaysForTheImporterWhenTheExporterLetsGo) {
  PeerProcess peer(device_case().name);
  auto segment = Create(tier());
  auto mapping = Map(*segment, Access::kReadWrite);
  ASSERT_NE(mapping, nullptr);
  const std::vector<std::byte> sent = Pattern(4'000, 10);
  ASSERT_THAT(device_->Upload(*mapping, 0, sent), IsOk());
  ASSERT_THAT(peer.Map(device_->Export(*segment, Access::kReadOnly).value(), Access::kReadOnly), IsOk());
  mapping.reset();
  segment.reset();
  // What is made and filled now must not be what the importer sees.
  auto next = Create(tier());
  auto next_mapping = Map(*next, Access::kReadWrite);
  ASSERT_NE(next_mapping, nullptr);
  ASSERT_THAT(device_->Upload(*next_mapping, 0, std::vector<std::byte>(kBytes, std::byte{0xFF})), IsOk());
  auto received = peer.Read(0, 4'000);
  ASSERT_THAT(received.status(), IsOk());
  EXPECT_EQ(*received, sent);
}

TEST_P(DeviceTierTest, AnImporterThatIsKilledTakesNothingAlong) {
  PeerProcess peer(device_case().name);
  auto segment = Create(tier());
  ASSERT_NE(segment, nullptr);
  ASSERT_THAT(peer.Map(device_->Export(*segment, Access::kReadWrite).value(), Access::kReadWrite), IsOk());
  const std::vector<std::byte> sent = Pattern(4'000, 11);
  ASSERT_THAT(peer.Write(0, sent), IsOk());
  peer.Kill();
  auto mapping = Map(*segment, Access::kReadOnly);
  ASSERT_NE(mapping, nullptr);
  EXPECT_EQ(Read(*mapping, 0, sent.size()), sent);
}

std::vector<TierParam> AllTierParams() {
  std::vector<TierParam> params;
  for (const DeviceCase& device_case : DeviceCases()) {
    for (Tier tier : device_case.tiers) params.emplace_back(device_case.name, tier);
  }
  return params;
}

std::string ParamName(const ::testing::TestParamInfo<TierParam>& param) {
  return std::get<0>(param.param) + "_" + TierName(std::get<1>(param.param));
}

INSTANTIATE_TEST_SUITE_P(All, DeviceTierTest, ::testing::ValuesIn(AllTierParams()), ParamName);

}  // namespace
}  // namespace dak

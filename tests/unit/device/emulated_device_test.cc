// The conformance suite over the emulated device, and what is its own.
#include "allocator/device/emulated_device.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "allocator/device/emulated_tensor_map.h"
#include "allocator/device/memory_file.h"
#include "tests/unit/device/conformance.h"
#include "tests/unit/device/peer_process.h"

namespace dak {
namespace {

constexpr uint64_t kTierBytes = 16 * kDeviceGranuleBytes;

std::unique_ptr<Device> OpenEmulated(std::array<uint64_t, kTierCount> tier_bytes) {
  DeviceOptions options;
  options.kind = DeviceOptions::Kind::kEmulated;
  options.emulated.tier_bytes = tier_bytes;
  return OpenDevice(options).value();
}

}  // namespace

const std::vector<DeviceCase>& DeviceCases() {
  static const auto* cases = new std::vector<DeviceCase>{{"emulated",
                                                          [] {
                                                            return OpenEmulated({kTierBytes, kTierBytes, kTierBytes});
                                                          },
                                                          {Tier::kHbm, Tier::kHost, Tier::kCxl},
                                                          {},
                                                          {Tier::kHbm, Tier::kHost, Tier::kCxl},
                                                          HandleKind::kMemfd},
                                                         {"emulated_without_cxl",
                                                          [] {
                                                            return OpenEmulated({kTierBytes, kTierBytes, 0});
                                                          },
                                                          {Tier::kHbm, Tier::kHost},
                                                          {Tier::kCxl},
                                                          {Tier::kHbm, Tier::kHost},
                                                          HandleKind::kMemfd}};
  return *cases;
}

namespace {

class EmulatedDeviceTest : public ::testing::Test {
 protected:
  EmulatedDeviceOptions Options() {
    EmulatedDeviceOptions options;
    options.tier_bytes = {4 * kDeviceGranuleBytes, 2 * kDeviceGranuleBytes, 0};
    options.link.bandwidth_bytes_per_s = 123;
    return options;
  }
  EmulatedDevice device_{Options()};
};

TEST_F(EmulatedDeviceTest, DescribesTheConfiguredLink) {
  EXPECT_EQ(device_.description().kind, "emulated");
  EXPECT_EQ(device_.description().link.bandwidth_bytes_per_s, 123);
  EXPECT_EQ(device_.description().link_count(), 1);
  EXPECT_EQ(device_.description().LinkOf(Tier::kCxl), 0);
}

TEST_F(EmulatedDeviceTest, TheCxlTierMayHaveALinkOfItsOwn) {
  EmulatedDeviceOptions options = Options();
  options.cxl_link = LinkModel{.bandwidth_bytes_per_s = 45};
  const EmulatedDevice device(options);
  EXPECT_EQ(device.description().link_count(), 2);
  EXPECT_EQ(device.description().LinkOf(Tier::kHost), 0);
  EXPECT_EQ(device.description().LinkOf(Tier::kCxl), 1);
  EXPECT_EQ(device.description().link.bandwidth_bytes_per_s, 123);
  EXPECT_EQ(device.description().cxl_link->bandwidth_bytes_per_s, 45);
}

TEST_F(EmulatedDeviceTest, CountsWhatLiveSegmentsHold) {
  auto one = device_.CreateSegment(Tier::kHbm, kDeviceGranuleBytes).value();
  auto two = device_.CreateSegment(Tier::kHbm, 2 * kDeviceGranuleBytes).value();
  EXPECT_EQ(device_.used_bytes(Tier::kHbm), 3 * kDeviceGranuleBytes);
  EXPECT_EQ(device_.used_bytes(Tier::kHost), 0);
  const absl::Status refused = device_.CreateSegment(Tier::kHbm, 4 * kDeviceGranuleBytes).status();
  EXPECT_THAT(refused, Fails(absl::StatusCode::kResourceExhausted, "DRIVER_ERROR"));
  EXPECT_EQ(DetailOf(refused).shortfall_bytes, 3 * kDeviceGranuleBytes);
  EXPECT_EQ(device_.used_bytes(Tier::kHbm), 3 * kDeviceGranuleBytes);
  one.reset();
  two.reset();
  EXPECT_EQ(device_.used_bytes(Tier::kHbm), 0);
  EXPECT_TRUE(device_.CreateSegment(Tier::kHbm, 4 * kDeviceGranuleBytes).ok());
}

// While it lives, this process can't open a descriptor: every one under the limit is taken.
class NoMoreDescriptors {
 public:
  NoMoreDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit tight = before_;
    tight.rlim_cur = 1;
    ::setrlimit(RLIMIT_NOFILE, &tight);
  }
  ~NoMoreDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(EmulatedDeviceTest, GivesCapacityBackWhenTheKernelHasNoDescriptor) {
  UniqueFd fd;
  ASSERT_THAT(device_.CreateSegment(Tier::kHbm, kDeviceGranuleBytes).status(), IsOk());
  absl::Status segment_status;
  absl::Status page_status;
  {
    NoMoreDescriptors tight;
    segment_status = device_.CreateSegment(Tier::kHbm, kDeviceGranuleBytes).status();
    page_status = device_.CreateSharedPage(kSharedPageGranuleBytes, &fd).status();
  }
  EXPECT_THAT(segment_status, Fails(absl::StatusCode::kResourceExhausted, "DRIVER_ERROR"));
  EXPECT_THAT(page_status, Fails(absl::StatusCode::kResourceExhausted, "DRIVER_ERROR"));
  EXPECT_FALSE(fd.valid());
  EXPECT_EQ(device_.used_bytes(Tier::kHbm), 0);
}

TEST_F(EmulatedDeviceTest, AnExportThatFailsSaysWhichCall) {
  auto segment = device_.CreateSegment(Tier::kHbm, kDeviceGranuleBytes).value();
  for (Access access : {Access::kReadOnly, Access::kReadWrite}) {
    ASSERT_THAT(device_.Export(*segment, access).status(), IsOk());
    absl::Status status;
    {
      NoMoreDescriptors tight;
      status = device_.Export(*segment, access).status();
    }
    EXPECT_THAT(status, Fails(absl::StatusCode::kResourceExhausted, "DRIVER_ERROR"));
    EXPECT_THAT(std::string(status.message()),
                ::testing::HasSubstr(access == Access::kReadOnly ? "open(/proc/self/fd) failed" : "fcntl(F_DUPFD"));
  }
}

TEST_F(EmulatedDeviceTest, MemoryFilesHaveNoNameCannotBeResizedAndTakeNoSeals) {
  auto segment = device_.CreateSegment(Tier::kHost, kDeviceGranuleBytes).value();
  ExportedHandle handle = device_.Export(*segment, Access::kReadWrite).value();
  struct stat info {};
  ASSERT_EQ(::fstat(handle.fd.get(), &info), 0);
  EXPECT_EQ(info.st_nlink, 0);
  EXPECT_EQ(info.st_mode & 0777, 0400);
  EXPECT_NE(::ftruncate(handle.fd.get(), 0), 0);
  EXPECT_NE(::ftruncate(handle.fd.get(), 2 * kDeviceGranuleBytes), 0);
  EXPECT_NE(::fcntl(handle.fd.get(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
}

// A client is another user than the daemon as a rule; what it was given read-only must stay so.
TEST_F(EmulatedDeviceTest, AnotherUserCannotTurnAReadOnlyDescriptorIntoAWritableOne) {
  if (::getuid() != 0) GTEST_SKIP() << "needs to change its user";
  auto segment = device_.CreateSegment(Tier::kHost, kDeviceGranuleBytes).value();
  ExportedHandle handle = device_.Export(*segment, Access::kReadOnly).value();
  const std::string path = absl::StrCat("/proc/self/fd/", handle.fd.get());
  const pid_t child = ::fork();
  if (child == 0) {
    constexpr int kNobody = 65534;
    if (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0 || ::prctl(PR_SET_DUMPABLE, 1) != 0) ::_exit(2);
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) ::_exit(3);  // /proc itself must not be what refuses
    ::_exit(::open(path.c_str(), O_RDWR) < 0 && errno == EACCES ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(EmulatedDeviceTest, DescriptorsCanBeDecoded) {
  const TensorMapSpec spec{ElementType::kF32, 100, 36, 8, 32};
  auto fields = DecodeEmulatedTensorMap(device_.EncodeTensorMap(spec, 4096).value());
  ASSERT_THAT(fields.status(), IsOk());
  EXPECT_EQ(fields->element, static_cast<int>(ElementType::kF32));
  EXPECT_EQ(fields->rows, 100);
  EXPECT_EQ(fields->cols, 36);
  EXPECT_EQ(fields->row_stride_bytes, 144);
  EXPECT_EQ(fields->box_rows, 8);
  EXPECT_EQ(fields->box_cols, 32);
  EXPECT_EQ(fields->address, 4096);
  EXPECT_EQ(fields->swizzle_log2, 7);
}

TEST_F(EmulatedDeviceTest, BytesThatAreNoDescriptorAreRefused) {
  EXPECT_THAT(device_.RebaseTensorMap(TensorMap{}, 0).status(),
              Fails(absl::StatusCode::kInvalidArgument, "BAD_TENSOR_MAP"));
  const TensorMap good = device_.EncodeTensorMap({.rows = 64, .cols = 64}, 4096).value();
  // Any bit of the first fields or the reserved bytes; only changes that make another valid descriptor may pass.
  int refused = 0;
  for (size_t i = 0; i < good.bytes.size(); ++i) {
    TensorMap broken = good;
    broken.bytes[i] ^= 0xFF;
    refused += DecodeEmulatedTensorMap(broken).ok() ? 0 : 1;
  }
  EXPECT_GE(refused, 110);
}

TEST(OpenDeviceTest, RefusesCudaWhereThereIsNone) {
  DeviceOptions options;
  options.kind = DeviceOptions::Kind::kCuda;
  options.ordinal = 4'000;  // no machine has it, whether or not it has a driver
  absl::StatusOr<std::unique_ptr<Device>> device = OpenDevice(options);
  EXPECT_EQ(device.status().code(), absl::StatusCode::kNotFound) << device.status();
}

TEST(OpenDeviceTest, AutoFallsBackToEmulation) {
  DeviceOptions options;
  options.ordinal = 4'000;
  absl::StatusOr<std::unique_ptr<Device>> device = OpenDevice(options);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ((*device)->description().kind, "emulated");
}

}  // namespace
}  // namespace dak

// The conformance suite over a real GPU, with both kinds of host memory, and what only a real driver can show: that
// memory is back when its last holder is killed, and what set-up costs.
//
// Run: dak_gpu_device_test [--gtest_filter=...]. Needs one GPU and its driver; no other process should use the GPU's
// memory meanwhile.
#include <dlfcn.h>

#include <chrono>
#include <cstdio>

#include "allocator/device/cuda/cuda_device.h"
#include "tests/unit/device/conformance.h"
#include "tests/unit/device/peer_process.h"

namespace dak {
namespace {

absl::StatusOr<std::unique_ptr<Device>> OpenReal(bool host_memfd, int cxl_node) {
  DeviceOptions options;
  options.kind = DeviceOptions::Kind::kCuda;
  options.host_memfd = host_memfd;
  options.cxl_numa_node = cxl_node;
  return OpenDevice(options);
}

// Free bytes of the GPU as the driver counts them over all processes. Needs a context to have been made once.
uint64_t FreeDeviceBytes() {
  const CudaDriver& driver = *LoadCudaDriver().value();
  const auto info = reinterpret_cast<decltype(&cuMemGetInfo)>(
      ::dlsym(::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD), "cuMemGetInfo_v2"));
  SharedContext context = CudaContext::Retain(&driver, 0).value();
  ContextScope scope = ContextScope::Enter(context).value();
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  EXPECT_EQ(info(&free_bytes, &total_bytes), CUDA_SUCCESS);
  return free_bytes;
}

}  // namespace

// The host's node 0 stands in for CXL: what is tested is that the tier works, not its speed.
const std::vector<DeviceCase>& DeviceCases() {
  static const auto* cases = new std::vector<DeviceCase>{{"cuda",
                                                          [] { return OpenReal(false, 0); },
                                                          {Tier::kHbm, Tier::kHost, Tier::kCxl},
                                                          {},
                                                          {Tier::kHbm},
                                                          HandleKind::kCudaPosixFd},
                                                         {"cuda_memfd",
                                                          [] { return OpenReal(true, -1); },
                                                          {Tier::kHbm, Tier::kHost},
                                                          {Tier::kCxl},
                                                          {Tier::kHbm},
                                                          HandleKind::kMemfd}};
  return *cases;
}

namespace {

class GpuDeviceTest : public TierFixture {
 protected:
  void SetUp() override { ASSERT_NO_FATAL_FAILURE(Open(FindDeviceCase("cuda"))); }
};

TEST_F(GpuDeviceTest, IsAGpuThatTheKernelsRunOn) {
  const DeviceDescription& description = device_->description();
  std::printf("%s, sm_%d, %d SMs, uuid %s\n", description.name.c_str(), description.compute_capability,
              description.multiprocessors, description.uuid.c_str());
  EXPECT_GE(description.compute_capability, 90);
  EXPECT_GT(description.multiprocessors, 0);
}

TEST_F(GpuDeviceTest, TheCpuReachesHostMemoryThatTheDriverMade) {
  auto segment = Create(Tier::kHost);
  for (Access access : {Access::kReadWrite, Access::kReadOnly}) {
    auto mapping = Map(*segment, access);
    ASSERT_NE(mapping, nullptr);
    std::printf("host memory made by the driver, %s: %s\n", access == Access::kReadOnly ? "read-only" : "read-write",
                mapping->host_pointer() == nullptr ? "the CPU doesn't reach it" : "the CPU reaches it");
  }
  auto mapping = Map(*segment, Access::kReadWrite);
  EXPECT_NE(mapping->host_pointer(), nullptr);
}

TEST_F(GpuDeviceTest, HbmIsFreeAgainWhenTheLastHolderIsKilled) {
  constexpr uint64_t kLarge = uint64_t{1} << 30;
  PeerProcess peer("cuda");
  const uint64_t before = FreeDeviceBytes();
  auto segment = Create(Tier::kHbm, kLarge);
  ASSERT_NE(segment, nullptr);
  EXPECT_LE(FreeDeviceBytes(), before - kLarge);
  ASSERT_THAT(peer.Map(device_->Export(*segment, Access::kReadOnly).value(), Access::kReadOnly), IsOk());
  segment.reset();
  EXPECT_LE(FreeDeviceBytes(), before - kLarge);  // the importer holds it
  peer.Kill();
  // The peer's own context goes too, so more may be free than before.
  EXPECT_GE(FreeDeviceBytes(), before);
}

double SecondsOf(const std::function<void()>& action) {
  const auto start = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Prints; decides nothing.
TEST(GpuDeviceCost, PrintsWhatSetUpCosts) {
  constexpr uint64_t kGib = uint64_t{1} << 30;
  std::printf("%-12s %-5s %12s %12s %12s %12s %12s %12s\n", "device", "tier", "create s", "export s", "map s",
              "unmap s", "upload GB/s", "destroy s");
  for (const DeviceCase& device_case : DeviceCases()) {
    auto device = device_case.open().value();
    for (Tier tier : {Tier::kHbm, Tier::kHost}) {
      std::unique_ptr<Segment> segment;
      ExportedHandle handle;
      std::unique_ptr<Mapping> mapping;
      const std::vector<std::byte> bytes(kGib, std::byte{1});
      const double create = SecondsOf([&] { segment = device->CreateSegment(tier, kGib).value(); });
      const double exporting = SecondsOf([&] { handle = device->Export(*segment, Access::kReadWrite).value(); });
      const double map = SecondsOf([&] { mapping = device->Map(std::move(handle), Access::kReadWrite).value(); });
      const double upload = SecondsOf([&] { EXPECT_THAT(device->Upload(*mapping, 0, bytes), IsOk()); });
      const double unmap = SecondsOf([&] { mapping.reset(); });
      const double destroy = SecondsOf([&] { segment.reset(); });
      std::printf("%-12s %-5s %12.6f %12.6f %12.6f %12.6f %12.2f %12.6f\n", device_case.name.c_str(), TierName(tier),
                  create, exporting, map, unmap, static_cast<double>(kGib) / 1e9 / upload, destroy);
    }
  }
}

}  // namespace
}  // namespace dak

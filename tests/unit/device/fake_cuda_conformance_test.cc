// The conformance suite over the cuda device on a driver without a GPU. After each test, nothing may be left in the
// driver and none of its rules may have been broken.
#include "allocator/device/cuda/cuda_device.h"
#include "tests/unit/device/conformance.h"
#include "tests/unit/device/fake_cuda.h"
#include "tests/unit/device/node_tree.h"

namespace dak {
namespace {

FakeCuda& Fake() {
  static auto* fake = new FakeCuda();
  return *fake;
}

absl::StatusOr<std::unique_ptr<Device>> OpenFake(bool host_memfd, int cxl_node) {
  static NodeTree nodes({1 << 20});
  DeviceOptions options;
  options.host_memfd = host_memfd;
  options.cxl_numa_node = cxl_node;
  return CudaDevice::Open(Fake().table(), options, nodes.root());
}

class LeakListener : public ::testing::EmptyTestEventListener {
  void OnTestEnd(const ::testing::TestInfo&) override {
    EXPECT_EQ(Fake().live(), FakeCudaLive{});
    EXPECT_THAT(Fake().breaches(), ::testing::IsEmpty());
  }
};

[[maybe_unused]] const bool kListening = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new LeakListener);
  return true;
}();

}  // namespace

const std::vector<DeviceCase>& DeviceCases() {
  static const auto* cases = new std::vector<DeviceCase>{{"fake_cuda",
                                                          [] { return OpenFake(false, 0); },
                                                          {Tier::kHbm, Tier::kHost, Tier::kCxl},
                                                          {},
                                                          {Tier::kHbm},
                                                          HandleKind::kCudaPosixFd},
                                                         {"fake_cuda_memfd",
                                                          [] { return OpenFake(true, -1); },
                                                          {Tier::kHbm, Tier::kHost},
                                                          {Tier::kCxl},
                                                          {Tier::kHbm},
                                                          HandleKind::kMemfd}};
  return *cases;
}

}  // namespace dak

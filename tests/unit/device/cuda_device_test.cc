// The cuda device's own logic, on a driver without a GPU: what it asks the driver for, and what it refuses.
#include "allocator/device/cuda/cuda_device.h"

#include <optional>

#include "tests/unit/device/conformance.h"
#include "tests/unit/device/fake_cuda.h"
#include "tests/unit/device/node_tree.h"

namespace dak {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kBytes = kDeviceGranuleBytes;
constexpr char kUuid[] = "a0a1a2a3a4a5a6a7a8a9aaabacadae01";  // of GPU 1

class CudaDeviceTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<CudaDevice>> Open(FakeCudaConfig config = {}, DeviceOptions options = {}) {
    fake_.reset();
    fake_.emplace(std::move(config));
    return CudaDevice::Open(fake_->table(), options, nodes_.root());
  }
  void TearDown() override {
    if (!fake_.has_value()) return;
    EXPECT_EQ(fake_->live(), FakeCudaLive{});
    EXPECT_THAT(fake_->breaches(), IsEmpty());
  }

  NodeTree nodes_{{1 << 20, 1 << 19}};
  std::optional<FakeCuda> fake_;
};

TEST_F(CudaDeviceTest, DescribesTheGpu) {
  DeviceOptions options;
  options.ordinal = 1;
  auto device = Open({}, options);
  ASSERT_THAT(device.status(), IsOk());
  const DeviceDescription& description = (*device)->description();
  EXPECT_EQ(description.kind, "cuda");
  EXPECT_EQ(description.name, "Fake GPU 1");
  EXPECT_EQ(description.ordinal, 1);
  EXPECT_EQ(description.uuid, kUuid);
  EXPECT_EQ(description.compute_capability, 90);
  EXPECT_EQ(description.multiprocessors, 132);
}

TEST_F(CudaDeviceTest, IsChosenByUuidHoweverItIsWritten) {
  for (const char* uuid : {kUuid, "GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadae01", "A0A1A2A3A4A5A6A7A8A9AAABACADAE01"}) {
    DeviceOptions options;
    options.uuid = uuid;
    auto device = Open({}, options);
    ASSERT_THAT(device.status(), IsOk()) << uuid;
    EXPECT_EQ((*device)->description().ordinal, 1);
  }
}

TEST_F(CudaDeviceTest, SaysWhatIsMissing) {
  DeviceOptions options;
  options.ordinal = 2;
  EXPECT_THAT(Open({}, options).status(), Fails(absl::StatusCode::kNotFound, "NO_DEVICE"));
  options.ordinal = -1;
  EXPECT_THAT(Open({}, options).status(), Fails(absl::StatusCode::kNotFound, "NO_DEVICE"));
  options.ordinal = 0;
  options.uuid = "00";
  EXPECT_THAT(Open({}, options).status(), Fails(absl::StatusCode::kNotFound, "NO_DEVICE"));
  EXPECT_THAT(Open({.init_result = CUDA_ERROR_NO_DEVICE}).status(), Fails(absl::StatusCode::kNotFound, "NO_DEVICE"));
  const absl::Status old = Open({.driver_version = 12'040}).status();
  EXPECT_THAT(old, Fails(absl::StatusCode::kFailedPrecondition, "DRIVER_TOO_OLD"));
  EXPECT_THAT(std::string(old.message()), HasSubstr("supports CUDA 12.4, not 12.6"));
  EXPECT_THAT(Open({.granularity = size_t{4} << 20}).status(),
              Fails(absl::StatusCode::kFailedPrecondition, "DEVICE_UNSUPPORTED"));
  for (CUdevice_attribute needed : {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
                                    CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED}) {
    FakeCudaConfig config;
    config.attributes[needed] = 0;
    EXPECT_THAT(Open(config).status(), Fails(absl::StatusCode::kFailedPrecondition, "DEVICE_UNSUPPORTED"));
  }
}

TEST_F(CudaDeviceTest, RefusesACxlNodeThatIsNotThere) {
  for (int node : {7, -2, kMaxNode + 1}) {
    DeviceOptions options;
    options.cxl_numa_node = node;
    const absl::Status status = Open({}, options).status();
    EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, "NO_SUCH_NODE"));
    EXPECT_EQ(DetailOf(status).field, "cxl_numa_node");
  }
}

TEST_F(CudaDeviceTest, ReadsTiersFromTheDriverAndTheNodes) {
  DeviceOptions options;
  options.cxl_numa_node = 1;
  auto device = Open({}, options);
  ASSERT_THAT(device.status(), IsOk());
  EXPECT_EQ((*device)->GetTier(Tier::kHbm)->total_bytes, fake_->config().device_bytes);
  EXPECT_EQ((*device)->GetTier(Tier::kHost)->total_bytes, uint64_t{1} << 30);
  EXPECT_EQ((*device)->GetTier(Tier::kHost)->numa_node, 0);
  EXPECT_EQ((*device)->GetTier(Tier::kCxl)->total_bytes, uint64_t{1} << 29);
  EXPECT_EQ((*device)->GetTier(Tier::kCxl)->numa_node, 1);
  EXPECT_EQ((*device)->description().cxl_numa_node, 1);
  EXPECT_EQ((*device)->description().LinkOf(Tier::kCxl), 0);  // behind the same path
}

TEST_F(CudaDeviceTest, WithoutNodesAllOfTheMachinesMemoryIsHost) {
  NodeTree none({});
  FakeCudaConfig config;
  config.attributes[CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID] = -1;
  fake_.emplace(config);
  auto device = CudaDevice::Open(fake_->table(), {}, none.root());
  ASSERT_THAT(device.status(), IsOk());
  EXPECT_EQ((*device)->GetTier(Tier::kHost)->total_bytes, MachineMemoryBytes());
  EXPECT_EQ((*device)->GetTier(Tier::kHost)->numa_node, 0);
}

TEST_F(CudaDeviceTest, PutsEachTierWhereItBelongs) {
  FakeCudaConfig config;
  config.attributes[CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID] = 1;
  DeviceOptions options;
  options.ordinal = 1;
  options.cxl_numa_node = 0;
  auto device = Open(config, options);
  ASSERT_THAT(device.status(), IsOk());
  struct Row {
    Tier tier;
    CUmemLocationType type;
    int id;
  };
  for (const Row& row :
       {Row{Tier::kHbm, CU_MEM_LOCATION_TYPE_DEVICE, 1}, Row{Tier::kHost, CU_MEM_LOCATION_TYPE_HOST_NUMA, 1},
        Row{Tier::kCxl, CU_MEM_LOCATION_TYPE_HOST_NUMA, 0}}) {
    auto segment = (*device)->CreateSegment(row.tier, kBytes);
    ASSERT_THAT(segment.status(), IsOk());
    ASSERT_EQ(fake_->state.handles.size(), 1);
    const FakeCuda::Handle& handle = fake_->state.handles.begin()->second;
    EXPECT_EQ(handle.location.type, row.type);
    EXPECT_EQ(handle.location.id, row.id);
    // Nothing of the scrubbing stays.
    EXPECT_EQ(fake_->live(), (FakeCudaLive{.contexts = 1, .handles = 1}));
  }
}

TEST_F(CudaDeviceTest, HostMemoryIsMemfdsWhereTheDriverMakesNoneOrByOption) {
  FakeCudaConfig config;
  config.attributes[CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED] = 0;
  DeviceOptions options;
  for (bool by_option : {false, true}) {
    options.host_memfd = by_option;
    auto device = Open(by_option ? FakeCudaConfig{} : config, options);
    ASSERT_THAT(device.status(), IsOk());
    auto segment = (*device)->CreateSegment(Tier::kHost, kBytes);
    ASSERT_THAT(segment.status(), IsOk());
    EXPECT_EQ((*segment)->kind(), HandleKind::kMemfd);
    EXPECT_EQ(fake_->calls("cuMemCreate"), 0);
    EXPECT_EQ((*device)->CreateSegment(Tier::kHbm, kBytes).value()->kind(), HandleKind::kCudaPosixFd);
  }
}

TEST_F(CudaDeviceTest, ACxlMemfdThatCannotBeBoundToItsNodeIsRefused) {
  NodeTree nodes({1 << 20});
  nodes.Write(kMaxNode, "Node 1023 MemTotal: 1000 kB\n");
  DeviceOptions options;
  options.host_memfd = true;
  options.cxl_numa_node = kMaxNode;  // this machine has no such node, so the kernel refuses
  fake_.emplace();
  auto device = CudaDevice::Open(fake_->table(), options, nodes.root());
  ASSERT_THAT(device.status(), IsOk());
  const absl::Status status = (*device)->CreateSegment(Tier::kCxl, kBytes).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("mbind failed"));
}

TEST_F(CudaDeviceTest, WithoutCpuAccessTheMappingHasNoHostPointerAndWorks) {
  for (CUresult refusal : {CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_PERMITTED}) {
    auto device = Open({.cpu_write_access = refusal});
    ASSERT_THAT(device.status(), IsOk());
    auto segment = (*device)->CreateSegment(Tier::kHost, kBytes).value();
    auto mapping = (*device)->Map((*device)->Export(*segment, Access::kReadWrite).value(), Access::kReadWrite);
    ASSERT_THAT(mapping.status(), IsOk());
    EXPECT_EQ((*mapping)->host_pointer(), nullptr);
    EXPECT_THAT((*device)->Upload(**mapping, 0, Pattern(100, 1)), IsOk());
    EXPECT_THAT((*mapping)->MakeReadOnly(), IsOk());
  }
}

TEST_F(CudaDeviceTest, MakeReadOnlyTakesTheCpusAccessAwayWhereItCannotBeReadOnly) {
  auto device = Open({.cpu_read_access = CUDA_ERROR_NOT_SUPPORTED});
  ASSERT_THAT(device.status(), IsOk());
  auto segment = (*device)->CreateSegment(Tier::kHost, kBytes).value();
  auto mapping = (*device)->Map((*device)->Export(*segment, Access::kReadWrite).value(), Access::kReadWrite).value();
  EXPECT_NE(mapping->host_pointer(), nullptr);
  ASSERT_THAT(mapping->MakeReadOnly(), IsOk());
  EXPECT_EQ(mapping->host_pointer(), nullptr);
  ASSERT_EQ(fake_->state.mappings.size(), 1);
  EXPECT_EQ(fake_->state.mappings.begin()->second.cpu, CU_MEM_ACCESS_FLAGS_PROT_NONE);
  EXPECT_EQ(fake_->state.mappings.begin()->second.gpu, CU_MEM_ACCESS_FLAGS_PROT_READ);
}

TEST_F(CudaDeviceTest, ReadOnlyMappingsAreReadOnlyToTheGpu) {
  auto device = Open();
  ASSERT_THAT(device.status(), IsOk());
  for (Tier tier : {Tier::kHbm, Tier::kHost}) {
    auto segment = (*device)->CreateSegment(tier, kBytes).value();
    auto mapping = (*device)->Map((*device)->Export(*segment, Access::kReadOnly).value(), Access::kReadOnly).value();
    ASSERT_EQ(fake_->state.mappings.size(), 1);
    EXPECT_EQ(fake_->state.mappings.begin()->second.gpu, CU_MEM_ACCESS_FLAGS_PROT_READ);
  }
}

TEST_F(CudaDeviceTest, AHandleOfAnotherTierThanItSaysIsRefused) {
  auto device = Open();
  ASSERT_THAT(device.status(), IsOk());
  auto hbm = (*device)->CreateSegment(Tier::kHbm, kBytes).value();
  auto host = (*device)->CreateSegment(Tier::kHost, kBytes).value();
  for (const Segment* segment : {hbm.get(), host.get()}) {
    ExportedHandle handle = (*device)->Export(*segment, Access::kReadOnly).value();
    handle.tier = segment == hbm.get() ? Tier::kHost : Tier::kHbm;
    EXPECT_THAT((*device)->Map(std::move(handle), Access::kReadOnly).status(),
                Fails(absl::StatusCode::kInvalidArgument, "WRONG_TIER"));
  }
  DeviceOptions options;
  options.host_memfd = true;
  hbm.reset();
  host.reset();
  device = absl::UnknownError("closed");
  device = Open({}, options);
  auto memfd = (*device)->CreateSegment(Tier::kHost, kBytes).value();
  ExportedHandle handle = (*device)->Export(*memfd, Access::kReadOnly).value();
  handle.tier = Tier::kHbm;
  EXPECT_THAT((*device)->Map(std::move(handle), Access::kReadOnly).status(),
              Fails(absl::StatusCode::kInvalidArgument, "WRONG_TIER"));
}

TEST_F(CudaDeviceTest, ReadOnlyPagesNeedTheGpusSupport) {
  FakeCudaConfig config;
  config.attributes[CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED] = 0;
  auto device = Open(config);
  ASSERT_THAT(device.status(), IsOk());
  UniqueFd fd;
  auto page = (*device)->CreateSharedPage(kSharedPageGranuleBytes, &fd);
  ASSERT_THAT(page.status(), IsOk());
  EXPECT_THAT((*device)->MapSharedPage(std::move(fd), kSharedPageGranuleBytes, Access::kReadOnly).status(),
              Fails(absl::StatusCode::kFailedPrecondition, "DEVICE_UNSUPPORTED"));
}

TEST_F(CudaDeviceTest, ReadOnlyPagesAreRegisteredSo) {
  auto device = Open();
  ASSERT_THAT(device.status(), IsOk());
  UniqueFd fd;
  auto page = (*device)->CreateSharedPage(kSharedPageGranuleBytes, &fd);
  ASSERT_THAT(page.status(), IsOk());
  page->reset();
  page = (*device)->MapSharedPage(std::move(fd), kSharedPageGranuleBytes, Access::kReadOnly);
  ASSERT_THAT(page.status(), IsOk());
  ASSERT_EQ(fake_->state.registrations.size(), 1);
  EXPECT_TRUE(fake_->state.registrations.begin()->second.read_only);
}

TEST_F(CudaDeviceTest, OutOfMemoryIsTold) {
  auto device = Open();
  ASSERT_THAT(device.status(), IsOk());
  fake_->FailCallsOf("cuMemCreate", CUDA_ERROR_OUT_OF_MEMORY);
  const absl::Status status = (*device)->CreateSegment(Tier::kHost, kBytes).status();
  EXPECT_THAT(status, Fails(absl::StatusCode::kResourceExhausted, "DRIVER_ERROR"));
  EXPECT_EQ(status.message(), "cuMemCreate failed: CUDA_ERROR_OUT_OF_MEMORY (2)");
}

TEST_F(CudaDeviceTest, AnErrorWithoutANameIsToldByNumber) {
  auto device = Open({.names_errors = false});
  ASSERT_THAT(device.status(), IsOk());
  fake_->FailCallsOf("cuMemCreate", static_cast<CUresult>(1'000));
  const absl::Status status = (*device)->CreateSegment(Tier::kHost, kBytes).status();
  EXPECT_EQ(status.message(), "cuMemCreate failed: an unnamed error (1000)");
}

TEST_F(CudaDeviceTest, EveryFunctionOfTheTableIsThere) {
  fake_.emplace();
#define EXPECT_FUNCTION(name) EXPECT_NE(fake_->table()->name, nullptr) << #name;
  DAK_CUDA_DRIVER_FUNCTIONS(EXPECT_FUNCTION)
#undef EXPECT_FUNCTION
}

TEST(CudaDriverTest, SaysThatThereIsNoDriver) {
  absl::StatusOr<const CudaDriver*> driver = LoadCudaDriver();
  if (driver.ok()) GTEST_SKIP() << "this machine has a CUDA driver";
  EXPECT_THAT(driver.status(), Fails(absl::StatusCode::kNotFound, "NO_DRIVER"));
  EXPECT_THAT(std::string(driver.status().message()), HasSubstr("libcuda.so.1"));
}

}  // namespace
}  // namespace dak

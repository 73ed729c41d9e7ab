// Every driver call of every operation, made to fail in turn: the caller learns the driver's code, and nothing is left.
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <optional>

#include "allocator/device/cuda/cuda_device.h"
#include "allocator/device/log.h"
#include "allocator/device/memory_file.h"
#include "tests/unit/device/conformance.h"
#include "tests/unit/device/fake_cuda.h"
#include "tests/unit/device/node_tree.h"

namespace dak {

namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kBytes = 2 * kDeviceGranuleBytes;
constexpr CUresult kInjected = CUDA_ERROR_LAUNCH_FAILED;
constexpr char kInjectedText[] = "CUDA_ERROR_LAUNCH_FAILED (719)";

std::mutex g_log_mutex;
std::vector<std::string>* g_log = new std::vector<std::string>;

void CollectLog(const char* message) {
  std::lock_guard<std::mutex> lock(g_log_mutex);
  g_log->push_back(message);
}

// Calls that only give something back: nobody can be told when they fail, so the log is.
bool IsRelease(const std::string& function) {
  for (const char* release : {"cuDevicePrimaryCtxRelease", "cuCtxPopCurrent", "cuMemRelease", "cuMemAddressFree",
                              "cuMemUnmap", "cuMemHostUnregister", "cuStreamDestroy"}) {
    if (function == release) return true;
  }
  return false;
}

class CudaFaultTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    SetDeviceLogHook(CollectLog);
    ASSERT_THAT(Open(), IsOk());
  }
  void TearDown() override {
    device_.reset();
    SetDeviceLogHook(nullptr);
    EXPECT_EQ(fake_->live(), FakeCudaLive{});
    EXPECT_THAT(fake_->breaches(), IsEmpty());
  }
  absl::Status Open() {
    DeviceOptions options;
    options.ordinal = 1;
    options.host_memfd = GetParam();
    options.cxl_numa_node = 0;
    auto device = CudaDevice::Open(fake_->table(), options, nodes_.root());
    if (device.ok()) device_ = *std::move(device);
    return device.status();
  }

  struct Round {
    uint64_t calls = 0;
    uint64_t releases = 0;
  };

  // Runs `operation` with its first driver call failing, then its second, and so on until none is left to fail. It must
  // undo itself on failure; `undo` undoes a success.
  Round FailEachCall(const std::function<absl::Status()>& operation, const std::function<void()>& undo) {
    Round round;
    for (uint64_t n = 1;; ++n) {
      const FakeCudaLive live = fake_->live();
      const int descriptors = OpenDescriptors();
      g_log->clear();
      fake_->FailNthCall(n, kInjected);
      const absl::Status status = operation();
      const std::optional<std::string> failed = fake_->failed_function();
      fake_->FailNthCall(0, CUDA_SUCCESS);
      if (status.ok()) undo();
      SCOPED_TRACE(n);
      SCOPED_TRACE(failed.value_or("no call failed"));
      EXPECT_EQ(fake_->live(), live);
      EXPECT_EQ(OpenDescriptors(), descriptors);
      if (!failed.has_value()) {
        EXPECT_THAT(status, IsOk());
        EXPECT_THAT(*g_log, IsEmpty());
        return round;
      }
      ++round.calls;
      if (status.ok()) {
        // A failed release, or making the context current for one: the operation itself was done.
        ++round.releases;
        EXPECT_TRUE(IsRelease(*failed) || *failed == "cuCtxPushCurrent");
        EXPECT_THAT(*g_log, Contains(AllOf(HasSubstr(*failed), HasSubstr(kInjectedText))));
      } else {
        EXPECT_FALSE(IsRelease(*failed));
        EXPECT_THAT(status, Fails(absl::StatusCode::kInternal, "DRIVER_ERROR"));
        EXPECT_EQ(status.message(), *failed + " failed: " + kInjectedText);
      }
    }
  }

  NodeTree nodes_{{1 << 20}};
  std::unique_ptr<FakeCuda> fake_ = std::make_unique<FakeCuda>();
  std::unique_ptr<CudaDevice> device_;
};

TEST_P(CudaFaultTest, Open) {
  device_.reset();
  const Round round = FailEachCall([this] { return Open(); }, [this] { device_.reset(); });
  EXPECT_GE(round.calls, 15);
}

TEST_P(CudaFaultTest, CreateSegment) {
  for (Tier tier : kAllTiers) {
    SCOPED_TRACE(TierName(tier));
    std::unique_ptr<Segment> segment;
    const Round round = FailEachCall(
        [&] {
          auto created = device_->CreateSegment(tier, kBytes);
          if (created.ok()) segment = *std::move(created);
          return created.status();
        },
        [&] { segment.reset(); });
    if (IsRemote(tier) && GetParam()) {
      EXPECT_EQ(round.calls, 0);  // memfds need no driver until they are mapped
    } else {
      EXPECT_GE(round.calls, 10);
      EXPECT_GE(round.releases, 3);
    }
  }
}

TEST_P(CudaFaultTest, Export) {
  for (Tier tier : kAllTiers) {
    auto segment = device_->CreateSegment(tier, kBytes).value();
    const Round round = FailEachCall([&] { return device_->Export(*segment, Access::kReadOnly).status(); }, [] {});
    EXPECT_EQ(round.calls, IsRemote(tier) && GetParam() ? 0 : 3);
  }
}

TEST_P(CudaFaultTest, MapAndUnmap) {
  for (Tier tier : kAllTiers) {
    for (Access access : {Access::kReadOnly, Access::kReadWrite}) {
      auto segment = device_->CreateSegment(tier, kBytes).value();
      const ExportedHandle exported = device_->Export(*segment, access).value();
      const Round round = FailEachCall(
          [&] {
            // Exporting anew would make driver calls of its own.
            ExportedHandle handle{DuplicateFd(exported.fd.get()).value(), exported.kind, tier, kBytes};
            return device_->Map(std::move(handle), access).status();
          },
          [] {});
      EXPECT_GE(round.calls, 5) << TierName(tier);
    }
  }
}

TEST_P(CudaFaultTest, MakeReadOnly) {
  for (Tier tier : kAllTiers) {
    auto segment = device_->CreateSegment(tier, kBytes).value();
    std::unique_ptr<Mapping> mapping;
    auto map = [&] {
      mapping = device_->Map(device_->Export(*segment, Access::kReadWrite).value(), Access::kReadWrite).value();
    };
    map();
    const Round round = FailEachCall(
        [&] {
          const absl::Status status = mapping->MakeReadOnly();
          EXPECT_EQ(mapping->access(), status.ok() ? Access::kReadOnly : Access::kReadWrite);
          if (!status.ok()) {
            // All or nothing: both sides may still write.
            for (const auto& [address, state] : fake_->state.mappings) {
              EXPECT_EQ(state.gpu, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
              EXPECT_EQ(state.cpu, IsRemote(tier) ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE);
            }
          }
          return status;
        },
        map);
    EXPECT_EQ(round.calls, IsRemote(tier) ? GetParam() ? 0 : 4 : 3);
  }
}

TEST_P(CudaFaultTest, UploadAndDownload) {
  for (Tier tier : kAllTiers) {
    auto segment = device_->CreateSegment(tier, kBytes).value();
    auto mapping = device_->Map(device_->Export(*segment, Access::kReadWrite).value(), Access::kReadWrite).value();
    std::vector<std::byte> bytes(100);
    EXPECT_EQ(FailEachCall([&] { return device_->Upload(*mapping, 0, bytes); }, [] {}).calls, 4);
    EXPECT_EQ(FailEachCall([&] { return device_->Download(*mapping, 0, absl::MakeSpan(bytes)); }, [] {}).calls, 3);
  }
}

TEST_P(CudaFaultTest, CopyAndSynchronize) {
  auto source_segment = device_->CreateSegment(Tier::kHbm, kBytes).value();
  auto target_segment = device_->CreateSegment(Tier::kHost, kBytes).value();
  auto source = device_->Map(device_->Export(*source_segment, Access::kReadWrite).value(), Access::kReadWrite).value();
  auto target = device_->Map(device_->Export(*target_segment, Access::kReadWrite).value(), Access::kReadWrite).value();
  // The stream is made by the first copy, and kept.
  fake_->FailCallsOf("cuStreamCreate", kInjected);
  EXPECT_THAT(device_->Copy(*source, 0, *target, 0, 100), Fails(absl::StatusCode::kInternal, "DRIVER_ERROR"));
  EXPECT_EQ(fake_->live().streams, 0);
  fake_->FailCallsOf("cuStreamCreate", CUDA_SUCCESS);
  ASSERT_THAT(device_->Copy(*source, 0, *target, 0, 100), IsOk());
  EXPECT_EQ(fake_->live().streams, 1);
  EXPECT_EQ(FailEachCall([&] { return device_->Copy(*source, 0, *target, 0, 100); }, [] {}).calls, 4);
  EXPECT_EQ(FailEachCall([&] { return device_->Synchronize(); }, [] {}).calls, 3);
}

TEST_P(CudaFaultTest, ReplaceKeepsTheOldMemoryWhicheverCallFails) {
  if (GetParam()) GTEST_SKIP() << "memfds can't take the place of the driver's memory";
  auto hbm = device_->CreateSegment(Tier::kHbm, kBytes).value();
  auto host = device_->CreateSegment(Tier::kHost, kBytes).value();
  for (auto [from, to] : {std::pair(hbm.get(), host.get()), std::pair(host.get(), hbm.get())}) {
    auto mapping = device_->Map(device_->Export(*from, Access::kReadWrite).value(), Access::kReadWrite).value();
    const std::vector<std::byte> sent = Pattern(1'000, 31);
    ASSERT_THAT(device_->Upload(*mapping, 0, sent), IsOk());
    const ExportedHandle exported = device_->Export(*to, Access::kReadWrite).value();
    const uint64_t address = mapping->address();
    auto replace = [&](const ExportedHandle& with) {
      return device_->Replace(*mapping, {DuplicateFd(with.fd.get()).value(), with.kind, with.tier, kBytes});
    };
    const ExportedHandle back = device_->Export(*from, Access::kReadWrite).value();
    const Round round = FailEachCall(
        [&] {
          const absl::Status status = replace(exported);
          if (status.ok()) return status;
          EXPECT_EQ(mapping->tier(), from->tier());
          EXPECT_EQ(mapping->address(), address);
          EXPECT_EQ(mapping->host_pointer() != nullptr, IsRemote(from->tier()));
          std::vector<std::byte> found(sent.size());
          EXPECT_THAT(device_->Download(*mapping, 0, absl::MakeSpan(found)), IsOk());
          EXPECT_EQ(found, sent);
          return status;
        },
        [&] { EXPECT_THAT(replace(back), IsOk()); });
    EXPECT_GE(round.calls, 8);
    EXPECT_GE(round.releases, 3);
  }
}

TEST_P(CudaFaultTest, AMappingThatCanNeitherBeReplacedNorRestoredSaysSoAndLeaksNothing) {
  if (GetParam()) GTEST_SKIP() << "memfds can't take the place of the driver's memory";
  auto hbm = device_->CreateSegment(Tier::kHbm, kBytes).value();
  auto host = device_->CreateSegment(Tier::kHost, kBytes).value();
  auto mapping = device_->Map(device_->Export(*hbm, Access::kReadWrite).value(), Access::kReadWrite).value();
  fake_->FailCallsOf("cuMemMap", kInjected);
  EXPECT_THAT(device_->Replace(*mapping, device_->Export(*host, Access::kReadWrite).value()),
              Fails(absl::StatusCode::kInternal, "MAPPING_LOST"));
  fake_->FailCallsOf("cuMemMap", CUDA_SUCCESS);
  // What was in the segment is still there for who maps it.
  EXPECT_THAT(device_->Map(device_->Export(*hbm, Access::kReadWrite).value(), Access::kReadWrite).status(), IsOk());
}

TEST_P(CudaFaultTest, TensorMaps) {
  const TensorMapSpec spec{.rows = 64, .cols = 64};
  const TensorMap map = device_->EncodeTensorMap(spec, 0).value();
  EXPECT_EQ(FailEachCall([&] { return device_->EncodeTensorMap(spec, 0).status(); }, [] {}).calls, 3);
  EXPECT_EQ(FailEachCall([&] { return device_->RebaseTensorMap(map, 16).status(); }, [] {}).calls, 3);
}

TEST_P(CudaFaultTest, GetTier) {
  EXPECT_EQ(FailEachCall([&] { return device_->GetTier(Tier::kHbm).status(); }, [] {}).calls, 4);
}

TEST_P(CudaFaultTest, SharedPages) {
  const Round create = FailEachCall(
      [&] {
        UniqueFd fd;
        const absl::Status status = device_->CreateSharedPage(kSharedPageGranuleBytes, &fd).status();
        EXPECT_EQ(fd.valid(), status.ok());
        return status;
      },
      [] {});
  EXPECT_GE(create.calls, 7);
  UniqueFd page;
  auto owner = device_->CreateSharedPage(kSharedPageGranuleBytes, &page).value();
  for (Access access : {Access::kReadOnly, Access::kReadWrite}) {
    const Round map = FailEachCall(
        [&] {
          return device_->MapSharedPage(DuplicateFd(page.get()).value(), kSharedPageGranuleBytes, access).status();
        },
        [] {});
    EXPECT_GE(map.calls, 7);
  }
}

INSTANTIATE_TEST_SUITE_P(Host, CudaFaultTest, ::testing::Bool(),
                         [](const ::testing::TestParamInfo<bool>& p) { return p.param ? "Memfd" : "DriverMade"; });

}  // namespace
}  // namespace dak

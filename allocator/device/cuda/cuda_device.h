// The device on an NVIDIA GPU, through the driver API.
//
// HBM is cuMemCreate on the device. Host and CXL memory is cuMemCreate on a NUMA node where the driver can do that,
// else (or with DeviceOptions::host_memfd) memfds bound to the node and registered with the driver. docs/devices.md
// compares the two. Every call makes the device's primary context current for its own length.
//
// Thread safety and errors: as Device.
#ifndef DAK_ALLOCATOR_DEVICE_CUDA_CUDA_DEVICE_H_
#define DAK_ALLOCATOR_DEVICE_CUDA_CUDA_DEVICE_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "allocator/device/cuda/cuda_context.h"
#include "allocator/device/cuda/cuda_driver.h"
#include "allocator/device/cuda/cuda_memory.h"
#include "allocator/device/cuda/numa.h"
#include "allocator/device/device.h"

namespace dak {

// The oldest driver that can encode a descriptor at address 0 (12.6); HOST_NUMA came with 12.2.
inline constexpr int kMinDriverVersion = 12'060;

class CudaDevice final : public Device {
 public:
  // `driver` must outlive the device and all that it makes. Errors as OpenDevice.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Open(const CudaDriver* driver, const DeviceOptions& options,
                                                          const std::string& node_root = kNodeRoot);

  const DeviceDescription& description() const override { return description_; }
  absl::StatusOr<TierInfo> GetTier(Tier tier) const override;
  absl::StatusOr<std::unique_ptr<Segment>> CreateSegment(Tier tier, uint64_t bytes) override;
  absl::StatusOr<ExportedHandle> Export(const Segment& segment, Access access) override;
  absl::StatusOr<std::unique_ptr<Mapping>> Map(ExportedHandle handle, Access access) override;
  absl::Status Upload(Mapping& mapping, uint64_t offset_bytes, absl::Span<const std::byte> source) override;
  absl::Status Download(const Mapping& mapping, uint64_t offset_bytes, absl::Span<std::byte> target) override;
  absl::Status Copy(const Mapping& source, uint64_t source_offset_bytes, Mapping& target, uint64_t target_offset_bytes,
                    uint64_t bytes) override;
  absl::Status Replace(Mapping& mapping, ExportedHandle handle) override;
  absl::Status Synchronize() override;
  absl::StatusOr<TensorMap> EncodeTensorMap(const TensorMapSpec& spec, uint64_t address) override;
  absl::StatusOr<TensorMap> RebaseTensorMap(const TensorMap& map, uint64_t address) override;
  absl::StatusOr<std::unique_ptr<SharedPage>> CreateSharedPage(uint64_t bytes, UniqueFd* fd) override;
  absl::StatusOr<std::unique_ptr<SharedPage>> MapSharedPage(UniqueFd fd, uint64_t bytes, Access access) override;

 private:
  struct Traits {
    bool driver_makes_host_memory = false;
    bool registers_read_only = false;
    int host_node = 0;
    int cxl_node = -1;
    std::string node_root;
  };
  CudaDevice(SharedContext context, DeviceDescription description, Traits traits)
      : context_(std::move(context)), description_(std::move(description)), traits_(std::move(traits)) {}

  static absl::StatusOr<Traits> ReadTraits(const CudaDriver& driver, CUdevice device, const DeviceOptions& options,
                                           const std::string& node_root);
  absl::Status CheckGranularity(const CUmemLocation& location) const;
  CUmemLocation LocationFor(Tier tier) const;
  absl::Status CheckPresent(Tier tier) const;
  absl::StatusOr<std::unique_ptr<Segment>> CreateDriverSegment(Tier tier, uint64_t bytes);
  absl::StatusOr<std::unique_ptr<Segment>> CreateMemfdSegment(Tier tier, uint64_t bytes);
  absl::StatusOr<std::unique_ptr<Mapping>> MapDriverHandle(const ExportedHandle& handle, Access access);
  absl::StatusOr<std::unique_ptr<Mapping>> MapMemfd(const ExportedHandle& handle, Access access);
  absl::StatusOr<RegisteredView> Register(int fd, uint64_t bytes, Access access) const;
  struct Imported {
    PhysicalMemory memory;
    CUmemLocation location;
  };
  absl::StatusOr<Imported> Import(const ExportedHandle& handle) const;
  // The stream that Copy uses, made when first needed.
  absl::StatusOr<CUstream> CopyStream();

  const SharedContext context_;
  const DeviceDescription description_;
  const Traits traits_;
  std::atomic<bool> binding_failed_{false};  // said once
  std::mutex copy_mutex_;
  std::optional<Owned<CUstream>> copy_stream_;  // guarded by copy_mutex_
};

// Loads the driver and opens a device on it. Errors as OpenDevice.
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(const DeviceOptions& options);

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_CUDA_CUDA_DEVICE_H_

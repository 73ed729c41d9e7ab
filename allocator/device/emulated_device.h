// The device where there is no GPU: every tier is memfds, addresses are pointers, descriptors are EmulatedTensorMaps.
//
// Capacity is counted per EmulatedDevice, that is per process: live segments take from their tier, whoever maps them.
// Pages are made when first touched, so a tier may be larger than the machine; running out of real memory then kills
// the process, as it would anywhere.
// Thread safety and errors: as Device.
#ifndef DAK_ALLOCATOR_DEVICE_EMULATED_DEVICE_H_
#define DAK_ALLOCATOR_DEVICE_EMULATED_DEVICE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

#include "allocator/device/device.h"

namespace dak {

// Bytes of each tier that live segments hold. Shared by a device and its segments, which may outlive it.
class EmulatedCapacity {
 public:
  explicit EmulatedCapacity(const std::array<uint64_t, kTierCount>& total_bytes) : total_bytes_(total_bytes) {}
  // TIER_ABSENT, or RESOURCE_EXHAUSTED with the shortfall, as a driver that is out of memory.
  absl::Status Take(Tier tier, uint64_t bytes);
  void GiveBack(Tier tier, uint64_t bytes);
  uint64_t total_bytes(Tier tier) const { return total_bytes_[TierIndex(tier)]; }
  uint64_t used_bytes(Tier tier) const;

 private:
  const std::array<uint64_t, kTierCount> total_bytes_;
  // std::mutex, since ThreadSanitizer doesn't see an Abseil that wasn't built with it.
  mutable std::mutex mutex_;
  std::array<uint64_t, kTierCount> used_bytes_{};  // guarded by mutex_
};

class EmulatedDevice final : public Device {
 public:
  explicit EmulatedDevice(const EmulatedDeviceOptions& options);

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
  absl::Status Synchronize() override { return absl::OkStatus(); }
  absl::StatusOr<TensorMap> EncodeTensorMap(const TensorMapSpec& spec, uint64_t address) override;
  absl::StatusOr<TensorMap> RebaseTensorMap(const TensorMap& map, uint64_t address) override;
  absl::StatusOr<std::unique_ptr<SharedPage>> CreateSharedPage(uint64_t bytes, UniqueFd* fd) override;
  absl::StatusOr<std::unique_ptr<SharedPage>> MapSharedPage(UniqueFd fd, uint64_t bytes, Access access) override;

  // Bytes that live segments of this device hold: for tests and for the daemon's own accounting checks.
  uint64_t used_bytes(Tier tier) const { return capacity_->used_bytes(tier); }

 private:
  DeviceDescription description_;
  std::shared_ptr<EmulatedCapacity> capacity_;
};

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_EMULATED_DEVICE_H_

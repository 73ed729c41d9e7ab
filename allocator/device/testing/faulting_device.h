// A Device that fails when it is told to, over any other: for tests of what its users do then.
//
//   auto owned = std::make_unique<FaultingDevice>(std::move(emulated));
//   owned->FailNth(FaultingDevice::Method::kCreateSegment, 2, absl::ResourceExhaustedError("injected"));
//
// A failing call doesn't reach the device beneath, but takes what a real failure takes (Map and Replace close the
// descriptor). To try every failure of an operation in turn: FailNthOfAny(n, ...) for n = 1, 2, ... until fired() stays
// false.
//
// Thread safety: all methods may be called from any thread.
#ifndef DAK_ALLOCATOR_DEVICE_TESTING_FAULTING_DEVICE_H_
#define DAK_ALLOCATOR_DEVICE_TESTING_FAULTING_DEVICE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "allocator/device/device.h"

namespace dak {

class FaultingDevice final : public Device {
 public:
  enum class Method {
    kGetTier,
    kCreateSegment,
    kExport,
    kMap,
    kUpload,
    kDownload,
    kCopy,
    kReplace,
    kSynchronize,
    kEncodeTensorMap,
    kRebaseTensorMap,
    kCreateSharedPage,
    kMapSharedPage,
  };
  static constexpr size_t kMethodCount = 13;

  explicit FaultingDevice(std::unique_ptr<Device> inner) : inner_(std::move(inner)) {}

  // The nth call of `method` from now (1: the next one) fails with `status`, once. Replaces what was ordered before for
  // the method; nth 0 cancels it.
  void FailNth(Method method, uint64_t nth, absl::Status status);
  // The same over all methods together.
  void FailNthOfAny(uint64_t nth, absl::Status status);
  // True if the last order, of either kind, has failed a call.
  bool fired() const;
  // Calls so far, failed ones included.
  uint64_t calls(Method method) const;
  Device& inner() { return *inner_; }

  const DeviceDescription& description() const override { return inner_->description(); }
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
  struct Order {
    uint64_t countdown = 0;  // 0: nothing ordered
    absl::Status status;
  };
  // With mutex_ held.
  void Place(Order* order, uint64_t nth, absl::Status status);
  absl::Status Enter(Method method) const;

  const std::unique_ptr<Device> inner_;
  // Guards what follows. std::mutex, since ThreadSanitizer doesn't see an Abseil that wasn't built with it.
  mutable std::mutex mutex_;
  mutable std::array<Order, kMethodCount> orders_;
  mutable std::array<uint64_t, kMethodCount> calls_{};
  mutable Order any_order_;
  mutable bool fired_ = false;
};

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_TESTING_FAULTING_DEVICE_H_

#include "allocator/device/emulated_device.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "allocator/device/device_checks.h"
#include "allocator/device/emulated_tensor_map.h"
#include "allocator/device/memory_file.h"

namespace dak {
namespace {

class EmulatedSegment final : public Segment {
 public:
  // Takes over bytes that were taken from `capacity`.
  EmulatedSegment(Tier tier, uint64_t bytes, UniqueFd file, std::shared_ptr<EmulatedCapacity> capacity)
      : Segment(tier, bytes, HandleKind::kMemfd), file_(std::move(file)), capacity_(std::move(capacity)) {}
  ~EmulatedSegment() override { capacity_->GiveBack(tier(), bytes()); }
  int file() const { return file_.get(); }

 private:
  UniqueFd file_;
  std::shared_ptr<EmulatedCapacity> capacity_;
};

class EmulatedMapping final : public Mapping {
 public:
  EmulatedMapping(Tier tier, Access access, MemoryView view)
      : Mapping(tier, view.bytes(), access), view_(std::move(view)) {
    host_pointer_ = view_.data();
    address_ = reinterpret_cast<uint64_t>(view_.data());
  }
  absl::Status MakeReadOnly() override {
    if (access_ == Access::kReadOnly) return absl::OkStatus();
    DAK_RETURN_IF_ERROR(view_.MakeReadOnly());
    access_ = Access::kReadOnly;
    return absl::OkStatus();
  }
  absl::Status Replace(Tier tier, MemoryView view) {
    DAK_RETURN_IF_ERROR(view_.Replace(std::move(view)));
    tier_ = tier;
    return absl::OkStatus();
  }

 private:
  MemoryView view_;
};

class EmulatedPage final : public SharedPage {
 public:
  explicit EmulatedPage(MemoryView view) : view_(std::move(view)) {
    host_pointer_ = view_.data();
    device_address_ = reinterpret_cast<uint64_t>(view_.data());
  }

 private:
  MemoryView view_;
};

absl::StatusOr<MemoryView> ViewOf(const ExportedHandle& handle, Access access) {
  if (handle.kind != HandleKind::kMemfd) return InvalidField("kind", "isn't a memfd", "memfd", "BAD_HANDLE_KIND");
  DAK_RETURN_IF_ERROR(CheckMemoryFile(handle.fd.get(), handle.bytes));
  return MemoryView::Map(handle.fd.get(), handle.bytes, access == Access::kReadWrite);
}

}  // namespace

absl::Status EmulatedCapacity::Take(Tier tier, uint64_t bytes) {
  const uint64_t total = total_bytes_[TierIndex(tier)];
  if (total == 0) return TierAbsent(tier, "the emulated device has none");
  std::lock_guard<std::mutex> lock(mutex_);
  uint64_t& used = used_bytes_[TierIndex(tier)];
  if (bytes > total - used) {
    ErrorDetail detail;
    detail.reason = "DRIVER_ERROR";
    detail.shortfall_bytes = bytes - (total - used);
    return WithDetail(
        absl::ResourceExhaustedError(absl::StrCat("emulated ", TierName(tier), ": ", bytes, " bytes asked, ",
                                                  total - used, " of ", total, " free")),
        detail);
  }
  used += bytes;
  return absl::OkStatus();
}

void EmulatedCapacity::GiveBack(Tier tier, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  used_bytes_[TierIndex(tier)] -= bytes;
}

uint64_t EmulatedCapacity::used_bytes(Tier tier) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return used_bytes_[TierIndex(tier)];
}

EmulatedDevice::EmulatedDevice(const EmulatedDeviceOptions& options)
    : capacity_(std::make_shared<EmulatedCapacity>(options.tier_bytes)) {
  description_.kind = "emulated";
  description_.name = "Emulated GPU";
  description_.link = options.link;
  description_.cxl_link = options.cxl_link;
}

absl::StatusOr<Device::TierInfo> EmulatedDevice::GetTier(Tier tier) const {
  DAK_RETURN_IF_ERROR(CheckTier(tier));
  const uint64_t total = capacity_->total_bytes(tier);
  if (total == 0) return TierAbsent(tier, "the emulated device has none");
  return TierInfo{
      .total_bytes = total, .numa_node = IsRemote(tier) ? 0 : -1, .free_bytes = total - capacity_->used_bytes(tier)};
}

absl::StatusOr<std::unique_ptr<Segment>> EmulatedDevice::CreateSegment(Tier tier, uint64_t bytes) {
  DAK_RETURN_IF_ERROR(CheckTier(tier));
  DAK_RETURN_IF_ERROR(CheckWholeGranules(bytes, kDeviceGranuleBytes));
  DAK_RETURN_IF_ERROR(capacity_->Take(tier, bytes));
  // Always a new file, so its pages are the kernel's zeroed ones: nothing needs scrubbing.
  absl::StatusOr<UniqueFd> file = CreateMemoryFile(bytes);
  if (!file.ok()) {
    capacity_->GiveBack(tier, bytes);
    return file.status();
  }
  return std::make_unique<EmulatedSegment>(tier, bytes, *std::move(file), capacity_);
}

absl::StatusOr<ExportedHandle> EmulatedDevice::Export(const Segment& segment, Access access) {
  const auto* emulated = dynamic_cast<const EmulatedSegment*>(&segment);
  if (emulated == nullptr) return ForeignObject("segment");
  ExportedHandle handle{UniqueFd(), segment.kind(), segment.tier(), segment.bytes()};
  DAK_ASSIGN_OR_RETURN(handle.fd,
                       access == Access::kReadOnly ? ReopenReadOnly(emulated->file()) : DuplicateFd(emulated->file()));
  return handle;
}

absl::StatusOr<std::unique_ptr<Mapping>> EmulatedDevice::Map(ExportedHandle handle, Access access) {
  DAK_RETURN_IF_ERROR(CheckHandle(handle));
  DAK_ASSIGN_OR_RETURN(MemoryView view, ViewOf(handle, access));
  return std::make_unique<EmulatedMapping>(handle.tier, access, std::move(view));
}

absl::Status EmulatedDevice::Upload(Mapping& mapping, uint64_t offset_bytes, absl::Span<const std::byte> source) {
  if (dynamic_cast<EmulatedMapping*>(&mapping) == nullptr) return ForeignObject("mapping");
  DAK_RETURN_IF_ERROR(CheckUpload(mapping, offset_bytes, source.size()));
  if (source.empty()) return absl::OkStatus();
  std::memcpy(static_cast<std::byte*>(mapping.host_pointer()) + offset_bytes, source.data(), source.size());
  return absl::OkStatus();
}

absl::Status EmulatedDevice::Download(const Mapping& mapping, uint64_t offset_bytes, absl::Span<std::byte> target) {
  if (dynamic_cast<const EmulatedMapping*>(&mapping) == nullptr) return ForeignObject("mapping");
  DAK_RETURN_IF_ERROR(CheckRange(mapping, offset_bytes, target.size()));
  if (target.empty()) return absl::OkStatus();
  std::memcpy(target.data(), static_cast<const std::byte*>(mapping.host_pointer()) + offset_bytes, target.size());
  return absl::OkStatus();
}

absl::Status EmulatedDevice::Copy(const Mapping& source, uint64_t source_offset_bytes, Mapping& target,
                                  uint64_t target_offset_bytes, uint64_t bytes) {
  if (dynamic_cast<const EmulatedMapping*>(&source) == nullptr) return ForeignObject("source");
  if (dynamic_cast<EmulatedMapping*>(&target) == nullptr) return ForeignObject("target");
  DAK_RETURN_IF_ERROR(CheckCopy(source, source_offset_bytes, target, target_offset_bytes, bytes));
  std::memcpy(static_cast<std::byte*>(target.host_pointer()) + target_offset_bytes,
              static_cast<const std::byte*>(source.host_pointer()) + source_offset_bytes, bytes);
  return absl::OkStatus();
}

absl::Status EmulatedDevice::Replace(Mapping& mapping, ExportedHandle handle) {
  auto* const emulated = dynamic_cast<EmulatedMapping*>(&mapping);
  if (emulated == nullptr) return ForeignObject("mapping");
  DAK_RETURN_IF_ERROR(CheckReplacement(mapping, handle));
  DAK_ASSIGN_OR_RETURN(MemoryView view, ViewOf(handle, mapping.access()));
  return emulated->Replace(handle.tier, std::move(view));
}

absl::StatusOr<TensorMap> EmulatedDevice::EncodeTensorMap(const TensorMapSpec& spec, uint64_t address) {
  return EncodeEmulatedTensorMap(spec, address);
}

absl::StatusOr<TensorMap> EmulatedDevice::RebaseTensorMap(const TensorMap& map, uint64_t address) {
  return RebaseEmulatedTensorMap(map, address);
}

absl::StatusOr<std::unique_ptr<SharedPage>> EmulatedDevice::CreateSharedPage(uint64_t bytes, UniqueFd* fd) {
  DAK_RETURN_IF_ERROR(CheckWholeGranules(bytes, kSharedPageGranuleBytes));
  DAK_ASSIGN_OR_RETURN(UniqueFd file, CreateMemoryFile(bytes));
  DAK_ASSIGN_OR_RETURN(MemoryView view, MemoryView::Map(file.get(), bytes, /*writable=*/true));
  auto page = std::make_unique<EmulatedPage>(std::move(view));
  *fd = std::move(file);
  return page;
}

absl::StatusOr<std::unique_ptr<SharedPage>> EmulatedDevice::MapSharedPage(UniqueFd fd, uint64_t bytes, Access access) {
  DAK_RETURN_IF_ERROR(CheckPageHandle(fd, bytes));
  DAK_ASSIGN_OR_RETURN(MemoryView view, MemoryView::Map(fd.get(), bytes, access == Access::kReadWrite));
  return std::make_unique<EmulatedPage>(std::move(view));
}

}  // namespace dak

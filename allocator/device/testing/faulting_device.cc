#include "allocator/device/testing/faulting_device.h"

#include <utility>

#include "allocator/base/status_macros.h"

namespace dak {

void FaultingDevice::Place(Order* order, uint64_t nth, absl::Status status) {
  *order = {nth, std::move(status)};
  fired_ = false;
}

void FaultingDevice::FailNth(Method method, uint64_t nth, absl::Status status) {
  std::lock_guard<std::mutex> lock(mutex_);
  Place(&orders_[static_cast<size_t>(method)], nth, std::move(status));
}

void FaultingDevice::FailNthOfAny(uint64_t nth, absl::Status status) {
  std::lock_guard<std::mutex> lock(mutex_);
  Place(&any_order_, nth, std::move(status));
}

bool FaultingDevice::fired() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return fired_;
}

uint64_t FaultingDevice::calls(Method method) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return calls_[static_cast<size_t>(method)];
}

absl::Status FaultingDevice::Enter(Method method) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const size_t index = static_cast<size_t>(method);
  ++calls_[index];
  absl::Status result;
  for (Order* order : {&orders_[index], &any_order_}) {
    if (order->countdown == 0 || --order->countdown != 0) continue;
    fired_ = true;
    result = order->status;
  }
  return result;
}

absl::StatusOr<Device::TierInfo> FaultingDevice::GetTier(Tier tier) const {
  DAK_RETURN_IF_ERROR(Enter(Method::kGetTier));
  return inner_->GetTier(tier);
}

absl::StatusOr<std::unique_ptr<Segment>> FaultingDevice::CreateSegment(Tier tier, uint64_t bytes) {
  DAK_RETURN_IF_ERROR(Enter(Method::kCreateSegment));
  return inner_->CreateSegment(tier, bytes);
}

absl::StatusOr<ExportedHandle> FaultingDevice::Export(const Segment& segment, Access access) {
  DAK_RETURN_IF_ERROR(Enter(Method::kExport));
  return inner_->Export(segment, access);
}

absl::StatusOr<std::unique_ptr<Mapping>> FaultingDevice::Map(ExportedHandle handle, Access access) {
  DAK_RETURN_IF_ERROR(Enter(Method::kMap));
  return inner_->Map(std::move(handle), access);
}

absl::Status FaultingDevice::Upload(Mapping& mapping, uint64_t offset_bytes, absl::Span<const std::byte> source) {
  DAK_RETURN_IF_ERROR(Enter(Method::kUpload));
  return inner_->Upload(mapping, offset_bytes, source);
}

absl::Status FaultingDevice::Download(const Mapping& mapping, uint64_t offset_bytes, absl::Span<std::byte> target) {
  DAK_RETURN_IF_ERROR(Enter(Method::kDownload));
  return inner_->Download(mapping, offset_bytes, target);
}

absl::Status FaultingDevice::Copy(const Mapping& source, uint64_t source_offset_bytes, Mapping& target,
                                  uint64_t target_offset_bytes, uint64_t bytes) {
  DAK_RETURN_IF_ERROR(Enter(Method::kCopy));
  return inner_->Copy(source, source_offset_bytes, target, target_offset_bytes, bytes);
}

absl::Status FaultingDevice::Replace(Mapping& mapping, ExportedHandle handle) {
  DAK_RETURN_IF_ERROR(Enter(Method::kReplace));
  return inner_->Replace(mapping, std::move(handle));
}

absl::Status FaultingDevice::Synchronize() {
  DAK_RETURN_IF_ERROR(Enter(Method::kSynchronize));
  return inner_->Synchronize();
}

absl::StatusOr<TensorMap> FaultingDevice::EncodeTensorMap(const TensorMapSpec& spec, uint64_t address) {
  DAK_RETURN_IF_ERROR(Enter(Method::kEncodeTensorMap));
  return inner_->EncodeTensorMap(spec, address);
}

absl::StatusOr<TensorMap> FaultingDevice::RebaseTensorMap(const TensorMap& map, uint64_t address) {
  DAK_RETURN_IF_ERROR(Enter(Method::kRebaseTensorMap));
  return inner_->RebaseTensorMap(map, address);
}

absl::StatusOr<std::unique_ptr<SharedPage>> FaultingDevice::CreateSharedPage(uint64_t bytes, UniqueFd* fd) {
  DAK_RETURN_IF_ERROR(Enter(Method::kCreateSharedPage));
  return inner_->CreateSharedPage(bytes, fd);
}

absl::StatusOr<std::unique_ptr<SharedPage>> FaultingDevice::MapSharedPage(UniqueFd fd, uint64_t bytes, Access access) {
  DAK_RETURN_IF_ERROR(Enter(Method::kMapSharedPage));
  return inner_->MapSharedPage(std::move(fd), bytes, access);
}

}  // namespace dak

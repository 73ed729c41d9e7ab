#include "allocator/device/cuda/cuda_objects.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "allocator/device/device_checks.h"

namespace dak {

CUmemAccess_flags AccessFlags(Access access) {
  return access == Access::kReadOnly ? CU_MEM_ACCESS_FLAGS_PROT_READ : CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
}

absl::StatusOr<bool> SetCpuAccess(MappedMemory& memory, const CUmemLocation& location, CUmemAccess_flags flags) {
  const CudaDriver& driver = memory.context()->driver();
  const CUmemAccessDesc access{.location = location, .flags = flags};
  const CUresult result = driver.cuMemSetAccess(memory.address(), memory.bytes(), &access, 1);
  if (result == CUDA_ERROR_NOT_SUPPORTED || result == CUDA_ERROR_INVALID_VALUE || result == CUDA_ERROR_NOT_PERMITTED) {
    return false;
  }
  DAK_RETURN_IF_ERROR(DriverStatus(driver, result, "cuMemSetAccess"));
  return true;
}

DriverMapping::DriverMapping(Tier tier, Access access, MappedMemory memory, CUmemLocation location, bool cpu_reaches)
    : CudaMapping(tier, memory.bytes(), access), memory_(std::move(memory)), location_(location) {
  address_ = memory_.address();
  // The driver reserves addresses that are the CPU's too.
  if (cpu_reaches) host_pointer_ = reinterpret_cast<void*>(address_);
}

absl::Status DriverMapping::MakeReadOnly() {
  if (access_ == Access::kReadOnly) return absl::OkStatus();
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(memory_.context()));
  const CUmemLocation gpu{.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = memory_.context()->device()};
  DAK_RETURN_IF_ERROR(memory_.SetAccess(gpu, CU_MEM_ACCESS_FLAGS_PROT_READ));
  if (absl::Status status = MakeCpuReadOnly(); !status.ok()) {
    // Half read-only would be a mapping that says one thing and does another.
    LogFailure(memory_.SetAccess(gpu, CU_MEM_ACCESS_FLAGS_PROT_READWRITE));
    return status;
  }
  access_ = Access::kReadOnly;
  return absl::OkStatus();
}

absl::Status DriverMapping::Put(const PhysicalMemory& memory, const CUmemLocation& location) {
  host_pointer_ = nullptr;
  DAK_RETURN_IF_ERROR(memory_.Replace(memory));
  const CUmemLocation gpu{.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = memory_.context()->device()};
  DAK_RETURN_IF_ERROR(memory_.SetAccess(gpu, AccessFlags(access_)));
  if (location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
    DAK_ASSIGN_OR_RETURN(const bool cpu_reaches, SetCpuAccess(memory_, location, AccessFlags(access_)));
    if (cpu_reaches) host_pointer_ = reinterpret_cast<void*>(address_);
  }
  location_ = location;
  return absl::OkStatus();
}

absl::Status DriverMapping::Replace(const PhysicalMemory& memory, Tier tier, const CUmemLocation& location) {
  DAK_ASSIGN_OR_RETURN(const PhysicalMemory old, memory_.Retain());
  const absl::Status status = Put(memory, location);
  if (status.ok()) {
    tier_ = tier;
    return status;
  }
  const CUmemLocation old_location = location_;
  const absl::Status restored = Put(old, old_location);
  if (restored.ok()) return status;
  return WithReason(
      absl::Status(status.code(), absl::StrCat(status.message(), "; the memory that was there couldn't be ",
                                               "mapped again: ", restored.message())),
      "MAPPING_LOST");
}

absl::Status DriverMapping::MakeCpuReadOnly() {
  if (host_pointer_ == nullptr) return absl::OkStatus();
  DAK_ASSIGN_OR_RETURN(const bool reaches, SetCpuAccess(memory_, location_, CU_MEM_ACCESS_FLAGS_PROT_READ));
  if (reaches) return absl::OkStatus();
  DAK_RETURN_IF_ERROR(memory_.SetAccess(location_, CU_MEM_ACCESS_FLAGS_PROT_NONE));
  host_pointer_ = nullptr;
  return absl::OkStatus();
}

RegisteredMapping::RegisteredMapping(Tier tier, Access access, RegisteredView view)
    : CudaMapping(tier, view.view.bytes(), access), view_(std::move(view)) {
  host_pointer_ = view_.view.data();
  address_ = view_.device_address;
}

absl::Status RegisteredMapping::MakeReadOnly() {
  if (access_ == Access::kReadOnly) return absl::OkStatus();
  // The GPU keeps its own view as it was registered: registering anew could fail and leave the mapping without an
  // address.
  DAK_RETURN_IF_ERROR(view_.view.MakeReadOnly());
  access_ = Access::kReadOnly;
  return absl::OkStatus();
}

RegisteredPage::RegisteredPage(RegisteredView view) : view_(std::move(view)) {
  host_pointer_ = view_.view.data();
  device_address_ = view_.device_address;
}

}  // namespace dak

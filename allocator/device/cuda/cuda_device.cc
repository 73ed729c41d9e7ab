#include "allocator/device/cuda/cuda_device.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "allocator/device/cuda/cuda_memory.h"
#include "allocator/device/cuda/cuda_objects.h"
#include "allocator/device/device_checks.h"
#include "allocator/device/log.h"
#include "allocator/device/memory_file.h"

namespace dak {
namespace {

CUtensorMapDataType DataTypeOf(ElementType type) {
  switch (type) {
    case ElementType::kBf16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case ElementType::kF16:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case ElementType::kF32:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    case ElementType::kU8:
      break;
  }
  return CU_TENSOR_MAP_DATA_TYPE_UINT8;
}

TensorMap ToBytes(const CUtensorMap& map) {
  TensorMap bytes;
  static_assert(sizeof(map) == sizeof(bytes.bytes));
  std::memcpy(bytes.bytes.data(), &map, sizeof(map));
  return bytes;
}

absl::Status DestroyStream(const CudaDriver& driver, CUstream const& stream) {
  return DAK_CUDA_CALL(driver, cuStreamDestroy, stream);
}

// Work on the legacy default stream, where the synchronous calls of the driver go; some return before it is done.
absl::Status WaitForDefaultStream(const CudaDriver& driver) {
  return DAK_CUDA_CALL(driver, cuStreamSynchronize, nullptr);
}

absl::Status Scrub(const PhysicalMemory& memory, uint64_t bytes, const CUmemLocation& gpu) {
  DAK_ASSIGN_OR_RETURN(MappedMemory mapped, MappedMemory::Map(memory, bytes));
  DAK_RETURN_IF_ERROR(mapped.SetAccess(gpu, CU_MEM_ACCESS_FLAGS_PROT_READWRITE));
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(memory.driver(), cuMemsetD8, mapped.address(), 0, bytes));
  return WaitForDefaultStream(memory.driver());
}

}  // namespace

CUmemLocation CudaDevice::LocationFor(Tier tier) const {
  if (tier == Tier::kHbm) return {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = context_->device()};
  return {.type = CU_MEM_LOCATION_TYPE_HOST_NUMA, .id = tier == Tier::kCxl ? traits_.cxl_node : traits_.host_node};
}

absl::Status CudaDevice::CheckPresent(Tier tier) const {
  DAK_RETURN_IF_ERROR(CheckTier(tier));
  if (tier == Tier::kCxl && traits_.cxl_node < 0) return TierAbsent(tier, "no NUMA node is configured for it");
  return absl::OkStatus();
}

absl::StatusOr<Device::TierInfo> CudaDevice::GetTier(Tier tier) const {
  DAK_RETURN_IF_ERROR(CheckPresent(tier));
  if (tier == Tier::kHbm) {
    size_t bytes = 0;
    DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(context_->driver(), cuDeviceTotalMem, &bytes, context_->device()));
    DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
    size_t free_bytes = 0;
    size_t usable_bytes = 0;
    DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(context_->driver(), cuMemGetInfo, &free_bytes, &usable_bytes));
    return TierInfo{.total_bytes = bytes, .numa_node = -1, .free_bytes = free_bytes};
  }
  const int node = LocationFor(tier).id;
  absl::StatusOr<uint64_t> bytes = NodeMemoryBytes(traits_.node_root, node);
  if (bytes.ok()) return TierInfo{.total_bytes = *bytes, .numa_node = node};
  // Kernels without NUMA list no nodes; all memory is the host tier then.
  if (tier == Tier::kHost) return TierInfo{.total_bytes = MachineMemoryBytes(), .numa_node = node};
  return TierAbsent(tier, bytes.status().message());
}

absl::StatusOr<std::unique_ptr<Segment>> CudaDevice::CreateSegment(Tier tier, uint64_t bytes) {
  DAK_RETURN_IF_ERROR(CheckPresent(tier));
  DAK_RETURN_IF_ERROR(CheckWholeGranules(bytes, kDeviceGranuleBytes));
  if (IsRemote(tier) && !traits_.driver_makes_host_memory) return CreateMemfdSegment(tier, bytes);
  return CreateDriverSegment(tier, bytes);
}

absl::StatusOr<std::unique_ptr<Segment>> CudaDevice::CreateDriverSegment(Tier tier, uint64_t bytes) {
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
  DAK_ASSIGN_OR_RETURN(PhysicalMemory memory, CreatePhysical(context_, LocationFor(tier), bytes));
  DAK_RETURN_IF_ERROR(Scrub(memory, bytes, LocationFor(Tier::kHbm)));
  return std::make_unique<DriverSegment>(tier, bytes, std::move(memory));
}

absl::StatusOr<std::unique_ptr<Segment>> CudaDevice::CreateMemfdSegment(Tier tier, uint64_t bytes) {
  DAK_ASSIGN_OR_RETURN(UniqueFd file, CreateMemoryFile(bytes));
  DAK_ASSIGN_OR_RETURN(MemoryView view, MemoryView::Map(file.get(), bytes, /*writable=*/true));
  const int node = LocationFor(tier).id;
  if (absl::Status bound = BindToNode(view.data(), bytes, node); !bound.ok()) {
    // For the host tier the node is only the nearest one, and sandboxes often forbid mbind; a cxl tier that isn't on
    // its node would be a lie.
    if (tier == Tier::kCxl) return bound;
    if (!binding_failed_.exchange(true)) {
      LogFromDevice(absl::StrCat("host memory isn't bound to NUMA node ", node, ": ", std::string(bound.message())));
    }
  }
  // Makes the pages, zeroed by the kernel, so that running out is an error here and not a signal later.
  if (::fallocate(file.get(), 0, 0, static_cast<off_t>(bytes)) != 0) return SystemError("fallocate", errno);
  return std::make_unique<MemfdSegment>(tier, bytes, std::move(file));
}

absl::StatusOr<ExportedHandle> CudaDevice::Export(const Segment& segment, Access access) {
  ExportedHandle handle{UniqueFd(), segment.kind(), segment.tier(), segment.bytes()};
  if (const auto* made = dynamic_cast<const DriverSegment*>(&segment)) {
    DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
    DAK_ASSIGN_OR_RETURN(handle.fd, ExportPhysical(made->memory()));
  } else if (const auto* memfd = dynamic_cast<const MemfdSegment*>(&segment)) {
    DAK_ASSIGN_OR_RETURN(handle.fd,
                         access == Access::kReadOnly ? ReopenReadOnly(memfd->file()) : DuplicateFd(memfd->file()));
  } else {
    return ForeignObject("segment");
  }
  return handle;
}

absl::StatusOr<std::unique_ptr<Mapping>> CudaDevice::Map(ExportedHandle handle, Access access) {
  DAK_RETURN_IF_ERROR(CheckHandle(handle));
  switch (handle.kind) {
    case HandleKind::kCudaPosixFd:
      return MapDriverHandle(handle, access);
    case HandleKind::kMemfd:
      if (!IsRemote(handle.tier)) return InvalidField("tier", "memfds hold no HBM", "host or cxl", "WRONG_TIER");
      return MapMemfd(handle, access);
  }
  return InvalidField("kind", absl::StrCat(static_cast<int>(handle.kind), " is no kind of handle"), "1 or 2",
                      "BAD_HANDLE_KIND");
}

absl::StatusOr<CudaDevice::Imported> CudaDevice::Import(const ExportedHandle& handle) const {
  DAK_ASSIGN_OR_RETURN(PhysicalMemory memory, ImportPhysical(context_, handle.fd.get()));
  DAK_ASSIGN_OR_RETURN(const CUmemLocation location, LocationOf(memory));
  const bool in_hbm = location.type == CU_MEM_LOCATION_TYPE_DEVICE;
  if (in_hbm == IsRemote(handle.tier)) {
    return InvalidField("tier", absl::StrCat("the handle's memory isn't in ", TierName(handle.tier)),
                        in_hbm ? "hbm" : "host or cxl", "WRONG_TIER");
  }
  return Imported{std::move(memory), location};
}

absl::StatusOr<std::unique_ptr<Mapping>> CudaDevice::MapDriverHandle(const ExportedHandle& handle, Access access) {
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
  DAK_ASSIGN_OR_RETURN(const Imported imported, Import(handle));
  DAK_ASSIGN_OR_RETURN(MappedMemory mapped, MappedMemory::Map(imported.memory, handle.bytes));
  DAK_RETURN_IF_ERROR(mapped.SetAccess(LocationFor(Tier::kHbm), AccessFlags(access)));
  bool cpu_reaches = false;
  if (IsRemote(handle.tier)) {
    DAK_ASSIGN_OR_RETURN(cpu_reaches, SetCpuAccess(mapped, imported.location, AccessFlags(access)));
  }
  return std::make_unique<DriverMapping>(handle.tier, access, std::move(mapped), imported.location, cpu_reaches);
}

absl::Status CudaDevice::Replace(Mapping& mapping, ExportedHandle handle) {
  if (dynamic_cast<CudaMapping*>(&mapping) == nullptr) return ForeignObject("mapping");
  DAK_RETURN_IF_ERROR(CheckReplacement(mapping, handle));
  auto* const mapped = dynamic_cast<DriverMapping*>(&mapping);
  if (mapped == nullptr || handle.kind != HandleKind::kCudaPosixFd) {
    return WithReason(absl::FailedPreconditionError("only memory that the driver made can change behind an address"),
                      "DEVICE_UNSUPPORTED");
  }
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
  DAK_ASSIGN_OR_RETURN(const Imported imported, Import(handle));
  return mapped->Replace(imported.memory, handle.tier, imported.location);
}

absl::StatusOr<std::unique_ptr<Mapping>> CudaDevice::MapMemfd(const ExportedHandle& handle, Access access) {
  DAK_RETURN_IF_ERROR(CheckMemoryFile(handle.fd.get(), handle.bytes));
  DAK_ASSIGN_OR_RETURN(RegisteredView registered, Register(handle.fd.get(), handle.bytes, access));
  return std::make_unique<RegisteredMapping>(handle.tier, access, std::move(registered));
}

absl::Status CudaDevice::Upload(Mapping& mapping, uint64_t offset_bytes, absl::Span<const std::byte> source) {
  if (dynamic_cast<CudaMapping*>(&mapping) == nullptr) return ForeignObject("mapping");
  DAK_RETURN_IF_ERROR(CheckUpload(mapping, offset_bytes, source.size()));
  if (source.empty()) return absl::OkStatus();
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
  DAK_RETURN_IF_ERROR(
      DAK_CUDA_CALL(context_->driver(), cuMemcpyHtoD, mapping.address() + offset_bytes, source.data(), source.size()));
  // From pageable memory the copy into a staging buffer may be all that is done.
  return WaitForDefaultStream(context_->driver());
}

absl::Status CudaDevice::Download(const Mapping& mapping, uint64_t offset_bytes, absl::Span<std::byte> target) {
  if (dynamic_cast<const CudaMapping*>(&mapping) == nullptr) return ForeignObject("mapping");
  DAK_RETURN_IF_ERROR(CheckRange(mapping, offset_bytes, target.size()));
  if (target.empty()) return absl::OkStatus();
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
  return DAK_CUDA_CALL(context_->driver(), cuMemcpyDtoH, target.data(), mapping.address() + offset_bytes,
                       target.size());
}

absl::StatusOr<CUstream> CudaDevice::CopyStream() {
  std::lock_guard<std::mutex> lock(copy_mutex_);
  if (!copy_stream_.has_value()) {
    CUstream stream = nullptr;
    DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(context_->driver(), cuStreamCreate, &stream, CU_STREAM_NON_BLOCKING));
    copy_stream_.emplace(context_, stream, DestroyStream);
  }
  return copy_stream_->get();
}

absl::Status CudaDevice::Copy(const Mapping& source, uint64_t source_offset_bytes, Mapping& target,
                              uint64_t target_offset_bytes, uint64_t bytes) {
  if (dynamic_cast<const CudaMapping*>(&source) == nullptr) return ForeignObject("source");
  if (dynamic_cast<CudaMapping*>(&target) == nullptr) return ForeignObject("target");
  DAK_RETURN_IF_ERROR(CheckCopy(source, source_offset_bytes, target, target_offset_bytes, bytes));
  if (bytes == 0) return absl::OkStatus();
  if (source.host_pointer() != nullptr && target.host_pointer() != nullptr) {
    std::memcpy(static_cast<std::byte*>(target.host_pointer()) + target_offset_bytes,
                static_cast<const std::byte*>(source.host_pointer()) + source_offset_bytes, bytes);
    return absl::OkStatus();
  }
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
  DAK_ASSIGN_OR_RETURN(CUstream const stream, CopyStream());
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(context_->driver(), cuMemcpyAsync, target.address() + target_offset_bytes,
                                    source.address() + source_offset_bytes, bytes, stream));
  return DAK_CUDA_CALL(context_->driver(), cuStreamSynchronize, stream);
}

absl::Status CudaDevice::Synchronize() {
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
  return DAK_CUDA_CALL(context_->driver(), cuCtxSynchronize);
}

absl::StatusOr<TensorMap> CudaDevice::EncodeTensorMap(const TensorMapSpec& spec, uint64_t address) {
  DAK_RETURN_IF_ERROR(ValidateTensorMapSpec(spec, address));
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
  const cuuint64_t dimensions[] = {spec.cols, spec.rows};
  const cuuint64_t strides[] = {spec.cols * ElementBytes(spec.element)};
  const cuuint32_t box[] = {spec.box_cols, spec.box_rows};
  const cuuint32_t element_strides[] = {1, 1};
  CUtensorMap map{};
  // No L2 promotion: a box row is whole lines already, and a larger fetch would bring bytes of the next box over the
  // link, which L2 doesn't keep for the host's memory.
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(context_->driver(), cuTensorMapEncodeTiled, &map, DataTypeOf(spec.element), 2,
                                    reinterpret_cast<void*>(address), dimensions, strides, box, element_strides,
                                    CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                    CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  return ToBytes(map);
}

absl::StatusOr<TensorMap> CudaDevice::RebaseTensorMap(const TensorMap& map, uint64_t address) {
  DAK_RETURN_IF_ERROR(CheckTensorAddress(address));
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
  CUtensorMap rebased{};
  std::memcpy(&rebased, map.bytes.data(), sizeof(rebased));
  DAK_RETURN_IF_ERROR(
      DAK_CUDA_CALL(context_->driver(), cuTensorMapReplaceAddress, &rebased, reinterpret_cast<void*>(address)));
  return ToBytes(rebased);
}

absl::StatusOr<RegisteredView> CudaDevice::Register(int fd, uint64_t bytes, Access access) const {
  const bool read_only = access == Access::kReadOnly;
  if (read_only && !traits_.registers_read_only) {
    return WithReason(absl::FailedPreconditionError("the GPU can't register read-only memory"), "DEVICE_UNSUPPORTED");
  }
  DAK_ASSIGN_OR_RETURN(ContextScope scope, ContextScope::Enter(context_));
  return RegisterFile(context_, fd, bytes, read_only);
}

absl::StatusOr<std::unique_ptr<SharedPage>> CudaDevice::CreateSharedPage(uint64_t bytes, UniqueFd* fd) {
  DAK_RETURN_IF_ERROR(CheckWholeGranules(bytes, kSharedPageGranuleBytes));
  DAK_ASSIGN_OR_RETURN(UniqueFd file, CreateMemoryFile(bytes));
  DAK_ASSIGN_OR_RETURN(RegisteredView registered, Register(file.get(), bytes, Access::kReadWrite));
  auto page = std::make_unique<RegisteredPage>(std::move(registered));
  *fd = std::move(file);
  return page;
}

absl::StatusOr<std::unique_ptr<SharedPage>> CudaDevice::MapSharedPage(UniqueFd fd, uint64_t bytes, Access access) {
  DAK_RETURN_IF_ERROR(CheckPageHandle(fd, bytes));
  DAK_ASSIGN_OR_RETURN(RegisteredView registered, Register(fd.get(), bytes, access));
  return std::make_unique<RegisteredPage>(std::move(registered));
}

}  // namespace dak

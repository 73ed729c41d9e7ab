#include "allocator/device/cuda/cuda_memory.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "allocator/base/status_macros.h"

namespace dak {
namespace {

absl::Status ReleasePhysical(const CudaDriver& driver, const CUmemGenericAllocationHandle& handle) {
  return DAK_CUDA_CALL(driver, cuMemRelease, handle);
}

absl::Status FreeAddress(const CudaDriver& driver, const AddressSpan& span) {
  return DAK_CUDA_CALL(driver, cuMemAddressFree, span.address, span.bytes);
}

absl::Status Unmap(const CudaDriver& driver, const AddressSpan& span) {
  return DAK_CUDA_CALL(driver, cuMemUnmap, span.address, span.bytes);
}

absl::Status Unregister(const CudaDriver& driver, void* const& data) {
  return DAK_CUDA_CALL(driver, cuMemHostUnregister, data);
}

}  // namespace

absl::StatusOr<PhysicalMemory> CreatePhysical(const SharedContext& context, const CUmemLocation& location,
                                              uint64_t bytes) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = location;
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  CUmemGenericAllocationHandle handle = 0;
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(context->driver(), cuMemCreate, &handle, bytes, &properties, 0));
  return PhysicalMemory(context, handle, ReleasePhysical);
}

absl::StatusOr<UniqueFd> ExportPhysical(const PhysicalMemory& memory) {
  int fd = -1;
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(memory.driver(), cuMemExportToShareableHandle, &fd, memory.get(),
                                    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  UniqueFd owned(fd);
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return SystemError("fcntl(F_SETFD)", errno);
  return owned;
}

absl::StatusOr<PhysicalMemory> ImportPhysical(const SharedContext& context, int fd) {
  CUmemGenericAllocationHandle handle = 0;
  // The driver takes the descriptor's number in place of a pointer.
  void* const number = reinterpret_cast<void*>(static_cast<uintptr_t>(fd));
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(context->driver(), cuMemImportFromShareableHandle, &handle, number,
                                    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
  return PhysicalMemory(context, handle, ReleasePhysical);
}

absl::StatusOr<CUmemLocation> LocationOf(const PhysicalMemory& memory) {
  CUmemAllocationProp properties{};
  DAK_RETURN_IF_ERROR(
      DAK_CUDA_CALL(memory.driver(), cuMemGetAllocationPropertiesFromHandle, &properties, memory.get()));
  return properties.location;
}

absl::StatusOr<MappedMemory> MappedMemory::Map(const PhysicalMemory& memory, uint64_t bytes) {
  AddressSpan span{.address = 0, .bytes = bytes};
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(memory.driver(), cuMemAddressReserve, &span.address, bytes, 0, 0, 0));
  MappedMemory mapped(Owned<AddressSpan>(memory.context(), span, FreeAddress));
  DAK_RETURN_IF_ERROR(mapped.Replace(memory));
  return mapped;
}

absl::StatusOr<PhysicalMemory> MappedMemory::Retain() const {
  CUmemGenericAllocationHandle handle = 0;
  DAK_RETURN_IF_ERROR(
      DAK_CUDA_CALL(context()->driver(), cuMemRetainAllocationHandle, &handle, reinterpret_cast<void*>(address())));
  return PhysicalMemory(context(), handle, ReleasePhysical);
}

absl::Status MappedMemory::Replace(const PhysicalMemory& memory) {
  mapping_.reset();
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(memory.driver(), cuMemMap, address(), bytes(), 0, memory.get(), 0));
  mapping_.emplace(memory.context(), reservation_.get(), Unmap);
  return absl::OkStatus();
}

absl::Status MappedMemory::SetAccess(const CUmemLocation& location, CUmemAccess_flags flags) {
  const CUmemAccessDesc access{.location = location, .flags = flags};
  return DAK_CUDA_CALL(context()->driver(), cuMemSetAccess, address(), bytes(), &access, 1);
}

absl::StatusOr<RegisteredView> RegisterFile(const SharedContext& context, int fd, uint64_t bytes, bool read_only) {
  DAK_ASSIGN_OR_RETURN(MemoryView view, MemoryView::Map(fd, bytes, /*writable=*/!read_only));
  unsigned int flags = CU_MEMHOSTREGISTER_DEVICEMAP;
  if (read_only) flags |= CU_MEMHOSTREGISTER_READ_ONLY;
  const CudaDriver& driver = context->driver();
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(driver, cuMemHostRegister, view.data(), bytes, flags));
  HostRegistration registration(context, view.data(), Unregister);
  CUdeviceptr address = 0;
  DAK_RETURN_IF_ERROR(DAK_CUDA_CALL(driver, cuMemHostGetDevicePointer, &address, view.data(), 0));
  return RegisteredView{std::move(view), std::move(registration), address};
}

}  // namespace dak

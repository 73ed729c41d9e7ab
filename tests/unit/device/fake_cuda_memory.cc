// The fake driver's memory and descriptors.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/unit/device/fake_cuda_internal.h"

namespace dak {
namespace {

void* Pointer(CUdeviceptr address) { return reinterpret_cast<void*>(address); }

int ProtectionFor(CUmemAccess_flags flags) {
  if (flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE) return PROT_READ | PROT_WRITE;
  return flags == CU_MEM_ACCESS_FLAGS_PROT_READ ? PROT_READ : PROT_NONE;
}

CUresult MemGetAllocationGranularity(size_t* granularity, const CUmemAllocationProp*,
                                     CUmemAllocationGranularity_flags) {
  FAKE_ENTER(cuMemGetAllocationGranularity);
  *granularity = fake.config().granularity;
  return CUDA_SUCCESS;
}

uint64_t DeviceBytesInUse(const FakeCuda& fake) {
  uint64_t used = 0;
  for (const auto& [number, handle] : fake.state.handles) {
    if (handle.created && handle.location.type == CU_MEM_LOCATION_TYPE_DEVICE) used += handle.bytes;
  }
  return used;
}

CUresult MemCreate(CUmemGenericAllocationHandle* number, size_t bytes, const CUmemAllocationProp* prop,
                   unsigned long long flags) {
  FAKE_ENTER(cuMemCreate);
  if (bytes == 0 || bytes % fake.config().granularity != 0 || flags != 0 ||
      prop->type != CU_MEM_ALLOCATION_TYPE_PINNED ||
      prop->requestedHandleTypes != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
    return fake.Breach("cuMemCreate with odd arguments", CUDA_ERROR_INVALID_VALUE);
  }
  if (prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
      bytes > fake.config().device_bytes - DeviceBytesInUse(fake)) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  const std::string name = absl::StrCat("fake-", static_cast<int>(prop->location.type), "-", prop->location.id);
  const int fd = ::memfd_create(name.c_str(), MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return CUDA_ERROR_OPERATING_SYSTEM;
  // Old contents, as a driver that doesn't promise zeroes may hand out.
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  std::memset(data, 0x5C, bytes);
  ::munmap(data, bytes);
  *number = fake.state.next_handle++;
  fake.state.handles[*number] = {fd, bytes, prop->location, true};
  return CUDA_SUCCESS;
}

CUresult MemRelease(CUmemGenericAllocationHandle number) {
  FAKE_ENTER_RELEASE(cuMemRelease);
  auto found = fake.state.handles.find(number);
  if (found == fake.state.handles.end()) return fake.Breach("release of a strange handle", CUDA_ERROR_INVALID_VALUE);
  ::close(found->second.fd);
  fake.state.handles.erase(found);
  return ordered;
}

CUresult MemAddressReserve(CUdeviceptr* address, size_t bytes, size_t alignment, CUdeviceptr wish,
                           unsigned long long flags) {
  FAKE_ENTER(cuMemAddressReserve);
  if (bytes % fake.config().granularity != 0 || alignment != 0 || wish != 0 || flags != 0) {
    return fake.Breach("cuMemAddressReserve with odd arguments", CUDA_ERROR_INVALID_VALUE);
  }
  void* data = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  *address = reinterpret_cast<CUdeviceptr>(data);
  fake.state.reservations[*address] = bytes;
  return CUDA_SUCCESS;
}

CUresult MemAddressFree(CUdeviceptr address, size_t bytes) {
  FAKE_ENTER_RELEASE(cuMemAddressFree);
  auto found = fake.state.reservations.find(address);
  if (found == fake.state.reservations.end() || found->second != bytes) {
    return fake.Breach("free of a strange address", CUDA_ERROR_INVALID_VALUE);
  }
  if (fake.state.mappings.count(address) != 0)
    return fake.Breach("address freed while mapped", CUDA_ERROR_INVALID_VALUE);
  ::munmap(Pointer(address), bytes);
  fake.state.reservations.erase(found);
  return ordered;
}

CUresult MemMap(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle number,
                unsigned long long flags) {
  FAKE_ENTER(cuMemMap);
  auto handle = fake.state.handles.find(number);
  auto reservation = fake.state.reservations.find(address);
  if (handle == fake.state.handles.end() || reservation == fake.state.reservations.end() ||
      reservation->second != bytes || offset != 0 || flags != 0 || fake.state.mappings.count(address) != 0) {
    return fake.Breach("cuMemMap with odd arguments", CUDA_ERROR_INVALID_VALUE);
  }
  if (bytes > handle->second.bytes) return CUDA_ERROR_INVALID_VALUE;
  if (::mmap(Pointer(address), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, handle->second.fd, 0) == MAP_FAILED) {
    return CUDA_ERROR_OPERATING_SYSTEM;
  }
  fake.state.mappings[address] = {
      .bytes = bytes, .fd = ::fcntl(handle->second.fd, F_DUPFD_CLOEXEC, 0), .location = handle->second.location};
  return CUDA_SUCCESS;
}

CUresult MemUnmap(CUdeviceptr address, size_t bytes) {
  FAKE_ENTER_RELEASE(cuMemUnmap);
  auto found = fake.state.mappings.find(address);
  if (found == fake.state.mappings.end() || found->second.bytes != bytes) {
    return fake.Breach("unmap of a strange address", CUDA_ERROR_INVALID_VALUE);
  }
  ::mmap(Pointer(address), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  ::close(found->second.fd);
  fake.state.mappings.erase(found);
  return ordered;
}

CUresult MemSetAccess(CUdeviceptr address, size_t bytes, const CUmemAccessDesc* access, size_t count) {
  FAKE_ENTER(cuMemSetAccess);
  auto found = fake.state.mappings.find(address);
  if (found == fake.state.mappings.end() || found->second.bytes != bytes || count != 1) {
    return fake.Breach("cuMemSetAccess of a strange range", CUDA_ERROR_INVALID_VALUE);
  }
  FakeCuda::Mapping& mapping = found->second;
  if (access->location.type == CU_MEM_LOCATION_TYPE_DEVICE) {
    mapping.gpu = access->flags;
  } else {
    if (mapping.location.type != CU_MEM_LOCATION_TYPE_HOST_NUMA) {
      return fake.Breach("CPU access to memory of the device", CUDA_ERROR_INVALID_VALUE);
    }
    const CUresult answer = access->flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE ? fake.config().cpu_write_access
                            : access->flags == CU_MEM_ACCESS_FLAGS_PROT_READ    ? fake.config().cpu_read_access
                                                                                : CUDA_SUCCESS;
    if (answer != CUDA_SUCCESS) return answer;
    mapping.cpu = access->flags;
  }
  // One address space serves both here: the copies below check the GPU's access, the page tables the CPU's.
  return ::mprotect(Pointer(address), bytes, ProtectionFor(mapping.cpu)) == 0 ? CUDA_SUCCESS
                                                                              : CUDA_ERROR_OPERATING_SYSTEM;
}

CUresult MemExport(void* shareable, CUmemGenericAllocationHandle number, CUmemAllocationHandleType type,
                   unsigned long long flags) {
  FAKE_ENTER(cuMemExportToShareableHandle);
  auto found = fake.state.handles.find(number);
  if (found == fake.state.handles.end() || type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || flags != 0) {
    return fake.Breach("cuMemExportToShareableHandle with odd arguments", CUDA_ERROR_INVALID_VALUE);
  }
  const int fd = ::dup(found->second.fd);
  if (fd < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  std::memcpy(shareable, &fd, sizeof(fd));
  return CUDA_SUCCESS;
}

CUresult MemImport(CUmemGenericAllocationHandle* number, void* shareable, CUmemAllocationHandleType type) {
  FAKE_ENTER(cuMemImportFromShareableHandle);
  if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return fake.Breach("import type", CUDA_ERROR_INVALID_VALUE);
  const int fd = static_cast<int>(reinterpret_cast<uintptr_t>(shareable));
  char target[256] = {};
  int location_type = 0;
  int location_id = 0;
  struct stat info {};
  if (::readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), target, sizeof(target) - 1) < 0 ||
      std::sscanf(target, "/memfd:fake-%d-%d", &location_type, &location_id) != 2 || ::fstat(fd, &info) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  *number = fake.state.next_handle++;
  fake.state.handles[*number] = {::fcntl(fd, F_DUPFD_CLOEXEC, 0),
                                 static_cast<uint64_t>(info.st_size),
                                 {static_cast<CUmemLocationType>(location_type), location_id},
                                 false};
  return CUDA_SUCCESS;
}

CUresult MemGetProperties(CUmemAllocationProp* prop, CUmemGenericAllocationHandle number) {
  FAKE_ENTER(cuMemGetAllocationPropertiesFromHandle);
  auto found = fake.state.handles.find(number);
  if (found == fake.state.handles.end()) return fake.Breach("properties of a strange handle", CUDA_ERROR_INVALID_VALUE);
  *prop = {};
  prop->location = found->second.location;
  return CUDA_SUCCESS;
}

// True if the GPU may read (or write) the range, as mapped or registered memory.
bool GpuReaches(const FakeCuda& fake, CUdeviceptr address, size_t bytes, bool write) {
  auto mapping = fake.state.mappings.upper_bound(address);
  if (mapping != fake.state.mappings.begin()) {
    --mapping;
    if (address + bytes <= mapping->first + mapping->second.bytes) {
      return write ? mapping->second.gpu == CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                   : mapping->second.gpu != CU_MEM_ACCESS_FLAGS_PROT_NONE;
    }
  }
  auto registered = fake.state.registrations.upper_bound(address);
  if (registered == fake.state.registrations.begin()) return false;
  --registered;
  return address + bytes <= registered->first + registered->second.bytes && !(write && registered->second.read_only);
}

// The copy engine doesn't ask the CPU's page tables.
template <typename Copy>
void WithCpuAccess(const FakeCuda& fake, CUdeviceptr address, Copy copy) {
  auto mapping = fake.state.mappings.upper_bound(address);
  const bool mapped =
      mapping != fake.state.mappings.begin() && address < std::prev(mapping)->first + std::prev(mapping)->second.bytes;
  if (!mapped) return copy();
  --mapping;
  void* const start = Pointer(mapping->first);
  ::mprotect(start, mapping->second.bytes, PROT_READ | PROT_WRITE);
  copy();
  ::mprotect(start, mapping->second.bytes, ProtectionFor(mapping->second.cpu));
}

CUresult MemsetD8(CUdeviceptr address, unsigned char value, size_t bytes) {
  FAKE_ENTER(cuMemsetD8);
  FAKE_NEED_CONTEXT(cuMemsetD8);
  if (!GpuReaches(fake, address, bytes, true)) return fake.Breach("memset without access", CUDA_ERROR_ILLEGAL_ADDRESS);
  WithCpuAccess(fake, address, [&] { std::memset(Pointer(address), value, bytes); });
  return CUDA_SUCCESS;
}

CUresult MemcpyHtoD(CUdeviceptr address, const void* source, size_t bytes) {
  FAKE_ENTER(cuMemcpyHtoD);
  FAKE_NEED_CONTEXT(cuMemcpyHtoD);
  if (!GpuReaches(fake, address, bytes, true)) return fake.Breach("copy without access", CUDA_ERROR_ILLEGAL_ADDRESS);
  WithCpuAccess(fake, address, [&] { std::memcpy(Pointer(address), source, bytes); });
  return CUDA_SUCCESS;
}

CUresult MemcpyDtoH(void* target, CUdeviceptr address, size_t bytes) {
  FAKE_ENTER(cuMemcpyDtoH);
  FAKE_NEED_CONTEXT(cuMemcpyDtoH);
  if (!GpuReaches(fake, address, bytes, false)) return fake.Breach("copy without access", CUDA_ERROR_ILLEGAL_ADDRESS);
  WithCpuAccess(fake, address, [&] { std::memcpy(target, Pointer(address), bytes); });
  return CUDA_SUCCESS;
}

CUresult MemcpyAsync(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream) {
  FAKE_ENTER(cuMemcpyAsync);
  FAKE_NEED_CONTEXT(cuMemcpyAsync);
  if (!GpuReaches(fake, source, bytes, false) || !GpuReaches(fake, target, bytes, true)) {
    return fake.Breach("copy without access", CUDA_ERROR_ILLEGAL_ADDRESS);
  }
  WithCpuAccess(fake, source,
                [&] { WithCpuAccess(fake, target, [&] { std::memcpy(Pointer(target), Pointer(source), bytes); }); });
  return CUDA_SUCCESS;
}

CUresult MemRetain(CUmemGenericAllocationHandle* number, void* address) {
  FAKE_ENTER(cuMemRetainAllocationHandle);
  auto found = fake.state.mappings.find(reinterpret_cast<CUdeviceptr>(address));
  if (found == fake.state.mappings.end()) return fake.Breach("retaining nothing", CUDA_ERROR_INVALID_VALUE);
  const FakeCuda::Mapping& mapping = found->second;
  *number = fake.state.next_handle++;
  fake.state.handles[*number] = {::fcntl(mapping.fd, F_DUPFD_CLOEXEC, 0), mapping.bytes, mapping.location, false};
  return CUDA_SUCCESS;
}

CUresult MemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  FAKE_ENTER(cuMemGetInfo);
  FAKE_NEED_CONTEXT(cuMemGetInfo);
  *total_bytes = fake.config().device_bytes;
  *free_bytes = *total_bytes - DeviceBytesInUse(fake);
  return CUDA_SUCCESS;
}

CUresult MemHostRegister(void* data, size_t bytes, unsigned int flags) {
  FAKE_ENTER(cuMemHostRegister);
  FAKE_NEED_CONTEXT(cuMemHostRegister);
  if ((flags & ~static_cast<unsigned>(CU_MEMHOSTREGISTER_READ_ONLY)) != CU_MEMHOSTREGISTER_DEVICEMAP) {
    return fake.Breach("cuMemHostRegister with odd flags", CUDA_ERROR_INVALID_VALUE);
  }
  const CUdeviceptr address = reinterpret_cast<CUdeviceptr>(data);
  if (fake.state.registrations.count(address) != 0) return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
  fake.state.registrations[address] = {bytes, (flags & CU_MEMHOSTREGISTER_READ_ONLY) != 0};
  return CUDA_SUCCESS;
}

CUresult MemHostUnregister(void* data) {
  FAKE_ENTER_RELEASE(cuMemHostUnregister);
  // The memory must still be there: registrations die before the views they are of.
  if (::msync(data, 4096, MS_ASYNC) != 0) fake.Breach("unregistering unmapped memory", CUDA_ERROR_INVALID_VALUE);
  if (fake.state.registrations.erase(reinterpret_cast<CUdeviceptr>(data)) == 0) {
    return fake.Breach("unregistering strange memory", CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
  }
  return ordered;
}

CUresult MemHostGetDevicePointer(CUdeviceptr* address, void* data, unsigned int flags) {
  FAKE_ENTER(cuMemHostGetDevicePointer);
  const CUdeviceptr found = reinterpret_cast<CUdeviceptr>(data);
  if (flags != 0 || fake.state.registrations.count(found) == 0) {
    return fake.Breach("device pointer of strange memory", CUDA_ERROR_INVALID_VALUE);
  }
  *address = found;
  return CUDA_SUCCESS;
}

CUresult TensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                              const cuuint64_t* dimensions, const cuuint64_t* strides, const cuuint32_t* box,
                              const cuuint32_t* element_strides, CUtensorMapInterleave interleave,
                              CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                              CUtensorMapFloatOOBfill fill) {
  FAKE_ENTER(cuTensorMapEncodeTiled);
  FAKE_NEED_CONTEXT(cuTensorMapEncodeTiled);
  if (rank != 2 || element_strides[0] != 1 || element_strides[1] != 1 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) {
    return fake.Breach("cuTensorMapEncodeTiled with odd arguments", CUDA_ERROR_INVALID_VALUE);
  }
  *map = {};
  map->opaque[0] = reinterpret_cast<uint64_t>(address);
  map->opaque[1] = dimensions[0];
  map->opaque[2] = dimensions[1];
  map->opaque[3] = strides[0];
  map->opaque[4] = box[0] | static_cast<uint64_t>(box[1]) << 32;
  map->opaque[5] = static_cast<uint64_t>(type) | static_cast<uint64_t>(swizzle) << 8 |
                   static_cast<uint64_t>(promotion) << 16 | static_cast<uint64_t>(fill) << 24;
  return CUDA_SUCCESS;
}

CUresult TensorMapReplaceAddress(CUtensorMap* map, void* address) {
  FAKE_ENTER(cuTensorMapReplaceAddress);
  FAKE_NEED_CONTEXT(cuTensorMapReplaceAddress);
  map->opaque[0] = reinterpret_cast<uint64_t>(address);
  return CUDA_SUCCESS;
}

}  // namespace

void FillFakeMemoryFunctions(CudaDriver* table) {
  table->cuMemGetAllocationGranularity = MemGetAllocationGranularity;
  table->cuMemCreate = MemCreate;
  table->cuMemRelease = MemRelease;
  table->cuMemAddressReserve = MemAddressReserve;
  table->cuMemAddressFree = MemAddressFree;
  table->cuMemMap = MemMap;
  table->cuMemUnmap = MemUnmap;
  table->cuMemSetAccess = MemSetAccess;
  table->cuMemExportToShareableHandle = MemExport;
  table->cuMemImportFromShareableHandle = MemImport;
  table->cuMemGetAllocationPropertiesFromHandle = MemGetProperties;
  table->cuMemsetD8 = MemsetD8;
  table->cuMemcpyHtoD = MemcpyHtoD;
  table->cuMemcpyDtoH = MemcpyDtoH;
  table->cuMemcpyAsync = MemcpyAsync;
  table->cuMemRetainAllocationHandle = MemRetain;
  table->cuMemGetInfo = MemGetInfo;
  table->cuMemHostRegister = MemHostRegister;
  table->cuMemHostUnregister = MemHostUnregister;
  table->cuMemHostGetDevicePointer = MemHostGetDevicePointer;
  table->cuTensorMapEncodeTiled = TensorMapEncodeTiled;
  table->cuTensorMapReplaceAddress = TensorMapReplaceAddress;
}

}  // namespace dak

// The driver's memory objects as owners: physical memory, reserved addresses, mappings, registrations of CPU memory.
//
// Lifetimes nest: a mapping inside its reservation, both independent of the physical memory, which the driver keeps
// while it is mapped anywhere. All calls here expect the context to be current (ContextScope).
// Thread safety: objects are one owner's; functions may be called from any thread.
// Errors: DriverStatus of the call that failed; nothing is left behind.
// Source: CUDA Driver API, "Virtual Memory Management", "Memory Management" (cuMemHostRegister).
#ifndef DAK_ALLOCATOR_DEVICE_CUDA_CUDA_MEMORY_H_
#define DAK_ALLOCATOR_DEVICE_CUDA_CUDA_MEMORY_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocator/base/unique_fd.h"
#include "allocator/device/cuda/cuda_context.h"
#include "allocator/device/memory_file.h"

namespace dak {

struct AddressSpan {
  CUdeviceptr address = 0;
  uint64_t bytes = 0;
};

using PhysicalMemory = Owned<CUmemGenericAllocationHandle>;
using HostRegistration = Owned<void*>;

// Makes physical memory that can be exported as a POSIX descriptor.
absl::StatusOr<PhysicalMemory> CreatePhysical(const SharedContext& context, const CUmemLocation& location,
                                              uint64_t bytes);
// A descriptor that another process can import. Close-on-exec.
absl::StatusOr<UniqueFd> ExportPhysical(const PhysicalMemory& memory);
// Doesn't take the descriptor; it may be closed at once.
absl::StatusOr<PhysicalMemory> ImportPhysical(const SharedContext& context, int fd);
absl::StatusOr<CUmemLocation> LocationOf(const PhysicalMemory& memory);

// Physical memory at an address, without access until SetAccess. Unmaps and frees the address on destruction.
class MappedMemory {
 public:
  static absl::StatusOr<MappedMemory> Map(const PhysicalMemory& memory, uint64_t bytes);
  MappedMemory(MappedMemory&&) noexcept = default;
  CUdeviceptr address() const { return reservation_.get().address; }
  uint64_t bytes() const { return reservation_.get().bytes; }
  const SharedContext& context() const { return reservation_.context(); }
  // A handle of the memory that is mapped.
  absl::StatusOr<PhysicalMemory> Retain() const;
  // Maps other memory, of as many bytes, at the address, without access until SetAccess. If that fails, nothing is
  // mapped there.
  absl::Status Replace(const PhysicalMemory& memory);
  // `location` may be the device, or HOST_NUMA for the CPU where the memory is the host's.
  absl::Status SetAccess(const CUmemLocation& location, CUmemAccess_flags flags);

 private:
  explicit MappedMemory(Owned<AddressSpan> reservation) : reservation_(std::move(reservation)) {}
  Owned<AddressSpan> reservation_;  // dies after the mapping
  std::optional<Owned<AddressSpan>> mapping_;
};

// A memory file in this process, registered so that the GPU reaches it too.
struct RegisteredView {
  MemoryView view;
  HostRegistration registration;  // dies before the view
  uint64_t device_address;
};
// Maps and registers; a read-only view is read-only to the GPU too.
absl::StatusOr<RegisteredView> RegisterFile(const SharedContext& context, int fd, uint64_t bytes, bool read_only);

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_CUDA_CUDA_MEMORY_H_

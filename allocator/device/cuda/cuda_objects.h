// What a CudaDevice hands out. Known to its implementation only.
#ifndef DAK_ALLOCATOR_DEVICE_CUDA_CUDA_OBJECTS_H_
#define DAK_ALLOCATOR_DEVICE_CUDA_CUDA_OBJECTS_H_

#include <memory>
#include <utility>

#include "allocator/device/cuda/cuda_memory.h"
#include "allocator/device/device.h"
#include "allocator/device/memory_file.h"

namespace dak {

// Memory that the driver made.
class DriverSegment final : public Segment {
 public:
  DriverSegment(Tier tier, uint64_t bytes, PhysicalMemory memory)
      : Segment(tier, bytes, HandleKind::kCudaPosixFd), memory_(std::move(memory)) {}
  const PhysicalMemory& memory() const { return memory_; }

 private:
  PhysicalMemory memory_;
};

// Memory of a memfd.
class MemfdSegment final : public Segment {
 public:
  MemfdSegment(Tier tier, uint64_t bytes, UniqueFd file)
      : Segment(tier, bytes, HandleKind::kMemfd), file_(std::move(file)) {}
  int file() const { return file_.get(); }

 private:
  UniqueFd file_;
};

// Both kinds of mapping, so that uploads and downloads needn't know which.
class CudaMapping : public Mapping {
 protected:
  using Mapping::Mapping;
};

class DriverMapping final : public CudaMapping {
 public:
  // `cpu_reaches`: access was set for the CPU too.
  DriverMapping(Tier tier, Access access, MappedMemory memory, CUmemLocation location, bool cpu_reaches);
  absl::Status MakeReadOnly() override;
  // As Device::Replace. `location` is where `memory` is. The context must be current.
  absl::Status Replace(const PhysicalMemory& memory, Tier tier, const CUmemLocation& location);

 private:
  absl::Status MakeCpuReadOnly();
  absl::Status Put(const PhysicalMemory& memory, const CUmemLocation& location);

  MappedMemory memory_;
  CUmemLocation location_;  // where the memory is
};

class RegisteredMapping final : public CudaMapping {
 public:
  RegisteredMapping(Tier tier, Access access, RegisteredView view);
  absl::Status MakeReadOnly() override;

 private:
  RegisteredView view_;
};

class RegisteredPage final : public SharedPage {
 public:
  explicit RegisteredPage(RegisteredView view);

 private:
  RegisteredView view_;
};

CUmemAccess_flags AccessFlags(Access access);

// Sets the CPU's access to HOST_NUMA memory. False where the driver refuses to give the CPU any (not an error: the GPU
// still reaches it).
absl::StatusOr<bool> SetCpuAccess(MappedMemory& memory, const CUmemLocation& location, CUmemAccess_flags flags);

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_CUDA_CUDA_OBJECTS_H_

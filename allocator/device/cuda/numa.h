// What Linux says of NUMA nodes, and placing memory on one.
//
// Thread safety: functions are thread-safe.
// Source: Linux, Documentation/admin-guide/mm/numaperf.rst, mbind(2).
#ifndef DAK_ALLOCATOR_DEVICE_CUDA_NUMA_H_
#define DAK_ALLOCATOR_DEVICE_CUDA_NUMA_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dak {

inline constexpr char kNodeRoot[] = "/sys/devices/system/node";
inline constexpr int kMaxNode = 1023;

// Memory of a node in bytes. NOT_FOUND if there is no such node under `root` or it doesn't say.
absl::StatusOr<uint64_t> NodeMemoryBytes(const std::string& root, int node);

// Memory of the whole machine in bytes.
uint64_t MachineMemoryBytes();

// Pages of the mapping that don't exist yet are made on this node or not at all. For a memfd the rule holds for every
// process that touches those pages. `node` is 0 to kMaxNode. Errors as SystemError.
absl::Status BindToNode(void* address, uint64_t bytes, int node);

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_CUDA_NUMA_H_

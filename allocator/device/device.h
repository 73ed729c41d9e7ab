// The machine as dak sees it: memory in three tiers, handles that cross processes, mappings, TMA descriptors.
//
// One interface, two implementations: `cuda` (driver API, libcuda opened at run time) and `emulated` (memfds, and a
// model of the link). The daemon uses the half that makes memory (CreateSegment, Export); the client library the half
// that maps it (Map, Replace, RebaseTensorMap, Upload, Download). Every implementation passes tests/unit/device's
// conformance suite.
//
// Ownership: a Segment owns physical memory, a Mapping an address range. Memory lives until its Segment is gone and no
// process maps it: that is the driver's rule, and the emulated device keeps it too.
// Thread safety: all methods of Device may be called from any thread; a Segment or Mapping is one owner's.
// Errors: driver failures are INTERNAL (RESOURCE_EXHAUSTED for out of memory) with reason DRIVER_ERROR and the driver's
// name and number for the code in the message; bad arguments are INVALID_ARGUMENT; what a machine doesn't have is
// FAILED_PRECONDITION with reason TIER_ABSENT; writing through a read-only descriptor is PERMISSION_DENIED.
// Source: CUDA Driver API, "Virtual Memory Management" and "Tensor Map Object Management".
#ifndef DAK_ALLOCATOR_DEVICE_DEVICE_H_
#define DAK_ALLOCATOR_DEVICE_DEVICE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "allocator/base/tier.h"
#include "allocator/base/unique_fd.h"
#include "allocator/device/link_model.h"

namespace dak {

enum class HandleKind : int { kCudaPosixFd = 1, kMemfd = 2 };  // values equal dak.v1.HandleKind's
enum class Access { kReadOnly, kReadWrite };
enum class ElementType : int { kBf16 = 1, kF16 = 2, kF32 = 3, kU8 = 4 };  // values equal dak.v1.DataType's

constexpr uint64_t ElementBytes(ElementType type) {
  return type == ElementType::kF32 ? 4 : type == ElementType::kU8 ? 1 : 2;
}

// Physical memory of one tier. Destroying it drops this process's hold.
class Segment {
 public:
  virtual ~Segment() = default;
  Tier tier() const { return tier_; }
  uint64_t bytes() const { return bytes_; }
  HandleKind kind() const { return kind_; }

 protected:
  Segment(Tier tier, uint64_t bytes, HandleKind kind) : tier_(tier), bytes_(bytes), kind_(kind) {}

 private:
  Tier tier_;
  uint64_t bytes_;
  HandleKind kind_;
};

// A segment on its way to another process.
struct ExportedHandle {
  UniqueFd fd;
  HandleKind kind = HandleKind::kMemfd;
  Tier tier = Tier::kHbm;
  uint64_t bytes = 0;
};

// A segment mapped into this process, at one address for the GPU. Destroying it unmaps.
class Mapping {
 public:
  virtual ~Mapping() = default;
  // What kernels use. On the emulated device a pointer of this process.
  uint64_t address() const { return address_; }
  uint64_t bytes() const { return bytes_; }
  Tier tier() const { return tier_; }
  // Where the CPU can reach the same bytes; null if it can't.
  void* host_pointer() const { return host_pointer_; }
  Access access() const { return access_; }
  // Read-write to read-only, as publishing does; there is no way back. OK if it is read-only already.
  virtual absl::Status MakeReadOnly() = 0;

 protected:
  Mapping(Tier tier, uint64_t bytes, Access access) : tier_(tier), bytes_(bytes), access_(access) {}
  Tier tier_;
  uint64_t bytes_;
  Access access_;
  uint64_t address_ = 0;
  void* host_pointer_ = nullptr;
};

// The 128 bytes of a TMA descriptor (a CUtensorMap on CUDA).
struct alignas(64) TensorMap {
  std::array<uint8_t, 128> bytes{};
  friend bool operator==(const TensorMap&, const TensorMap&) = default;
};

// A row-major 2-D array without padding, read in boxes with the 128-byte swizzle.
struct TensorMapSpec {
  ElementType element = ElementType::kBf16;
  uint64_t rows = 0;
  uint64_t cols = 0;       // cols * element size must be a multiple of 16 bytes
  uint32_t box_rows = 64;  // 1 to 256
  uint32_t box_cols = 64;  // box_cols * element size must be 128 bytes
};

// A page shared between the daemon and a client (proto/dak/v1/control_page.h). Plain CPU memory on both devices; on
// CUDA registered with the driver, so that kernels reach it too.
class SharedPage {
 public:
  virtual ~SharedPage() = default;
  void* host_pointer() const { return host_pointer_; }
  uint64_t device_address() const { return device_address_; }

 protected:
  void* host_pointer_ = nullptr;
  uint64_t device_address_ = 0;
};

struct DeviceDescription {
  std::string kind;  // "cuda", "emulated"
  std::string name;
  int ordinal = 0;
  std::string uuid;            // cuda: 32 hex digits; emulated: empty
  std::string driver;          // cuda: "CUDA 13.0, 580.95.05", the latter where the kernel module tells; else empty
  int compute_capability = 0;  // cuda: 90 for Hopper; emulated: 0
  int multiprocessors = 0;
  int cxl_numa_node = -1;  // cuda: what backs the cxl tier; -1: there is none
  LinkModel link;          // number 0; emulated: what is modelled; cuda: defaults until measured
  // Emulated: the cxl tier's own link, number 1. Without it reads of cxl share link 0, as on a cuda device, where all
  // that is remote crosses the GPU's path to its host.
  std::optional<LinkModel> cxl_link = std::nullopt;

  uint32_t link_count() const { return cxl_link.has_value() ? 2 : 1; }
  uint32_t LinkOf(Tier tier) const { return tier == Tier::kCxl && cxl_link.has_value() ? 1 : 0; }
};

class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceDescription& description() const = 0;

  // Bytes of the tier that this machine has, and the NUMA node behind it (-1 for HBM).
  struct TierInfo {
    uint64_t total_bytes = 0;
    int numa_node = -1;
    std::optional<uint64_t> free_bytes = std::nullopt;  // as the driver counts them, where it does: HBM on cuda
  };
  virtual absl::StatusOr<TierInfo> GetTier(Tier tier) const = 0;

  // Makes `bytes` (whole 2 MiB granules, at least one) of a tier and scrubs them: every byte is zero when this returns.
  virtual absl::StatusOr<std::unique_ptr<Segment>> CreateSegment(Tier tier, uint64_t bytes) = 0;
  // A descriptor that another process can Map. With kReadOnly, writing through it is refused where the handle's kind
  // allows that to be enforced (memfds); a CUDA handle leaves it to the mapping side (docs/security.md).
  virtual absl::StatusOr<ExportedHandle> Export(const Segment& segment, Access access) = 0;
  // Maps an exported segment. Takes the descriptor, also on failure.
  virtual absl::StatusOr<std::unique_ptr<Mapping>> Map(ExportedHandle handle, Access access) = 0;

  // Copies between this process's memory and a mapping, and waits until it is done. Bounds are checked (OUT_OF_RANGE);
  // a read-only mapping refuses Upload (FAILED_PRECONDITION).
  virtual absl::Status Upload(Mapping& mapping, uint64_t offset_bytes, absl::Span<const std::byte> source) = 0;
  virtual absl::Status Download(const Mapping& mapping, uint64_t offset_bytes, absl::Span<std::byte> target) = 0;

  // Copies between two mappings of this process, whose ranges mustn't overlap, and waits until it is done: by the CPU
  // between remote tiers, so that nothing crosses the link for it, else by the copy engine on a stream of the device's
  // own, which no other stream is ordered with. Errors as Upload's, with `source_offset_bytes` or
  // `target_offset_bytes`.
  virtual absl::Status Copy(const Mapping& source, uint64_t source_offset_bytes, Mapping& target,
                            uint64_t target_offset_bytes, uint64_t bytes) = 0;
  // Puts the handle's memory (of as many bytes, of any tier) behind the mapping's addresses, which stay, in place of
  // what was there, with the same access. Nothing may use the addresses meanwhile. Takes the descriptor, also on
  // failure. All or nothing: if it fails, the old memory is there; if even that can't be had back, the reason is
  // MAPPING_LOST and nothing is behind the addresses. FAILED_PRECONDITION with DEVICE_UNSUPPORTED for memfds on cuda.
  virtual absl::Status Replace(Mapping& mapping, ExportedHandle handle) = 0;
  // Waits for everything that this process has enqueued on the device.
  virtual absl::Status Synchronize() = 0;

  // Encodes a descriptor for an array at `address` (a multiple of 16; it needn't be mapped in this process).
  // Deterministic: equal arguments give equal bytes, in any process.
  virtual absl::StatusOr<TensorMap> EncodeTensorMap(const TensorMapSpec& spec, uint64_t address) = 0;
  // The same descriptor at another address, which mustn't be null: equal to encoding it there.
  virtual absl::StatusOr<TensorMap> RebaseTensorMap(const TensorMap& map, uint64_t address) = 0;

  // A zeroed page of `bytes` (whole 4 KiB pages) behind `*fd`, mapped read-write here. `*fd` is read-write; for a
  // reader, ReopenReadOnly (allocator/device/memory_file.h) makes a descriptor that can't be mapped for writing.
  virtual absl::StatusOr<std::unique_ptr<SharedPage>> CreateSharedPage(uint64_t bytes, UniqueFd* fd) = 0;
  // Maps another process's page. Takes the descriptor.
  virtual absl::StatusOr<std::unique_ptr<SharedPage>> MapSharedPage(UniqueFd fd, uint64_t bytes, Access access) = 0;
};

// Checks what every implementation checks alike. INVALID_ARGUMENT names the field.
absl::Status ValidateTensorMapSpec(const TensorMapSpec& spec, uint64_t address);

struct EmulatedDeviceOptions {
  std::array<uint64_t, kTierCount> tier_bytes = {uint64_t{1} << 30, uint64_t{4} << 30, 0};  // by TierIndex; 0: absent
  LinkModel link;
  std::optional<LinkModel> cxl_link = std::nullopt;  // as DeviceDescription's
};

struct DeviceOptions {
  enum class Kind { kAuto, kCuda, kEmulated };
  Kind kind = Kind::kAuto;  // auto: cuda if a driver and a GPU are there, else emulated
  int ordinal = 0;          // cuda
  std::string uuid;         // cuda: if not empty, chooses the device instead of `ordinal`
  int cxl_numa_node = -1;   // cuda: the node that backs the cxl tier; -1: no such tier
  // cuda: back host and cxl by registered memfds even where the driver can make such memory itself (docs/devices.md).
  bool host_memfd = false;
  EmulatedDeviceOptions emulated;
};

// NOT_FOUND if `kind` is kCuda and this build has no CUDA, or there is no driver or no such GPU (the message says
// which). FAILED_PRECONDITION if there is one that dak can't use (driver too old, no virtual memory management), also
// for kAuto: emulation never hides a GPU that is there.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const DeviceOptions& options);

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_DEVICE_H_

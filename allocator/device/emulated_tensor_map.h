// The emulated device's own TMA descriptor: what a CUtensorMap says, in a layout that anybody may read.
//
// Every byte is defined, so equal arguments give equal descriptors in any process; all of the address is in one field,
// so rebasing equals encoding anew.
// Thread safety: pure functions.
#ifndef DAK_ALLOCATOR_DEVICE_EMULATED_TENSOR_MAP_H_
#define DAK_ALLOCATOR_DEVICE_EMULATED_TENSOR_MAP_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocator/device/device.h"

namespace dak {

inline constexpr uint32_t kEmulatedTensorMapMagic = 0x4d'4b'41'44;  // "DAKM" in memory
inline constexpr uint16_t kEmulatedTensorMapVersion = 1;

struct EmulatedTensorMap {
  uint32_t magic;
  uint16_t version;
  uint8_t element;       // an ElementType
  uint8_t swizzle_log2;  // of the swizzle's span in bytes: 7
  uint64_t rows;
  uint64_t cols;
  uint64_t row_stride_bytes;
  uint32_t box_rows;
  uint32_t box_cols;
  uint64_t address;
  uint64_t reserved[10];  // 0
};
static_assert(sizeof(EmulatedTensorMap) == sizeof(TensorMap{}.bytes));

// Errors as ValidateTensorMapSpec.
absl::StatusOr<TensorMap> EncodeEmulatedTensorMap(const TensorMapSpec& spec, uint64_t address);
// INVALID_ARGUMENT ("map") for bytes that EncodeEmulatedTensorMap didn't make; ("address") unless a multiple of 16.
absl::StatusOr<TensorMap> RebaseEmulatedTensorMap(const TensorMap& map, uint64_t address);
// INVALID_ARGUMENT ("map") for bytes that EncodeEmulatedTensorMap didn't make.
absl::StatusOr<EmulatedTensorMap> DecodeEmulatedTensorMap(const TensorMap& map);

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_EMULATED_TENSOR_MAP_H_

// What every Device implementation checks alike. For implementations, not for callers of Device.
#ifndef DAK_ALLOCATOR_DEVICE_DEVICE_CHECKS_H_
#define DAK_ALLOCATOR_DEVICE_DEVICE_CHECKS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "allocator/device/device.h"

namespace dak {

inline constexpr uint64_t kDeviceGranuleBytes = uint64_t{2} << 20;
inline constexpr uint64_t kSharedPageGranuleBytes = 4096;

// INVALID_ARGUMENT unless `tier` is one of kAllTiers (it may come from a peer).
absl::Status CheckTier(Tier tier);
// INVALID_ARGUMENT unless `bytes` is a multiple of `granule_bytes` from one granule to 2^47.
absl::Status CheckWholeGranules(uint64_t bytes, uint64_t granule_bytes);
// OUT_OF_RANGE unless [offset, offset + size) lies in the mapping.
absl::Status CheckRange(const Mapping& mapping, uint64_t offset_bytes, uint64_t size_bytes,
                        absl::string_view field = "offset_bytes");
// CheckRange, and FAILED_PRECONDITION for a read-only mapping.
absl::Status CheckUpload(const Mapping& mapping, uint64_t offset_bytes, uint64_t size_bytes);
// Checks both ends of a copy: OUT_OF_RANGE names the one at fault, FAILED_PRECONDITION for a read-only target.
absl::Status CheckCopy(const Mapping& source, uint64_t source_offset_bytes, const Mapping& target,
                       uint64_t target_offset_bytes, uint64_t bytes);
// What is checked of a replacement's handle: as CheckHandle, and INVALID_ARGUMENT unless it is as large as the mapping.
absl::Status CheckReplacement(const Mapping& mapping, const ExportedHandle& handle);
// What is checked of a handle before its descriptor is looked at.
absl::Status CheckHandle(const ExportedHandle& handle);

// What is checked of a page's descriptor: INVALID_ARGUMENT.
absl::Status CheckPageHandle(const UniqueFd& fd, uint64_t bytes);
// INVALID_ARGUMENT unless a descriptor can start there.
absl::Status CheckTensorAddress(uint64_t address);

// `status` with a machine-readable reason (allocator/base/error_detail.h).
absl::Status WithReason(absl::Status status, absl::string_view reason);
// FAILED_PRECONDITION with TIER_ABSENT.
absl::Status TierAbsent(Tier tier, absl::string_view why);
// INVALID_ARGUMENT: an object of another implementation was handed in.
absl::Status ForeignObject(absl::string_view what);

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_DEVICE_CHECKS_H_

#include "allocator/device/device.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "allocator/device/device_checks.h"
#include "allocator/device/memory_file.h"

namespace dak {
namespace {

// CUDA Driver API, cuTensorMapEncodeTiled: limits of a tiled descriptor.
constexpr uint64_t kMaxDimension = uint64_t{1} << 32;
constexpr uint64_t kMaxStrideBytes = (uint64_t{1} << 40) - 16;
constexpr uint64_t kAlignmentBytes = 16;
constexpr uint64_t kSwizzleBytes = 128;
constexpr uint32_t kMaxBoxRows = 256;
// User addresses end there on every machine that dak runs on; a bound keeps sums from overflowing.
constexpr uint64_t kMaxBytes = uint64_t{1} << 47;

absl::Status CheckDimension(const char* field, uint64_t value) {
  if (value >= 1 && value <= kMaxDimension) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(value, " is out of range"), absl::StrCat("1 to ", kMaxDimension));
}

bool KnownElement(ElementType type) {
  switch (type) {
    case ElementType::kBf16:
    case ElementType::kF16:
    case ElementType::kF32:
    case ElementType::kU8:
      return true;
  }
  return false;
}

}  // namespace

absl::Status ValidateTensorMapSpec(const TensorMapSpec& spec, uint64_t address) {
  if (!KnownElement(spec.element)) {
    return InvalidField("element", absl::StrCat(static_cast<int>(spec.element), " is no element type"), "1 to 4");
  }
  const uint64_t element_bytes = ElementBytes(spec.element);
  DAK_RETURN_IF_ERROR(CheckDimension("rows", spec.rows));
  DAK_RETURN_IF_ERROR(CheckDimension("cols", spec.cols));
  const uint64_t row_bytes = spec.cols * element_bytes;
  if (row_bytes % kAlignmentBytes != 0) {
    return InvalidField("cols", absl::StrCat("a row of ", row_bytes, " bytes can't be described"),
                        absl::StrCat("a multiple of ", kAlignmentBytes / element_bytes), "MISALIGNED");
  }
  if (row_bytes > kMaxStrideBytes) {
    return InvalidField("cols", absl::StrCat("a row of ", row_bytes, " bytes is too long"),
                        absl::StrCat("at most ", kMaxStrideBytes, " bytes"));
  }
  if (spec.box_rows < 1 || spec.box_rows > kMaxBoxRows) {
    return InvalidField("box_rows", absl::StrCat(spec.box_rows, " is out of range"),
                        absl::StrCat("1 to ", kMaxBoxRows));
  }
  if (spec.box_cols * element_bytes != kSwizzleBytes) {
    return InvalidField("box_cols", absl::StrCat(spec.box_cols, " columns aren't 128 bytes"),
                        absl::StrCat("exactly ", kSwizzleBytes / element_bytes));
  }
  return CheckTensorAddress(address);
}

absl::Status CheckTensorAddress(uint64_t address) {
  if (address % kAlignmentBytes == 0) return absl::OkStatus();
  return InvalidField("address", absl::StrCat(address, " is misaligned"), "a multiple of 16", "MISALIGNED");
}

absl::Status CheckTier(Tier tier) {
  for (Tier known : kAllTiers) {
    if (tier == known) return absl::OkStatus();
  }
  return InvalidField("tier", absl::StrCat(static_cast<int>(tier), " is no tier"), "1 to 3");
}

absl::Status CheckWholeGranules(uint64_t bytes, uint64_t granule_bytes) {
  if (bytes == 0 || bytes % granule_bytes != 0 || bytes > kMaxBytes) {
    return InvalidField("bytes", absl::StrCat(bytes, " isn't a whole number of granules"),
                        absl::StrCat("a multiple of ", granule_bytes, ", from ", granule_bytes, " to ", kMaxBytes));
  }
  return absl::OkStatus();
}

absl::Status CheckRange(const Mapping& mapping, uint64_t offset_bytes, uint64_t size_bytes, absl::string_view field) {
  if (offset_bytes <= mapping.bytes() && size_bytes <= mapping.bytes() - offset_bytes) return absl::OkStatus();
  ErrorDetail detail;
  detail.field = std::string(field);
  detail.reason = "OUT_OF_RANGE";
  detail.limit = absl::StrCat(mapping.bytes(), " bytes");
  return WithDetail(absl::OutOfRangeError(absl::StrCat(field, ": ", size_bytes, " bytes at ", offset_bytes,
                                                       " pass the end of the mapping (", mapping.bytes(), " bytes)")),
                    detail);
}

absl::Status CheckUpload(const Mapping& mapping, uint64_t offset_bytes, uint64_t size_bytes) {
  if (mapping.access() == Access::kReadOnly) {
    return WithReason(absl::FailedPreconditionError("the mapping is read-only"), "READ_ONLY");
  }
  return CheckRange(mapping, offset_bytes, size_bytes);
}

absl::Status CheckCopy(const Mapping& source, uint64_t source_offset_bytes, const Mapping& target,
                       uint64_t target_offset_bytes, uint64_t bytes) {
  if (target.access() == Access::kReadOnly) {
    return WithReason(absl::FailedPreconditionError("the mapping is read-only"), "READ_ONLY");
  }
  DAK_RETURN_IF_ERROR(CheckRange(source, source_offset_bytes, bytes, "source_offset_bytes"));
  return CheckRange(target, target_offset_bytes, bytes, "target_offset_bytes");
}

absl::Status CheckReplacement(const Mapping& mapping, const ExportedHandle& handle) {
  DAK_RETURN_IF_ERROR(CheckHandle(handle));
  if (handle.bytes == mapping.bytes()) return absl::OkStatus();
  return InvalidField("bytes", absl::StrCat(handle.bytes, " isn't the mapping's size"),
                      absl::StrCat("exactly ", mapping.bytes()), "SIZE_MISMATCH");
}

absl::Status CheckHandle(const ExportedHandle& handle) {
  DAK_RETURN_IF_ERROR(CheckTier(handle.tier));
  DAK_RETURN_IF_ERROR(CheckWholeGranules(handle.bytes, kDeviceGranuleBytes));
  if (!handle.fd.valid()) return InvalidField("fd", "there is no descriptor", "an open descriptor", "BAD_DESCRIPTOR");
  return absl::OkStatus();
}

absl::Status CheckPageHandle(const UniqueFd& fd, uint64_t bytes) {
  DAK_RETURN_IF_ERROR(CheckWholeGranules(bytes, kSharedPageGranuleBytes));
  if (!fd.valid()) return InvalidField("fd", "there is no descriptor", "an open descriptor", "BAD_DESCRIPTOR");
  return CheckMemoryFile(fd.get(), bytes);
}

absl::Status WithReason(absl::Status status, absl::string_view reason) {
  ErrorDetail detail;
  detail.reason = std::string(reason);
  return WithDetail(std::move(status), detail);
}

absl::Status TierAbsent(Tier tier, absl::string_view why) {
  ErrorDetail detail;
  detail.field = "tier";
  detail.reason = "TIER_ABSENT";
  return WithDetail(absl::FailedPreconditionError(absl::StrCat("tier ", TierName(tier), " is absent: ", why)), detail);
}

absl::Status ForeignObject(absl::string_view what) {
  return InvalidField(what, "was made by another kind of device", "an object of this device", "FOREIGN_OBJECT");
}

}  // namespace dak

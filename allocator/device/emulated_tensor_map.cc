#include "allocator/device/emulated_tensor_map.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "allocator/device/device_checks.h"

namespace dak {
namespace {

constexpr uint8_t kSwizzle128Log2 = 7;

TensorMap ToBytes(const EmulatedTensorMap& fields) {
  TensorMap map;
  std::memcpy(map.bytes.data(), &fields, sizeof(fields));
  return map;
}

TensorMapSpec SpecOf(const EmulatedTensorMap& fields) {
  return {.element = static_cast<ElementType>(fields.element),
          .rows = fields.rows,
          .cols = fields.cols,
          .box_rows = fields.box_rows,
          .box_cols = fields.box_cols};
}

EmulatedTensorMap FieldsOf(const TensorMapSpec& spec, uint64_t address) {
  EmulatedTensorMap fields{};
  fields.magic = kEmulatedTensorMapMagic;
  fields.version = kEmulatedTensorMapVersion;
  fields.element = static_cast<uint8_t>(spec.element);
  fields.swizzle_log2 = kSwizzle128Log2;
  fields.rows = spec.rows;
  fields.cols = spec.cols;
  fields.row_stride_bytes = spec.cols * ElementBytes(spec.element);
  fields.box_rows = spec.box_rows;
  fields.box_cols = spec.box_cols;
  fields.address = address;
  return fields;
}

}  // namespace

absl::StatusOr<TensorMap> EncodeEmulatedTensorMap(const TensorMapSpec& spec, uint64_t address) {
  DAK_RETURN_IF_ERROR(ValidateTensorMapSpec(spec, address));
  return ToBytes(FieldsOf(spec, address));
}

absl::StatusOr<EmulatedTensorMap> DecodeEmulatedTensorMap(const TensorMap& map) {
  EmulatedTensorMap fields;
  std::memcpy(&fields, map.bytes.data(), sizeof(fields));
  const TensorMapSpec spec = SpecOf(fields);
  if (fields.magic != kEmulatedTensorMapMagic || fields.version != kEmulatedTensorMapVersion ||
      !ValidateTensorMapSpec(spec, fields.address).ok() || !(ToBytes(FieldsOf(spec, fields.address)) == map)) {
    return InvalidField("map", "isn't a descriptor of the emulated device", "128 bytes as it encodes them",
                        "BAD_TENSOR_MAP");
  }
  return fields;
}

absl::StatusOr<TensorMap> RebaseEmulatedTensorMap(const TensorMap& map, uint64_t address) {
  DAK_ASSIGN_OR_RETURN(const EmulatedTensorMap fields, DecodeEmulatedTensorMap(map));
  DAK_RETURN_IF_ERROR(CheckRebaseAddress(address));
  return EncodeEmulatedTensorMap(SpecOf(fields), address);
}

}  // namespace dak

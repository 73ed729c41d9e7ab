#include "daemon/session/layout.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/remote_rows.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/limits.h"

namespace dak::daemon {
namespace {

std::string Path(absl::string_view prefix, absl::string_view field) { return absl::StrCat(prefix, ".", field); }

absl::Status ValidateDimension(const std::string& field, uint64_t value) {
  if (value >= 1 && value <= kMaxDimension) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(value, " is out of range"), absl::StrCat("1 to ", kMaxDimension));
}

}  // namespace

absl::Status ValidateName(absl::string_view field, absl::string_view name) {
  constexpr absl::string_view kLimit = "1 to 128 characters of [A-Za-z0-9._/:-]";
  if (name.empty()) return InvalidField(field, "is empty", kLimit);
  if (name.size() > kMaxNameLength)
    return InvalidField(field, absl::StrCat("has ", name.size(), " characters"), kLimit);
  for (const char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) &&
        absl::string_view("._/:-").find(c) == absl::string_view::npos) {
      return InvalidField(field, "has a character that isn't allowed", kLimit);
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateFingerprint(absl::string_view field, absl::string_view fingerprint) {
  constexpr absl::string_view kLimit = "1 to 128 printable ASCII characters";
  const bool printable = std::all_of(fingerprint.begin(), fingerprint.end(), [](char c) {
    return absl::ascii_isgraph(static_cast<unsigned char>(c)) || c == ' ';
  });
  if (fingerprint.empty() || fingerprint.size() > kMaxFingerprintLength || !printable) {
    return InvalidField(
        field, absl::StrCat("has ", fingerprint.size(), printable ? "" : " partly unprintable", " characters"), kLimit);
  }
  return absl::OkStatus();
}

absl::Status ValidateTensorSpec(absl::string_view field, const TensorSpec& spec) {
  DAK_RETURN_IF_ERROR(ValidateName(Path(field, "name"), spec.name));
  DAK_RETURN_IF_ERROR(ValidateDimension(Path(field, "rows"), spec.rows));
  DAK_RETURN_IF_ERROR(ValidateDimension(Path(field, "cols"), spec.cols));
  const uint64_t element_bytes = ElementBytes(spec.element);
  if (spec.cols * element_bytes > kMaxTensorBytes / spec.rows) {
    return InvalidField(field, "rows x cols x element size is too large",
                        absl::StrCat("at most ", kMaxTensorBytes, " bytes"));
  }
  if (!(spec.offload_ratio >= 0 && spec.offload_ratio <= 1)) {
    return InvalidField(Path(field, "offload_ratio"), absl::StrCat(spec.offload_ratio, " is out of range"), "0 to 1");
  }
  if (spec.offload_ratio > 0 && !IsRemote(spec.remote_tier)) {
    return InvalidField(Path(field, "remote_tier"), "isn't remote", "TIER_HOST or TIER_CXL where offload_ratio > 0");
  }
  if (spec.tile_rows > kMaxTileRows) {
    return InvalidField(Path(field, "tile_rows"), absl::StrCat(spec.tile_rows, " is out of range"),
                        absl::StrCat("1 to ", kMaxTileRows, ", or 0 for ", kDefaultTileRows));
  }
  if (spec.box_rows > kMaxBoxRows) {
    return InvalidField(Path(field, "box_rows"), absl::StrCat(spec.box_rows, " is out of range"),
                        absl::StrCat("1 to ", kMaxBoxRows, ", or 0 for ", kDefaultBoxRows));
  }
  const uint64_t box_cols = kBoxRowBytes / element_bytes;
  if (spec.box_cols != 0 && spec.box_cols != box_cols) {
    return InvalidField(Path(field, "box_cols"), absl::StrCat(spec.box_cols, " doesn't fit the 128-byte swizzle"),
                        absl::StrCat(box_cols, " for this data type, or 0"));
  }
  return absl::OkStatus();
}

Tensor LayOut(const TensorSpec& spec) {
  Tensor tensor;
  tensor.name = spec.name;
  tensor.element = spec.element;
  tensor.rows = spec.rows;
  tensor.cols = spec.cols;
  tensor.box_rows = spec.box_rows == 0 ? kDefaultBoxRows : spec.box_rows;
  tensor.box_cols = static_cast<uint32_t>(kBoxRowBytes / ElementBytes(spec.element));
  const uint64_t row_bytes = spec.cols * ElementBytes(spec.element);
  const uint64_t remote =
      RemoteRows(spec.rows, spec.offload_ratio, spec.tile_rows == 0 ? kDefaultTileRows : spec.tile_rows);
  const uint64_t local = spec.rows - remote;
  auto add = [&](Tier tier, uint64_t first_row, uint64_t rows) {
    if (rows == 0) return;
    TensorPart part;
    part.tier = tier;
    part.first_row = first_row;
    part.rows = rows;
    part.bytes = rows * row_bytes;
    tensor.parts.push_back(part);
  };
  add(Tier::kHbm, 0, local);
  add(spec.remote_tier, local, remote);
  return tensor;
}

absl::StatusOr<std::unique_ptr<TensorMap>> EncodePart(Device& device, const Tensor& tensor, const TensorPart& part) {
  const TensorMapSpec spec = {.element = tensor.element,
                              .rows = part.rows,
                              .cols = tensor.cols,
                              .box_rows = tensor.box_rows,
                              .box_cols = tensor.box_cols};
  if (!ValidateTensorMapSpec(spec, part.offset_bytes).ok()) return std::unique_ptr<TensorMap>();
  DAK_ASSIGN_OR_RETURN(TensorMap map, device.EncodeTensorMap(spec, part.offset_bytes));
  return std::make_unique<TensorMap>(map);
}

absl::StatusOr<TensorView> ViewWithMaps(Device& device, const Tensor& tensor, absl::string_view group,
                                        uint64_t session_id) {
  TensorView view;
  view.tensor = tensor;
  view.group = std::string(group);
  view.session_id = session_id;
  for (const TensorPart& part : tensor.parts) {
    DAK_ASSIGN_OR_RETURN(std::unique_ptr<TensorMap> map, EncodePart(device, tensor, part));
    view.maps.push_back(std::move(map));
  }
  return view;
}

}  // namespace dak::daemon

#include "kernels/gemm_operands.h"

#include "absl/strings/string_view.h"
#include "allocator/base/error_detail.h"

namespace dak::kernels {
namespace {

constexpr uint64_t kTmaAlignment = 16;

absl::Status CheckAddress(absl::string_view field, uint64_t address, uint64_t alignment, absl::string_view limit) {
  if (address == 0) return InvalidField(field, "is missing", limit, "MISSING");
  if (address % alignment != 0) return InvalidField(field, "is not aligned", limit, "MISALIGNED");
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckOperands(const GemmShape& shape, const GemmOperands& operands, bool need_maps) {
  constexpr char kAligned[] = "an address that is a multiple of 16";
  const uint64_t element_bytes = ElementBytes(shape.element);
  if (absl::Status status = CheckAddress("x", operands.x, kTmaAlignment, kAligned); !status.ok()) return status;
  if (absl::Status status = CheckAddress("y", operands.y, element_bytes, "an address that is a multiple of 2");
      !status.ok()) {
    return status;
  }
  const bool has_local = shape.local_rows > 0;
  const bool has_remote = shape.local_rows < shape.n;
  if (need_maps) {
    if (has_local && operands.w_local_map == nullptr) {
      return InvalidField("w_local_map", "is missing", "a map where local_rows is above 0", "MISSING");
    }
    if (has_remote && operands.w_remote_map == nullptr) {
      return InvalidField("w_remote_map", "is missing", "a map where local_rows is below n", "MISSING");
    }
    return absl::OkStatus();
  }
  if (has_local) {
    if (absl::Status status = CheckAddress("w_local", operands.w_local, kTmaAlignment, kAligned); !status.ok()) {
      return status;
    }
  }
  return has_remote ? CheckAddress("w_remote", operands.w_remote, kTmaAlignment, kAligned) : absl::OkStatus();
}

}  // namespace dak::kernels

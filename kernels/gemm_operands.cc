#include "kernels/gemm_operands.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "allocator/base/error_detail.h"

namespace dak::kernels {
namespace {

constexpr uint64_t kTmaAlignment = 16;
constexpr char kAligned2[] = "an address that is a multiple of 2";

absl::Status CheckAddress(absl::string_view field, uint64_t address, uint64_t alignment, absl::string_view limit) {
  if (address == 0) return InvalidField(field, "is missing", limit, "MISSING");
  if (address % alignment != 0) return InvalidField(field, "is not aligned", limit, "MISALIGNED");
  return absl::OkStatus();
}

absl::Status CheckEpilogue(const GemmShape& shape, const GemmEpilogue& epilogue) {
  const uint64_t alignment = ElementBytes(shape.element);
  if (epilogue.bias % alignment != 0) return InvalidField("bias", "is not aligned", kAligned2, "MISALIGNED");
  if (epilogue.residual % alignment != 0) return InvalidField("residual", "is not aligned", kAligned2, "MISALIGNED");
  if (epilogue.activation == GemmActivation::kNone) return absl::OkStatus();
  if (epilogue.activation != GemmActivation::kSwiGlu) {
    return InvalidField("activation", absl::StrCat(static_cast<uint32_t>(epilogue.activation), " is unknown"),
                        "none (0) or SwiGLU (1)");
  }
  constexpr uint64_t kBlock = 2 * kSwiGluRows;
  const std::string limit = absl::StrCat("a multiple of ", kBlock, " with SwiGLU");
  if (shape.n % kBlock != 0) return InvalidField("n", absl::StrCat(shape.n, " is unsupported"), limit);
  if (shape.local_rows % kBlock != 0) {
    return InvalidField("local_rows", absl::StrCat(shape.local_rows, " is unsupported"), limit);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckOperands(const GemmShape& shape, const GemmOperands& operands, bool need_maps) {
  constexpr char kAligned[] = "an address that is a multiple of 16";
  const uint64_t element_bytes = ElementBytes(shape.element);
  if (absl::Status status = CheckAddress("x", operands.x, kTmaAlignment, kAligned); !status.ok()) return status;
  if (absl::Status status = CheckAddress("y", operands.y, element_bytes, kAligned2); !status.ok()) return status;
  if (absl::Status status = CheckEpilogue(shape, operands.epilogue); !status.ok()) return status;
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

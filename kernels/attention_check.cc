#include <cmath>
#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "kernels/attention.h"
#include "kernels/attention_operands.h"
#include "kernels/attention_plan.h"

namespace dak::kernels {
namespace {

constexpr uint32_t kMaxHeads = 1024;
// TMA coordinates are signed 32-bit numbers: a row is one token's key or value of one head.
constexpr uint64_t kMaxPoolRows = std::numeric_limits<int32_t>::max();
constexpr uint64_t kTmaAlignment = 16;
constexpr uint64_t kIndexBytes = 4;

absl::Status CheckRange(absl::string_view field, uint64_t value, uint64_t most) {
  if (value >= 1 && value <= most) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(value, " is out of range"), absl::StrCat("1 to ", most));
}

absl::Status CheckPages(absl::string_view field, const AttentionShape& shape, uint64_t pages) {
  const uint64_t most = kMaxPoolRows / (uint64_t{2} * shape.kv_heads * shape.page_tokens);
  if (pages <= most) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(pages, " is out of range"), absl::StrCat("0 to ", most, " of this shape"));
}

absl::Status CheckHeads(const AttentionShape& shape) {
  DAK_RETURN_IF_ERROR(CheckRange("heads", shape.heads, kMaxHeads));
  DAK_RETURN_IF_ERROR(CheckRange("kv_heads", shape.kv_heads, shape.heads));
  if (shape.heads % shape.kv_heads != 0) {
    return InvalidField("kv_heads", absl::StrCat(shape.kv_heads, " is unsupported"),
                        absl::StrCat("a divisor of heads, ", shape.heads));
  }
  if (shape.heads / shape.kv_heads > kMaxGroup) {
    return InvalidField("heads", absl::StrCat(shape.heads / shape.kv_heads, " query heads a KV head is out of range"),
                        absl::StrCat("1 to ", kMaxGroup));
  }
  if (shape.head_dim != 64 && shape.head_dim != 80 && shape.head_dim != 96 && shape.head_dim != 128) {
    return InvalidField("head_dim", absl::StrCat(shape.head_dim, " is unsupported"), "64, 80, 96 or 128");
  }
  return absl::OkStatus();
}

absl::Status CheckAddress(absl::string_view field, uint64_t address, uint64_t alignment) {
  const auto limit = absl::StrCat("an address that is a multiple of ", alignment);
  if (address == 0) return InvalidField(field, "is missing", limit, "MISSING");
  if (address % alignment != 0) return InvalidField(field, "is not aligned", limit, "MISALIGNED");
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckAttention(const AttentionShape& shape) {
  DAK_RETURN_IF_ERROR(CheckRange("batch", shape.batch, kMaxAttentionBatch));
  DAK_RETURN_IF_ERROR(CheckHeads(shape));
  if (shape.page_tokens != 16 && shape.page_tokens != 64) {
    return InvalidField("page_tokens", absl::StrCat(shape.page_tokens, " is unsupported"), "16 or 64");
  }
  DAK_RETURN_IF_ERROR(CheckRange("max_pages", shape.max_pages, kMaxContextTokens / shape.page_tokens));
  DAK_RETURN_IF_ERROR(CheckPages("local_pages", shape, shape.local_pages));
  DAK_RETURN_IF_ERROR(CheckPages("remote_pages", shape, shape.remote_pages));
  if (shape.local_pages + shape.remote_pages == 0) {
    return InvalidField("local_pages", "no pool has pages", "at least 1 in one of the pools");
  }
  if (shape.element != ElementType::kBf16 && shape.element != ElementType::kF16) {
    return InvalidField("element", absl::StrCat("type ", static_cast<int>(shape.element), " is unsupported"),
                        "bf16 or f16");
  }
  if (!(std::isfinite(shape.scale) && shape.scale > 0)) {
    return InvalidField("scale", absl::StrCat(shape.scale, " is out of range"), "finite and above 0");
  }
  return absl::OkStatus();
}

absl::Status CheckOperands(const AttentionShape& shape, const AttentionOperands& operands) {
  DAK_RETURN_IF_ERROR(CheckAddress("q", operands.q, kTmaAlignment));
  DAK_RETURN_IF_ERROR(CheckAddress("out", operands.out, kTmaAlignment));
  DAK_RETURN_IF_ERROR(CheckAddress("block_table", operands.block_table, kIndexBytes));
  DAK_RETURN_IF_ERROR(CheckAddress("lengths", operands.lengths, kIndexBytes));
  if (shape.local_pages > 0) DAK_RETURN_IF_ERROR(CheckAddress("kv_local", operands.kv_local, kTmaAlignment));
  if (shape.remote_pages == 0) return absl::OkStatus();
  DAK_RETURN_IF_ERROR(CheckAddress("kv_remote", operands.kv_remote, kTmaAlignment));
  return CheckAddress("remote_counts", operands.remote_counts, kIndexBytes);
}

}  // namespace dak::kernels

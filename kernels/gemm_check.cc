#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "kernels/gemm.h"
#include "kernels/gemm_plan.h"
#include "kernels/prefill_plan.h"

namespace dak::kernels {
namespace {

// TMA coordinates are signed 32-bit numbers.
constexpr uint64_t kMaxExtent = std::numeric_limits<int32_t>::max();

}  // namespace

absl::Status CheckGemm(const GemmShape& shape) {
  if (shape.batch < 1 || shape.batch > kMaxPrefillBatch) {
    return InvalidField("batch", absl::StrCat(shape.batch, " is out of range"),
                        absl::StrCat("1 to ", kMaxPrefillBatch));
  }
  if (shape.n < 1 || shape.n > kMaxExtent) {
    return InvalidField("n", absl::StrCat(shape.n, " is out of range"), absl::StrCat("1 to ", kMaxExtent));
  }
  if (shape.k % 8 != 0) return InvalidField("k", absl::StrCat(shape.k, " is unsupported"), "a multiple of 8");
  if (shape.k < 8 || shape.k > kMaxExtent) {
    return InvalidField("k", absl::StrCat(shape.k, " is out of range"), absl::StrCat("8 to ", kMaxExtent));
  }
  if (shape.local_rows > shape.n) {
    return InvalidField("local_rows", absl::StrCat(shape.local_rows, " is out of range"),
                        absl::StrCat("0 to n, ", shape.n));
  }
  // A whole tile's chunks must fit in the ring (prefill_plan.h).
  if (shape.batch > kMaxBatch && shape.local_rows < shape.n && shape.k > kMaxPrefillRemoteK) {
    return InvalidField(
        "k", absl::StrCat(shape.k, " is out of range"),
        absl::StrCat("at most ", kMaxPrefillRemoteK, " where batch is above ", kMaxBatch, " and rows are remote"));
  }
  if (shape.element != ElementType::kBf16 && shape.element != ElementType::kF16) {
    return InvalidField("element", absl::StrCat("type ", static_cast<int>(shape.element), " is unsupported"),
                        "bf16 or f16");
  }
  return absl::OkStatus();
}

}  // namespace dak::kernels

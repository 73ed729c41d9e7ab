// Checks of dak_gemm, which the launchers needn't repeat.
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/rpc_status.h"
#include "client/src/session.h"
#include "kernels/gemm.h"

namespace dak::client {
namespace {

constexpr uint64_t kAlignment = 16;  // of x and y, bytes: what vector loads and TMA need

absl::Status CheckAddress(absl::string_view field, uint64_t address) {
  if (address == 0) return InvalidField(field, "is null", "a device address", "NULL_ADDRESS");
  if (address % kAlignment == 0) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("0x", absl::Hex(address), " is misaligned"),
                      absl::StrCat("a multiple of ", kAlignment), "MISALIGNED");
}

bool Overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) { return a < b + b_bytes && b < a + a_bytes; }

kernels::GemmOperands OperandsOf(const GemmCall& call) {
  kernels::GemmOperands operands{.x = call.x, .y = call.y, .epilogue = call.epilogue};
  for (const Part& part : call.weights->parts()) {
    if (part.rows == 0) continue;
    const TensorMap* const map = part.map.has_value() ? &*part.map : nullptr;
    if (IsRemote(part.tier)) {
      operands.w_remote = part.address();
      operands.w_remote_map = map;
    } else {
      operands.w_local = part.address();
      operands.w_local_map = map;
    }
  }
  return operands;
}

}  // namespace

// A write to memory that others read is a fatal fault at best.
absl::Status Session::CheckWritable(absl::string_view field, uint64_t address, uint64_t bytes) const {
  for (const auto& [id, segment] : segments_) {
    if (segment.mapping == nullptr || segment.mapping->access() != Access::kReadOnly) continue;
    if (Overlap(address, bytes, segment.mapping->address(), segment.mapping->bytes())) {
      return WithDetail(
          absl::FailedPreconditionError(absl::StrCat(field, ": lies in published memory, which is read-only")),
          Reason(field, "READ_ONLY"));
    }
  }
  return absl::OkStatus();
}

absl::Status Session::CheckOperand(absl::string_view field, const Tensor* operand) const {
  if (tensors_.count(operand) == 0) {
    return InvalidField(field, "is no tensor of this session", "a live tensor of this session", "UNKNOWN_TENSOR");
  }
  DAK_RETURN_IF_ERROR(operand->CheckMapped());
  if (operand->element() != ElementType::kBf16 && operand->element() != ElementType::kF16) {
    return InvalidField(field, absl::StrCat("tensor ", operand->name(), " has a data type that no kernel computes"),
                        "bf16 or f16", "UNSUPPORTED");
  }
  for (const Part& part : operand->parts()) {
    if (part.mapping->tier() != part.tier) {
      return WithDetail(absl::FailedPreconditionError(
                            absl::StrCat(field, ": tensor ", operand->name(), " is demoted, and dakd has gone")),
                        Reason(field, "DEMOTED"));
    }
  }
  return absl::OkStatus();
}

absl::Status Session::CheckGemmCall(const GemmCall& call, kernels::GemmShape* shape) const {
  DAK_RETURN_IF_ERROR(CheckOperand("weights", call.weights));
  const Tensor& weights = *call.weights;
  shape->batch = call.batch;
  shape->n = weights.rows();
  shape->k = weights.cols();
  shape->element = weights.element();
  for (const Part& part : weights.parts()) {
    if (!IsRemote(part.tier)) shape->local_rows += part.rows;
  }
  DAK_RETURN_IF_ERROR(kernels::CheckGemm(*shape));
  DAK_RETURN_IF_ERROR(CheckAddress("x", call.x));
  DAK_RETURN_IF_ERROR(CheckAddress("y", call.y));
  const uint64_t element_bytes = ElementBytes(shape->element);
  const uint64_t y_bytes = call.batch * kernels::OutputColumns(shape->n, call.epilogue.activation) * element_bytes;
  if (Overlap(call.y, y_bytes, call.x, call.batch * shape->k * element_bytes)) {
    return InvalidField("y", "overlaps x", "memory of its own", "OVERLAP");
  }
  for (const Part& part : weights.parts()) {
    if (Overlap(call.y, y_bytes, part.address(), part.bytes)) {
      return InvalidField("y", "overlaps the weights", "memory of its own", "OVERLAP");
    }
  }
  return CheckWritable("y", call.y, y_bytes);
}

absl::Status Session::EnsureLauncher() {
  if (launcher_ != nullptr) return absl::OkStatus();
  DAK_ASSIGN_OR_RETURN(launcher_, CreateLauncher(*device_, *control_page_, *report_page_));
  return absl::OkStatus();
}

// A tensor's remote part is in one tier.
uint32_t Session::LinkOf(const Tensor& tensor) const {
  for (const Part& part : tensor.parts()) {
    if (part.rows > 0 && IsRemote(part.tier)) return device_->description().LinkOf(part.tier);
  }
  return 0;
}

absl::Status Session::Gemm(const GemmCall& call) {
  absl::MutexLock launch(&launch_mutex_);
  DAK_RETURN_IF_ERROR(CheckActive());
  kernels::GemmShape shape;
  {
    absl::MutexLock lock(&mutex_);
    DAK_RETURN_IF_ERROR(CheckGemmCall(call, &shape));
  }
  DAK_RETURN_IF_ERROR(EnsureLauncher());
  return launcher_->Gemm(shape, OperandsOf(call), LinkOf(*call.weights), call.stream);
}

}  // namespace dak::client

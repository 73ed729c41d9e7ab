// dak_attention: checks that the launchers needn't repeat.
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/rpc_status.h"
#include "client/src/session.h"

namespace dak::client {
namespace {

bool Overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes) { return a < b + b_bytes && b < a + a_bytes; }

}  // namespace

absl::Status Session::CompleteAttention(AttentionCall& call) const {
  DAK_RETURN_IF_ERROR(CheckOperand("kv", call.kv));
  const Tensor& kv = *call.kv;
  kernels::AttentionShape& shape = call.shape;
  shape.element = kv.element();
  for (const Part& part : kv.parts()) {
    if (part.rows == 0) continue;
    (IsRemote(part.tier) ? shape.remote_pages : shape.local_pages) = part.rows;
    (IsRemote(part.tier) ? call.operands.kv_remote : call.operands.kv_local) = part.address();
  }
  DAK_RETURN_IF_ERROR(kernels::CheckAttention(shape));
  const uint64_t page_elements = uint64_t{2} * shape.kv_heads * shape.page_tokens * shape.head_dim;
  if (kv.cols() != page_elements) {
    return InvalidField("kv", absl::StrCat("has rows of ", kv.cols(), " elements"),
                        absl::StrCat("a row a page, ", page_elements, " of this shape"));
  }
  const uint64_t bytes = uint64_t{shape.batch} * shape.heads * shape.head_dim * ElementBytes(shape.element);
  if (call.operands.out != 0 && Overlap(call.operands.out, bytes, call.operands.q, bytes)) {
    return InvalidField("out", "overlaps q", "memory of its own", "OVERLAP");
  }
  for (const Part& part : kv.parts()) {
    if (Overlap(call.operands.out, bytes, part.address(), part.bytes)) {
      return InvalidField("out", "overlaps the pages", "memory of its own", "OVERLAP");
    }
  }
  return CheckWritable("out", call.operands.out, bytes);
}

absl::Status Session::Attention(const AttentionCall& call) {
  absl::MutexLock launch(&launch_mutex_);
  DAK_RETURN_IF_ERROR(CheckActive());
  AttentionCall complete = call;
  {
    absl::MutexLock lock(&mutex_);
    DAK_RETURN_IF_ERROR(CompleteAttention(complete));
  }
  DAK_RETURN_IF_ERROR(EnsureLauncher());
  return launcher_->Attention(complete.shape, complete.operands, LinkOf(*call.kv), complete.stream);
}

}  // namespace dak::client

// Finding out what is true after an answer of the daemon was lost.
#include <algorithm>

#include "allocator/base/status_macros.h"
#include "client/src/session.h"

namespace dak::client {
namespace {

constexpr uint32_t kPageSize = 1000;

}  // namespace

absl::StatusOr<absl::flat_hash_set<uint64_t>> Session::ListOwnIds() {
  absl::flat_hash_set<uint64_t> ids;
  v1::ListTensorsRequest request;
  request.set_session_id(opened_.session_id());
  request.set_page_size(kPageSize);
  do {
    v1::ListTensorsResponse response;
    DAK_RETURN_IF_ERROR(Call(&v1::TensorService::Stub::ListTensors, request, &response, timeout(), /*changes=*/false));
    for (const v1::Tensor& tensor : response.tensors()) {
      if (tensor.session_id() == opened_.session_id()) ids.insert(tensor.tensor_id());
    }
    request.set_page_token(response.next_page_token());
  } while (request.page_token() != 0);
  return ids;
}

absl::Status Session::Settle() {
  DAK_RETURN_IF_ERROR(CheckActive());
  if (!books_uncertain_) return absl::OkStatus();
  DAK_RETURN_IF_ERROR(SettleMoves());
  if (attach_in_doubt_.has_value()) {
    const absl::Status detached = DetachRemotely(*attach_in_doubt_);
    // A refusal says that it wasn't attached.
    if (!detached.ok() && AnswerMayBeLost(detached)) return detached;
    attach_in_doubt_.reset();
  }
  DAK_ASSIGN_OR_RETURN(const absl::flat_hash_set<uint64_t> known, ListOwnIds());
  DAK_RETURN_IF_ERROR(SettleTensors(known));
  // What was delivered for the orphans: their memory lives as long as a descriptor does.
  connection_->DropDelivered();
  books_uncertain_ = false;
  return absl::OkStatus();
}

absl::Status Session::SettleTensors(const absl::flat_hash_set<uint64_t>& known) {
  absl::flat_hash_set<uint64_t> orphans = known;
  std::vector<Tensor*> missing;
  for (const auto& [key, tensor] : tensors_) {
    if (orphans.erase(tensor->id()) == 0 && !tensor->read_only()) missing.push_back(tensor.get());
  }
  if (publish_in_doubt_.has_value()) {
    const auto [group, publication] = *publish_in_doubt_;
    for (const Tensor* tensor : missing) {
      if (tensor->group() != group) continue;
      // The group left the session: it was published after all.
      DAK_RETURN_IF_ERROR(Seal(group, publication));
      break;
    }
    publish_in_doubt_.reset();
  }
  // What the daemon has freed may be given to another tensor: it mustn't be used here any more.
  missing.erase(std::remove_if(missing.begin(), missing.end(), [](const Tensor* t) { return t->read_only(); }),
                missing.end());
  for (Tensor* tensor : missing) {
    tensor->SetUnmapped();
    tensor->SetFreedRemotely();
  }
  UnmapEmptied(missing);
  return FreeRemotely(std::vector<uint64_t>(orphans.begin(), orphans.end()));
}

}  // namespace dak::client

// Names, shapes and the split of a tensor's rows between tiers: pure functions that check what a client asked for.
//
// Errors: INVALID_ARGUMENT that names the field, with `field` as its prefix ("tensors[3]" gives "tensors[3].rows").
#ifndef DAK_DAEMON_SESSION_LAYOUT_H_
#define DAK_DAEMON_SESSION_LAYOUT_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "daemon/session/tensor.h"

namespace dak::daemon {

// 1 to 128 characters of [A-Za-z0-9._/:-].
absl::Status ValidateName(absl::string_view field, absl::string_view name);
// 1 to 128 printable ASCII characters.
absl::Status ValidateFingerprint(absl::string_view field, absl::string_view fingerprint);

// Checks every field of `spec`.
absl::Status ValidateTensorSpec(absl::string_view field, const TensorSpec& spec);

// The tensor with its parts, tiers and sizes, not yet placed. `spec` must be valid.
Tensor LayOut(const TensorSpec& spec);

// The part's descriptor at offset_bytes of its segment. Null where the tensor memory accelerator can't address the
// part; a driver's failure is an error.
absl::StatusOr<std::unique_ptr<TensorMap>> EncodePart(Device& device, const Tensor& tensor, const TensorPart& part);

// `tensor` with its descriptors.
absl::StatusOr<TensorView> ViewWithMaps(Device& device, const Tensor& tensor, absl::string_view group,
                                        uint64_t session_id);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_LAYOUT_H_

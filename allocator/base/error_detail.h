// Machine-readable reasons on an absl::Status, as the API's ErrorDetail carries them.
//
// The reason travels as payloads, so code under the RPC layer needs no protobuf: the RPC layer turns them into
// dak.v1.ErrorDetail. All functions are thread-safe; they only touch their arguments.
#ifndef DAK_ALLOCATOR_BASE_ERROR_DETAIL_H_
#define DAK_ALLOCATOR_BASE_ERROR_DETAIL_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace dak {

struct ErrorDetail {
  std::string field = {};   // path of the field at fault, or empty
  std::string reason = {};  // stable word, as "QUOTA_EXCEEDED"
  std::string limit = {};   // the bound that was broken, in words
  uint64_t shortfall_bytes = 0;
};

// `status` with `detail` attached; an OK status stays OK.
absl::Status WithDetail(absl::Status status, const ErrorDetail& detail);

// The detail attached to `status`; all empty if it has none.
ErrorDetail DetailOf(const absl::Status& status);

// INVALID_ARGUMENT that names the field and the limit: "tensors[3].rows: 0 is out of range, at least 1".
absl::Status InvalidField(absl::string_view field, absl::string_view problem, absl::string_view limit,
                          absl::string_view reason = "OUT_OF_RANGE");

}  // namespace dak

#endif  // DAK_ALLOCATOR_BASE_ERROR_DETAIL_H_

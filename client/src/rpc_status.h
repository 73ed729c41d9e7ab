// What came over the wire as an absl::Status, and an absl::Status as a dak_error.
//
// All functions are thread-safe; they only touch their arguments.
#ifndef DAK_CLIENT_SRC_RPC_STATUS_H_
#define DAK_CLIENT_SRC_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "allocator/base/error_detail.h"
#include "dak/dak.h"
#include "dak/v1/handles.pb.h"

namespace dak::client {

// The status of an RPC, with the ErrorDetail of its trailer attached (allocator/base/error_detail.h). A trailer that
// can't be parsed is left out: the code and the message still stand.
absl::Status StatusFromRpc(const grpc::Status& status);

// The status of a reply on handles.sock. Codes that don't exist become UNKNOWN.
absl::Status StatusFromReply(const v1::HandleReply& reply);

// A detail of which only these are known.
inline ErrorDetail Reason(absl::string_view field, absl::string_view reason, absl::string_view limit = "") {
  return {
      .field = std::string(field), .reason = std::string(reason), .limit = std::string(limit), .shortfall_bytes = 0};
}

// `status` with the same code and details, and `prefix` before its message.
absl::Status Prefixed(absl::string_view prefix, const absl::Status& status);

// Fills `error` (may be null; texts that are too long are cut) and returns its code.
dak_code ReportStatus(const absl::Status& status, dak_error* error) noexcept;

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_RPC_STATUS_H_

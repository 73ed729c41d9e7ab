#include "client/src/rpc_status.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "dak/v1/types.pb.h"

namespace dak::client {
namespace {

constexpr char kDetailType[] = "type.googleapis.com/dak.v1.ErrorDetail";
constexpr int kLastCode = static_cast<int>(absl::StatusCode::kUnauthenticated);

absl::StatusCode CodeFromWire(int code) {
  return code >= 0 && code <= kLastCode ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown;
}

absl::Status WithWireDetail(absl::Status status, const v1::ErrorDetail& detail) {
  return WithDetail(std::move(status), {.field = detail.field(),
                                        .reason = detail.reason(),
                                        .limit = detail.limit(),
                                        .shortfall_bytes = detail.shortfall_bytes()});
}

template <size_t size>
void CopyText(absl::string_view text, char (&target)[size]) {
  const size_t length = std::min(text.size(), size - 1);
  std::memcpy(target, text.data(), length);
  target[length] = '\0';
}

}  // namespace

absl::Status StatusFromRpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(CodeFromWire(status.error_code()), status.error_message());
  v1::RpcStatus wire;
  if (status.error_details().empty() || !wire.ParseFromString(status.error_details())) return result;
  for (const v1::AnyDetail& any : wire.details()) {
    v1::ErrorDetail detail;
    if (any.type_url() == kDetailType && detail.ParseFromString(any.value())) {
      return WithWireDetail(std::move(result), detail);
    }
  }
  return result;
}

absl::Status StatusFromReply(const v1::HandleReply& reply) {
  if (reply.code() == 0) return absl::OkStatus();
  return WithWireDetail(absl::Status(CodeFromWire(reply.code()), reply.message()), reply.detail());
}

absl::Status Prefixed(absl::string_view prefix, const absl::Status& status) {
  if (status.ok()) return status;
  absl::Status result(status.code(), absl::StrCat(prefix, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { result.SetPayload(url, payload); });
  return result;
}

dak_code ReportStatus(const absl::Status& status, dak_error* error) noexcept {
  const auto code = static_cast<dak_code>(status.code());
  if (error == nullptr) return code;
  std::memset(error, 0, sizeof(*error));
  error->code = code;
  if (status.ok()) return code;
  try {
    CopyText(status.message(), error->message);
    const ErrorDetail detail = DetailOf(status);
    CopyText(detail.field, error->field);
    CopyText(detail.reason, error->reason);
    error->shortfall_bytes = detail.shortfall_bytes;
  } catch (const std::exception&) {
    CopyText("out of memory while the error was described", error->message);
  }
  return code;
}

}  // namespace dak::client

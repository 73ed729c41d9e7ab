#include "allocator/base/error_detail.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace dak {
namespace {

constexpr char kFieldUrl[] = "dak/field";
constexpr char kReasonUrl[] = "dak/reason";
constexpr char kLimitUrl[] = "dak/limit";
constexpr char kShortfallUrl[] = "dak/shortfall";

std::string PayloadOf(const absl::Status& status, const char* url) {
  auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace

absl::Status WithDetail(absl::Status status, const ErrorDetail& detail) {
  if (status.ok()) return status;
  if (!detail.field.empty()) status.SetPayload(kFieldUrl, absl::Cord(detail.field));
  if (!detail.reason.empty()) status.SetPayload(kReasonUrl, absl::Cord(detail.reason));
  if (!detail.limit.empty()) status.SetPayload(kLimitUrl, absl::Cord(detail.limit));
  if (detail.shortfall_bytes != 0) status.SetPayload(kShortfallUrl, absl::Cord(absl::StrCat(detail.shortfall_bytes)));
  return status;
}

ErrorDetail DetailOf(const absl::Status& status) {
  ErrorDetail detail;
  detail.field = PayloadOf(status, kFieldUrl);
  detail.reason = PayloadOf(status, kReasonUrl);
  detail.limit = PayloadOf(status, kLimitUrl);
  const std::string shortfall = PayloadOf(status, kShortfallUrl);
  if (!absl::SimpleAtoi(shortfall, &detail.shortfall_bytes)) detail.shortfall_bytes = 0;
  return detail;
}

absl::Status InvalidField(absl::string_view field, absl::string_view problem, absl::string_view limit,
                          absl::string_view reason) {
  return WithDetail(absl::InvalidArgumentError(absl::StrCat(field, ": ", problem, " (", limit, ")")),
                    {.field = std::string(field), .reason = std::string(reason), .limit = std::string(limit)});
}

}  // namespace dak

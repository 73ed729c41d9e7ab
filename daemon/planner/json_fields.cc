#include "daemon/planner/json_fields.h"

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak::planner::internal {
namespace {

constexpr std::streamoff kMaxFileBytes = 16 << 20;

std::string Shown(const nlohmann::json& value) {
  const std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(const std::string& text) {
  nlohmann::json value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return absl::InvalidArgumentError("not valid JSON");
  if (!value.is_object()) return absl::InvalidArgumentError("not a JSON object");
  return value;
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return absl::NotFoundError(absl::StrCat("can't open ", path));
  const std::streamoff bytes = file.tellg();
  if (bytes > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", bytes, " bytes (at most ", kMaxFileBytes, ")"));
  }
  file.seekg(0);
  std::ostringstream text;
  if (bytes > 0) text << file.rdbuf();
  if (bytes < 0 || !file || !text) return absl::NotFoundError(absl::StrCat("can't read ", path));
  return text.str();
}

absl::Status WithPath(const absl::Status& status, const std::string& path) {
  return WithDetail(absl::Status(status.code(), absl::StrCat(path, ": ", status.message())), DetailOf(status));
}

bool JsonFields::Has(const std::string& field) const {
  const auto found = object_.find(field);
  return found != object_.end() && !found->is_null();
}

absl::StatusOr<uint64_t> JsonFields::Count(const std::string& field, uint64_t low, uint64_t high) const {
  const std::string limit = absl::StrCat("a whole number from ", low, " to ", high);
  if (!Has(field)) return InvalidField(NameOf(field), "missing", limit);
  const nlohmann::json& value = object_.at(field);
  if (!value.is_number_unsigned()) return InvalidField(NameOf(field), Shown(value), limit);
  const uint64_t count = value.get<uint64_t>();
  if (count < low || count > high) return InvalidField(NameOf(field), absl::StrCat(count, " is out of range"), limit);
  return count;
}

absl::StatusOr<uint64_t> JsonFields::CountOr(const std::string& field, uint64_t low, uint64_t high,
                                             uint64_t otherwise) const {
  if (!Has(field)) return otherwise;
  return Count(field, low, high);
}

absl::StatusOr<double> JsonFields::Number(const std::string& field) const {
  if (!Has(field)) return InvalidField(NameOf(field), "missing", "a number");
  const nlohmann::json& value = object_.at(field);
  if (!value.is_number()) return InvalidField(NameOf(field), Shown(value), "a number");
  return value.get<double>();
}

absl::StatusOr<double> JsonFields::NumberOr(const std::string& field, double otherwise) const {
  if (!Has(field)) return otherwise;
  return Number(field);
}

absl::StatusOr<bool> JsonFields::BoolOr(const std::string& field, bool otherwise) const {
  if (!Has(field)) return otherwise;
  const nlohmann::json& value = object_.at(field);
  if (!value.is_boolean()) return InvalidField(NameOf(field), Shown(value), "true or false");
  return value.get<bool>();
}

absl::StatusOr<std::string> JsonFields::Text(const std::string& field) const {
  if (!Has(field)) return InvalidField(NameOf(field), "missing", "a string");
  const nlohmann::json& value = object_.at(field);
  if (!value.is_string()) return InvalidField(NameOf(field), Shown(value), "a string");
  return value.get<std::string>();
}

absl::Status JsonFields::CheckNoOthers(const std::set<std::string>& known) const {
  for (const auto& [field, value] : object_.items()) {
    if (known.count(field) == 0) {
      return InvalidField(NameOf(field), "unknown field", absl::StrCat("one of ", absl::StrJoin(known, ", ")));
    }
  }
  return absl::OkStatus();
}

}  // namespace dak::planner::internal

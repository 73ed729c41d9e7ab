// Typed, bounded reading of a JSON object's fields, with errors that name the field and the limit. Internal.
//
// Thread safety: none; one thread's. The JSON value must outlive the reader.
#ifndef DAK_DAEMON_PLANNER_JSON_FIELDS_H_
#define DAK_DAEMON_PLANNER_JSON_FIELDS_H_

#include <cstdint>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace dak::planner::internal {

// INVALID_ARGUMENT with the place if `text` isn't one JSON object.
absl::StatusOr<nlohmann::json> ParseJsonObject(const std::string& text);

// Reads the whole of a file of at most 16 MiB. NOT_FOUND, or INVALID_ARGUMENT if it is larger.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path);

// `status` with the file's path before its message, details kept.
absl::Status WithPath(const absl::Status& status, const std::string& path);

class JsonFields {
 public:
  // `prefix` goes before field names in errors.
  explicit JsonFields(const nlohmann::json& object, std::string prefix = "")
      : object_(object), prefix_(std::move(prefix)) {}

  // Absent and null are the same.
  bool Has(const std::string& field) const;

  absl::StatusOr<uint64_t> Count(const std::string& field, uint64_t low, uint64_t high) const;
  absl::StatusOr<uint64_t> CountOr(const std::string& field, uint64_t low, uint64_t high, uint64_t otherwise) const;
  absl::StatusOr<double> Number(const std::string& field) const;
  absl::StatusOr<double> NumberOr(const std::string& field, double otherwise) const;
  absl::StatusOr<bool> BoolOr(const std::string& field, bool otherwise) const;
  absl::StatusOr<std::string> Text(const std::string& field) const;

  // INVALID_ARGUMENT names a field that isn't in `known`.
  absl::Status CheckNoOthers(const std::set<std::string>& known) const;

  std::string NameOf(const std::string& field) const { return prefix_ + field; }

 private:
  const nlohmann::json& object_;
  std::string prefix_;
};

}  // namespace dak::planner::internal

#endif  // DAK_DAEMON_PLANNER_JSON_FIELDS_H_

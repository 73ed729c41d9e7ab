// What calls of dak/dak.hpp return: a Status, or a Result that holds a value or a Status.
//
// Values: copyable where their contents are, owned by the caller. Thread safety: as of any value.
#ifndef DAK_RESULT_HPP_
#define DAK_RESULT_HPP_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "dak/dak.h"

namespace dak {
inline namespace v0 {

class [[nodiscard]] Status {
 public:
  Status() : error_{} {}
  explicit Status(const dak_error& error) : error_(error) {}
  bool ok() const { return error_.code == DAK_OK; }
  dak_code code() const { return error_.code; }
  const char* code_name() const { return dak_code_name(error_.code); }
  std::string message() const { return error_.message; }
  std::string field() const { return error_.field; }
  std::string reason() const { return error_.reason; }
  uint64_t shortfall_bytes() const { return error_.shortfall_bytes; }
  // "RESOURCE_EXHAUSTED: ..." for logs.
  std::string ToString() const { return ok() ? "OK" : std::string(code_name()) + ": " + error_.message; }

 private:
  dak_error error_;
};

// A value, or why there is none. Taking the value of a failed result is undefined, as of an empty optional.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: implicit, for return
  Result(T value) : value_(std::move(value)) {}          // NOLINT
  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  // By value, so that a loop over what a temporary holds doesn't outlive it.
  T value() && { return *std::move(value_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

// Called as Check([&](dak_error* error) { return dak_...(..., error); }).
template <typename Call>
Status Check(const Call& call) {
  dak_error error{};
  error.code = call(&error);
  return Status(error);
}

}  // namespace v0
}  // namespace dak

#endif  // DAK_RESULT_HPP_

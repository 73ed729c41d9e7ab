// What the C ABI's source files share: handles, guards, arguments.
//
// Thread safety: functions only touch their arguments. Errors: INVALID_ARGUMENT names the argument.
#ifndef DAK_CLIENT_SRC_C_API_H_
#define DAK_CLIENT_SRC_C_API_H_

#include <cstring>
#include <exception>
#include <new>
#include <string>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "client/src/rpc_status.h"
#include "client/src/session.h"
#include "client/src/structs.h"
#include "dak/dak.h"

namespace dak::client {

inline constexpr size_t kMaxTensors = 1024;

inline Session* Unwrap(dak_session* session) { return reinterpret_cast<Session*>(session); }
inline Tensor* Unwrap(dak_tensor* tensor) { return reinterpret_cast<Tensor*>(tensor); }
inline const Tensor* Unwrap(const dak_tensor* tensor) { return reinterpret_cast<const Tensor*>(tensor); }
inline dak_tensor* Wrap(Tensor* tensor) { return reinterpret_cast<dak_tensor*>(tensor); }

template <typename Body>
dak_code Guard(dak_error* error, const Body& body) noexcept {
  try {
    return ReportStatus(body(), error);
  } catch (const std::bad_alloc&) {
    return ReportStatus(absl::Status(absl::StatusCode::kResourceExhausted, "out of memory"), error);
  } catch (const std::exception& failure) {
    return ReportStatus(absl::Status(absl::StatusCode::kInternal, failure.what()), error);
  } catch (...) {
    return ReportStatus(absl::Status(absl::StatusCode::kInternal, "unknown exception"), error);
  }
}

inline absl::Status NotNull(absl::string_view field, const void* pointer) {
  if (pointer != nullptr) return absl::OkStatus();
  return InvalidField(field, "is NULL", "a pointer", "NULL_POINTER");
}

inline absl::Status CheckCount(size_t count, size_t most) {
  if (count >= 1 && count <= most) return absl::OkStatus();
  return InvalidField("count", absl::StrCat(count, " is out of range"), absl::StrCat("1 to ", most));
}

// A session that this process may use.
inline absl::Status CheckSession(dak_session* session) {
  DAK_RETURN_IF_ERROR(NotNull("session", session));
  return Unwrap(session)->CheckOwner();
}

inline absl::Status CheckTensor(const dak_tensor* tensor) {
  DAK_RETURN_IF_ERROR(NotNull("tensor", tensor));
  return Unwrap(tensor)->session()->CheckOwner();
}

inline std::string TextOr(const char* text, const char* fallback) { return text != nullptr ? text : fallback; }

// Element `index` of a caller's array of structs, whose stride is the caller's struct_size.
template <typename Struct>
absl::Status ReadElement(absl::string_view array, const Struct* first, size_t index, Struct* to) {
  const std::string field = absl::StrCat(array, "[", index, "]");
  DAK_RETURN_IF_ERROR(CheckStructSize(field, first->struct_size, sizeof(Struct)));
  const auto* const bytes = reinterpret_cast<const char*>(first) + index * first->struct_size;
  const auto* const element = reinterpret_cast<const Struct*>(bytes);
  if (element->struct_size != first->struct_size) {
    return InvalidField(absl::StrCat(field, ".struct_size"), "differs from the first element's", "all the same",
                        "STRUCT_SIZE");
  }
  return ReadStruct(field, element, to);
}

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_C_API_H_

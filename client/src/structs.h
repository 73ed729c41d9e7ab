// Versioned structs of the C ABI: each starts with struct_size, so that either side may be older.
//
// A caller's struct that is longer than this library's is accepted if what the library doesn't know is zero; a shorter
// one than the first release's is refused.
// Thread safety: functions only touch their arguments. Errors: INVALID_ARGUMENT names "<struct>.struct_size".
#ifndef DAK_CLIENT_SRC_STRUCTS_H_
#define DAK_CLIENT_SRC_STRUCTS_H_

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak::client {

inline constexpr size_t kMaxStructBytes = 4096;  // more than this is a struct_size that nobody set

// INVALID_ARGUMENT unless `size` is plausible for a struct of which `known` bytes are known.
inline absl::Status CheckStructSize(absl::string_view field, size_t size, size_t known) {
  if (size >= known && size <= kMaxStructBytes) return absl::OkStatus();
  return InvalidField(absl::StrCat(field, ".struct_size"), absl::StrCat(size, " is out of range"),
                      absl::StrCat(known, " to ", kMaxStructBytes), "STRUCT_SIZE");
}

// Copies *from into *to, as far as both know it; the rest of *to stays as it was.
template <typename Struct>
absl::Status ReadStruct(absl::string_view field, const Struct* from, Struct* to) {
  if (from == nullptr) return InvalidField(field, "is NULL", "a pointer", "NULL_POINTER");
  const size_t size = from->struct_size;
  DAK_RETURN_IF_ERROR(CheckStructSize(field, size, sizeof(Struct)));
  const auto* const bytes = reinterpret_cast<const unsigned char*>(from);
  if (std::any_of(bytes + sizeof(Struct), bytes + size, [](unsigned char byte) { return byte != 0; })) {
    return InvalidField(absl::StrCat(field, ".struct_size"), "a field is set that this libdak doesn't know",
                        absl::StrCat("at most ", sizeof(Struct), ", or zeros"), "STRUCT_SIZE");
  }
  std::memcpy(to, from, sizeof(Struct));
  return absl::OkStatus();
}

// Checks an output struct before it is filled.
template <typename Struct>
absl::Status CheckOutput(absl::string_view field, const Struct* to) {
  if (to == nullptr) return InvalidField(field, "is NULL", "a pointer", "NULL_POINTER");
  return CheckStructSize(field, to->struct_size, sizeof(Struct));
}

// Fills what the library knows of *to and keeps its struct_size.
template <typename Struct>
void WriteStruct(const Struct& from, Struct* to) {
  const size_t size = to->struct_size;
  std::memcpy(to, &from, sizeof(Struct));
  to->struct_size = size;
}

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_STRUCTS_H_

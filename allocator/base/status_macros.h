// Early return on a failed absl::Status, for functions that return absl::Status or absl::StatusOr.
#ifndef DAK_ALLOCATOR_BASE_STATUS_MACROS_H_
#define DAK_ALLOCATOR_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define DAK_STATUS_CONCAT_INNER_(a, b) a##b
#define DAK_STATUS_CONCAT_(a, b) DAK_STATUS_CONCAT_INNER_(a, b)

// Returns from the enclosing function if `expr` isn't OK.
#define DAK_RETURN_IF_ERROR(expr)                                                 \
  do {                                                                            \
    if (absl::Status dak_status_ = (expr); !dak_status_.ok()) return dak_status_; \
  } while (false)

// DAK_ASSIGN_OR_RETURN(auto x, F()): x is F()'s value, or the function returns F()'s status.
#define DAK_ASSIGN_OR_RETURN(lhs, expr) \
  DAK_ASSIGN_OR_RETURN_IMPL_(DAK_STATUS_CONCAT_(dak_statusor_, __LINE__), lhs, expr)
#define DAK_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                               \
  if (!tmp.ok()) return std::move(tmp).status();   \
  lhs = std::move(tmp).value()

#endif  // DAK_ALLOCATOR_BASE_STATUS_MACROS_H_

// Sizes as people write and read them.
//
// Thread safety: pure functions.
#ifndef DAK_DAEMON_PLANNER_SIZE_TEXT_H_
#define DAK_DAEMON_PLANNER_SIZE_TEXT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace dak::planner {

// "40GiB", "1.5 GB", "4096": a number and B, KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024); no
// unit means bytes. INVALID_ARGUMENT for anything else, for a fraction of a byte, and above 2^53.
absl::StatusOr<uint64_t> ParseSize(const std::string& text);

// "7.50 GiB", "436 MiB", "12 B": three digits.
std::string FormatSize(uint64_t bytes);

}  // namespace dak::planner

#endif  // DAK_DAEMON_PLANNER_SIZE_TEXT_H_

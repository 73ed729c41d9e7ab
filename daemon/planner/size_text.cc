#include "daemon/planner/size_text.h"

#include <array>
#include <cmath>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace dak::planner {
namespace {

struct Unit {
  const char* name;
  double bytes;
};
constexpr std::array<Unit, 10> kUnits = {{{"", 1},
                                          {"B", 1},
                                          {"KB", 1e3},
                                          {"MB", 1e6},
                                          {"GB", 1e9},
                                          {"TB", 1e12},
                                          {"KiB", 1024},
                                          {"MiB", 1048576},
                                          {"GiB", 1073741824},
                                          {"TiB", 1099511627776}}};
constexpr double kMaxBytes = 9007199254740992;  // 2^53: whole numbers up to here are exact

absl::Status NotASize(const std::string& text) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' is not a size (a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, as in 40GiB)"));
}

}  // namespace

absl::StatusOr<uint64_t> ParseSize(const std::string& text) {
  const size_t digits = text.find_first_not_of("0123456789.");
  const std::string number = text.substr(0, digits);
  std::string unit = digits == std::string::npos ? "" : text.substr(digits);
  absl::StripLeadingAsciiWhitespace(&unit);
  double value = 0;
  if (number.empty() || !absl::SimpleAtod(number, &value)) return NotASize(text);
  for (const Unit& known : kUnits) {
    if (unit != known.name) continue;
    const double bytes = value * known.bytes;
    if (bytes > kMaxBytes)
      return absl::InvalidArgumentError(absl::StrCat("'", text, "' is out of range (at most 2^53 bytes)"));
    if (known.bytes == 1 && bytes != std::floor(bytes)) return NotASize(text);
    return static_cast<uint64_t>(std::llround(bytes));
  }
  return NotASize(text);
}

std::string FormatSize(uint64_t bytes) {
  static constexpr std::array<const char*, 5> kNames = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  const int decimals = unit == 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  std::snprintf(text, sizeof(text), "%.*f %s", decimals, value, kNames[unit]);
  return text;
}

}  // namespace dak::planner

#include "daemon/dakctl/text.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "daemon/planner/size_text.h"

namespace dak::dakctl {
namespace {

// One code point of `text` at `i`; its length, or 0 if it isn't valid UTF-8.
size_t Decode(absl::string_view text, size_t i, uint32_t& code) {
  const auto byte = [&](size_t k) { return static_cast<uint8_t>(text[k]); };
  const uint8_t lead = byte(i);
  if (lead < 0x80) {
    code = lead;
    return 1;
  }
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || i + length > text.size()) return 0;
  code = lead & (0xff >> (length + 1));
  for (size_t k = 1; k < length; ++k) {
    if ((byte(i + k) & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte(i + k) & 0x3f);
  }
  const uint32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return code < least || surrogate || code > 0x10ffff ? 0 : length;
}

bool Steers(uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) ||        // C0, DEL, C1
         (code >= 0x200b && code <= 0x200f) ||                  // no width, direction marks
         (code >= 0x2028 && code <= 0x202e) ||                  // line breaks, embeddings
         (code >= 0x2060 && code <= 0x2069) || code == 0xfeff;  // isolates
}

// Three figures: 1.50, 24.0, 131.
std::string ThreeFigures(double value) {
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return absl::StrFormat("%.*f", decimals, value);
}

}  // namespace

std::string Printable(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    uint32_t code = 0;
    const size_t length = Decode(text, i, code);
    if (length == 0) {
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<uint8_t>(text[i++]));
      continue;
    }
    if (!Steers(code)) {
      out.append(text.data() + i, length);
    } else if (code < 0x80) {
      absl::StrAppendFormat(&out, "\\x%02x", code);
    } else {
      absl::StrAppendFormat(&out, "\\u%04x", code);
    }
    i += length;
  }
  return out;
}

size_t DisplayWidth(absl::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string Clip(absl::string_view text, size_t columns) {
  if (columns == 0) return "";
  if (DisplayWidth(text) <= columns) return std::string(text);
  size_t end = 0, width = 0;
  while (width + 1 < columns) {
    do {
      ++end;
    } while (end < text.size() && (text[end] & 0xc0) == 0x80);
    ++width;
  }
  return absl::StrCat(text.substr(0, end), "~");
}

std::string Format::Bytes(uint64_t bytes) const {
  if (exact_bytes) return absl::StrCat(bytes);
  return planner::FormatSize(bytes);
}

std::string Format::Limit(uint64_t bytes) const {
  return bytes == std::numeric_limits<uint64_t>::max() ? "none" : Bytes(bytes);
}

std::string Format::Rate(double bytes_per_s) const {
  if (exact_bytes) return absl::StrFormat("%.0f", bytes_per_s);
  static constexpr const char* kUnits[] = {"B/s", "KB/s", "MB/s", "GB/s", "TB/s"};
  size_t unit = 0;
  // 999.9 KB/s would show as 1000 KB/s.
  while (bytes_per_s >= 999.5 && unit + 1 < std::size(kUnits)) {
    bytes_per_s /= 1000;
    ++unit;
  }
  return absl::StrCat(unit == 0 ? absl::StrFormat("%.0f", bytes_per_s) : ThreeFigures(bytes_per_s), " ", kUnits[unit]);
}

std::string Duration(double seconds) {
  if (seconds <= 0) return "0 s";
  if (seconds < 0.9995e-6) return absl::StrFormat("%.0f ns", seconds * 1e9);
  if (seconds < 0.9995e-3) return absl::StrCat(ThreeFigures(seconds * 1e6), " us");
  if (seconds < 0.9995) return absl::StrCat(ThreeFigures(seconds * 1e3), " ms");
  return absl::StrCat(ThreeFigures(seconds), " s");
}

std::string Age(uint64_t ns) {
  const uint64_t seconds = ns / 1'000'000'000;
  const uint64_t minutes = seconds / 60, hours = minutes / 60, days = hours / 24;
  if (days > 0) return absl::StrFormat("%dd %dh", days, hours % 24);
  if (hours > 0) return absl::StrFormat("%dh %dm", hours, minutes % 60);
  if (minutes > 0) return absl::StrFormat("%dm %ds", minutes, seconds % 60);
  return absl::StrFormat("%ds", seconds);
}

std::string Percent(double part, double whole) {
  if (!(whole > 0)) return "-";
  const double percent = 100 * part / whole;
  return absl::StrFormat(percent >= 99.95 || percent == 0 ? "%.0f %%" : "%.1f %%", percent);
}

}  // namespace dak::dakctl

// Figures and names for people. Thread safety: pure functions.
#ifndef DAK_DAEMON_DAKCTL_TEXT_H_
#define DAK_DAEMON_DAKCTL_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace dak::dakctl {

// `text` with whatever could steer a terminal made visible: control characters (also C1), line breaks, text-direction
// marks and invalid UTF-8 turn into \xNN or \uNNNN.
std::string Printable(absl::string_view text);

// Columns that printable UTF-8 takes, one a code point.
size_t DisplayWidth(absl::string_view text);
// At most `columns` of it; what is cut shows as "~".
std::string Clip(absl::string_view text, size_t columns);

// How sizes and rates are shown: 1.50 GiB and 48.7 GB/s, or plain numbers.
struct Format {
  bool exact_bytes = false;

  std::string Bytes(uint64_t bytes) const;
  std::string Limit(uint64_t bytes) const;  // the largest value is "none"
  std::string Rate(double bytes_per_s) const;
};

// 2.60 us, 5.50 ms, 1.25 s
std::string Duration(double seconds);
// 42s, 5m 12s, 2h 13m, 3d 4h
std::string Age(uint64_t ns);
// 12.5 %; "-" where there is no whole
std::string Percent(double part, double whole);

}  // namespace dak::dakctl

#endif  // DAK_DAEMON_DAKCTL_TEXT_H_

// Label values that are safe to expose, whatever they were made from.
//
// One label that isn't valid UTF-8 makes Prometheus drop the whole scrape, and a long or hostile one spoils every table
// it is shown in. Names are checked where they enter dakd; this is the second line. Thread safety: pure function.
#ifndef DAK_MONITORING_LABELS_H_
#define DAK_MONITORING_LABELS_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace dak::monitoring {

inline constexpr size_t kMaxLabelBytes = 128;

// `value` with every byte outside printable ASCII replaced by '?', cut to kMaxLabelBytes; never empty ("unknown"),
// since Prometheus takes an empty label for an absent one. Quotes and backslashes stay: the serializer escapes them.
std::string LabelValue(absl::string_view value);

}  // namespace dak::monitoring

#endif  // DAK_MONITORING_LABELS_H_

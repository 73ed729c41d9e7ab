#include "monitoring/labels.h"

namespace dak::monitoring {

std::string LabelValue(absl::string_view value) {
  if (value.empty()) return "unknown";
  std::string label(value.substr(0, kMaxLabelBytes));
  for (char& c : label) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return label;
}

}  // namespace dak::monitoring

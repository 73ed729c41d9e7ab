// The daemon's answers as JSON: protobuf's mapping with the field names of the API (64-bit numbers are strings, fields
// with their default value are there). Thread safety: pure functions.
#ifndef DAK_DAEMON_DAKCTL_JSON_H_
#define DAK_DAEMON_DAKCTL_JSON_H_

#include <google/protobuf/message.h>

#include <string>

#include "daemon/dakctl/overview.h"

namespace dak::dakctl {

enum class JsonStyle {
  kDocument,  // indented, over several lines
  kLine,      // one line, for streams
};

// Ends in a line break.
std::string ToJson(const google::protobuf::Message& message, JsonStyle style = JsonStyle::kDocument);
// {"node": GetNodeResponse, "pools": [PoolInfo], "sessions": [SessionInfo], "links": [LinkState]}
std::string ToJson(const Overview& overview, JsonStyle style = JsonStyle::kDocument);

}  // namespace dak::dakctl

#endif  // DAK_DAEMON_DAKCTL_JSON_H_

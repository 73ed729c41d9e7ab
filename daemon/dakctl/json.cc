#include "daemon/dakctl/json.h"

#include <google/protobuf/util/json_util.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace dak::dakctl {
namespace {

std::string Print(const google::protobuf::Message& message, JsonStyle style) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  options.add_whitespace = style == JsonStyle::kDocument;
  std::string json;
  // Only Any and well-known types can fail, and the API has none.
  (void)google::protobuf::util::MessageToJsonString(message, &json, options);
  while (!json.empty() && json.back() == '\n') json.pop_back();
  return json;
}

// The fields of a printed object, without its braces.
std::string Fields(const google::protobuf::Message& message, JsonStyle style) {
  std::string json = Print(message, style);
  json = json.substr(1, json.size() - 2);
  while (!json.empty() && json.back() == '\n') json.pop_back();
  return json;
}

}  // namespace

std::string ToJson(const google::protobuf::Message& message, JsonStyle style) {
  return absl::StrCat(Print(message, style), "\n");
}

std::string ToJson(const Overview& overview, JsonStyle style) {
  const bool lines = style == JsonStyle::kDocument;
  // No string in JSON holds a raw line break, so this only indents.
  const std::string node = absl::StrReplaceAll(Print(overview.node, style), {{"\n", "\n "}});
  return absl::StrCat("{", lines ? "\n \"node\": " : "\"node\":", node, ",", Fields(overview.pools, style), ",",
                      Fields(overview.sessions, style), ",", Fields(overview.congestion, style),
                      lines ? "\n}\n" : "}\n");
}

}  // namespace dak::dakctl

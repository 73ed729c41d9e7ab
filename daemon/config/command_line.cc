#include "daemon/config/command_line.h"

#include <functional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak::daemon {
namespace {

struct Flag {
  const char* name;
  const char* value;  // null: the flag takes none
  const char* help;
  std::function<absl::Status(CommandLine*, const std::string&)> apply;
};

absl::Status SetCapacity(CommandLine* line, const char* tier, const std::string& value) {
  config::Pool* pool = line->overrides.add_pools();
  pool->set_tier(tier);
  pool->set_capacity(value);
  return absl::OkStatus();
}

absl::Status SetText(const std::string& value, std::string* field) {
  *field = value;
  return absl::OkStatus();
}

template <typename Number, typename Setter>
absl::Status SetNumber(const char* flag, const std::string& value, Setter setter) {
  Number number = 0;
  if (!absl::SimpleAtoi(value, &number))
    return InvalidField(flag, absl::StrCat("'", value, "' is no number"), "a number");
  setter(number);
  return absl::OkStatus();
}

const std::vector<Flag>& Flags() {
  static const auto* flags = new std::vector<Flag>{
      {"--config", "FILE", "configuration in protobuf's text format",
       [](CommandLine* line, const std::string& value) {
         line->config_path = value;
         return absl::OkStatus();
       }},
      {"--runtime-dir", "DIR", "where control.sock and handles.sock are made (/run/dak)",
       [](CommandLine* line, const std::string& value) {
         return SetText(value, line->overrides.mutable_runtime_dir());
       }},
      {"--device", "KIND", "auto, cuda or emulated (auto)",
       [](CommandLine* line, const std::string& value) { return SetText(value, line->overrides.mutable_device()); }},
      {"--gpu", "N", "ordinal of the GPU (0)",
       [](CommandLine* line, const std::string& value) {
         return SetNumber<int32_t>("--gpu", value, [&](int32_t n) { line->overrides.set_gpu_ordinal(n); });
       }},
      {"--cxl-numa-node", "N", "the NUMA node that backs the cxl tier of a GPU (-1: none)",
       [](CommandLine* line, const std::string& value) {
         return SetNumber<int32_t>("--cxl-numa-node", value, [&](int32_t n) { line->overrides.set_cxl_numa_node(n); });
       }},
      {"--hbm", "SIZE", "capacity of the hbm pool, as 40GiB",
       [](CommandLine* line, const std::string& value) { return SetCapacity(line, "hbm", value); }},
      {"--host", "SIZE", "capacity of the host pool",
       [](CommandLine* line, const std::string& value) { return SetCapacity(line, "host", value); }},
      {"--cxl", "SIZE", "capacity of the cxl pool",
       [](CommandLine* line, const std::string& value) { return SetCapacity(line, "cxl", value); }},
      {"--metrics-address", "HOST:PORT", "where /metrics is served; off: nowhere (127.0.0.1:9465)",
       [](CommandLine* line, const std::string& value) {
         line->overrides.set_metrics_address(value);
         return absl::OkStatus();
       }},
      {"--lease-ms", "N", "close a session that is silent for longer; 0: never (0)",
       [](CommandLine* line, const std::string& value) {
         return SetNumber<uint64_t>("--lease-ms", value, [&](uint64_t n) { line->overrides.set_lease_ms(n); });
       }},
      {"--log-level", "LEVEL", "trace, debug, info, warn, error or off (info)",
       [](CommandLine* line, const std::string& value) {
         line->overrides.set_log_level(value);
         return absl::OkStatus();
       }},
      {"--profile", "SOURCE", "of the machine's rates: auto, measure, once, cached, default, a JSON file (auto)",
       [](CommandLine* line, const std::string& value) {
         line->overrides.mutable_profile()->set_source(value);
         return absl::OkStatus();
       }},
      {"--print-profile", nullptr, "print the machine's rates as JSON and exit; measures as a start would",
       [](CommandLine* line, const std::string&) {
         line->mode = CommandLine::Mode::kPrintProfile;
         return absl::OkStatus();
       }},
      {"--check-config", nullptr, "check the configuration and exit",
       [](CommandLine* line, const std::string&) {
         line->mode = CommandLine::Mode::kCheckConfig;
         return absl::OkStatus();
       }},
      {"--help", nullptr, "this text",
       [](CommandLine* line, const std::string&) {
         line->mode = CommandLine::Mode::kHelp;
         return absl::OkStatus();
       }},
      {"--version", nullptr, "the version", [](CommandLine* line, const std::string&) {
         line->mode = CommandLine::Mode::kVersion;
         return absl::OkStatus();
       }}};
  return *flags;
}

const Flag* FindFlag(const std::string& name) {
  for (const Flag& flag : Flags()) {
    if (name == flag.name) return &flag;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(absl::Span<const std::string> arguments) {
  CommandLine line;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const Flag* flag = FindFlag(name);
    if (flag == nullptr) return InvalidField(argument, "is no flag of dakd", "see --help", "UNKNOWN_FLAG");
    std::string value;
    if (flag->value == nullptr) {
      if (equals != std::string::npos) return InvalidField(name, "takes no value", "see --help", "UNKNOWN_FLAG");
    } else if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      return InvalidField(name, "needs a value", flag->value, "VALUE_MISSING");
    }
    DAK_RETURN_IF_ERROR(flag->apply(&line, value));
  }
  return line;
}

std::string HelpText() {
  std::string text =
      "dakd: shares one GPU's memory tiers among inference jobs.\n"
      "It stays in the foreground; SIGTERM and SIGINT end it.\n\n";
  for (const Flag& flag : Flags()) {
    const std::string usage = flag.value == nullptr ? flag.name : absl::StrCat(flag.name, "=", flag.value);
    absl::StrAppend(&text, absl::StrFormat("  %-28s %s\n", usage, flag.help));
  }
  return text;
}

}  // namespace dak::daemon

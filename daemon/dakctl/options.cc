#include "daemon/dakctl/options.h"

#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "allocator/base/status_macros.h"
#include "allocator/base/tier.h"
#include "daemon/dakctl/text.h"
#include "daemon/planner/size_text.h"

namespace dak::dakctl {
namespace {

constexpr uint32_t kMaxReplay = 1024;  // node.proto's bound
constexpr double kMaxSeconds = 86400;

absl::Status Usage(const std::string& message) { return absl::InvalidArgumentError(message); }

size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, change}));
    }
  }
  return row.back();
}

std::string DidYouMean(const std::string& nearest, const char* prefix = "") {
  return nearest.empty() ? "" : absl::StrCat("; did you mean '", prefix, nearest, "'?");
}

const CommandSpec* FindCommand(const std::string& name) {
  for (const CommandSpec& spec : Commands()) {
    if (name == spec.name) return &spec;
  }
  return nullptr;
}

absl::StatusOr<const CommandSpec*> RequireCommand(const std::string& name) {
  if (const CommandSpec* spec = FindCommand(name)) return spec;
  std::vector<std::string> names;
  for (const CommandSpec& spec : Commands()) names.push_back(spec.name);
  return Usage(absl::StrCat("unknown command '", Printable(name), "'", DidYouMean(Nearest(name, names))));
}

// A flag as it stood on the command line.
struct Given {
  const FlagSpec* spec;
  std::string value;
};

absl::StatusOr<const FlagSpec*> RequireFlag(const std::string& name) {
  std::vector<std::string> names;
  for (const FlagSpec& flag : Flags()) {
    if (name == flag.name) return &flag;
    names.push_back(flag.name);
  }
  return Usage(absl::StrCat("unknown option '--", Printable(name), "'", DidYouMean(Nearest(name, names), "--")));
}

absl::StatusOr<uint64_t> Number(const Given& given, uint64_t min, uint64_t max) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(given.value, &number) || number < min || number > max) {
    return Usage(absl::StrCat("--", given.spec->name, ": '", Printable(given.value), "' is no whole number from ", min,
                              " to ", max));
  }
  return number;
}

absl::StatusOr<double> Seconds(const Given& given) {
  std::string text = given.value;
  if (text.size() > 1 && text.back() == 's') text.pop_back();
  double seconds = 0;
  if (!absl::SimpleAtod(text, &seconds) || !(seconds > 0) || seconds > kMaxSeconds) {
    return Usage(absl::StrCat("--", given.spec->name, ": '", Printable(given.value),
                              "' is no number of seconds over 0 and up to ", kMaxSeconds));
  }
  return seconds;
}

absl::Status ApplyFlag(const Given& given, Options& options) {
  const std::string name = given.spec->name;
  if (name == "json") options.json = true;
  if (name == "bytes") options.exact_bytes = true;
  if (name == "follow") options.follow = true;
  if (name == "runtime-dir") {
    if (given.value.empty()) return Usage("--runtime-dir: needs a folder");
    options.runtime_dir = given.value;
  }
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  if (name == "session") {
    DAK_ASSIGN_OR_RETURN(options.session_id, Number(given, 1, kMax));
  }
  if (name == "revision") {
    DAK_ASSIGN_OR_RETURN(options.expected_revision, Number(given, 1, kMax));
  }
  if (name == "count") {
    DAK_ASSIGN_OR_RETURN(options.count, Number(given, 1, kMax));
  }
  if (name == "timeout") {
    DAK_ASSIGN_OR_RETURN(options.timeout_s, Seconds(given));
  }
  if (name == "interval") {
    DAK_ASSIGN_OR_RETURN(options.interval_s, Seconds(given));
  }
  if (name == "replay") {
    DAK_ASSIGN_OR_RETURN(const uint64_t replay, Number(given, 0, kMaxReplay));
    options.replay = static_cast<uint32_t>(replay);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::Tier> ParseTier(const std::string& name) {
  for (Tier tier : kAllTiers) {
    if (name == TierName(tier)) return static_cast<v1::Tier>(tier);
  }
  return Usage(absl::StrCat("quotas set: TIER '", Printable(name), "' is none of hbm, host, cxl"));
}

absl::Status ApplyQuotas(const std::vector<std::string>& words, Options& options) {
  if (words.empty() || (words.size() == 1 && words[0] == "get")) {
    if (options.expected_revision != 0) return Usage("quotas: --revision goes with set");
    return absl::OkStatus();
  }
  if (words[0] != "set") {
    return Usage(absl::StrCat("quotas: '", Printable(words[0]), "' is neither get nor set",
                              DidYouMean(Nearest(words[0], {"get", "set"}))));
  }
  if (words.size() != 4) return Usage("quotas set: needs SESSION TIER LIMIT, as in 'quotas set 3 hbm 24GiB'");
  if (options.session_id != 0) return Usage("quotas set: the session is an argument, not --session");
  options.set_quota = true;
  if (!absl::SimpleAtoi(words[1], &options.session_id) || options.session_id == 0) {
    return Usage(
        absl::StrCat("quotas set: SESSION '", Printable(words[1]), "' is no session's id ('dakctl sessions')"));
  }
  DAK_ASSIGN_OR_RETURN(options.tier, ParseTier(words[2]));
  DAK_ASSIGN_OR_RETURN(options.limit_bytes, ParseLimit(words[3]));
  return absl::OkStatus();
}

absl::Status ApplyWords(const CommandSpec& spec, const std::vector<std::string>& words, Options& options) {
  switch (spec.command) {
    case Command::kQuotas:
      return ApplyQuotas(words, options);
    case Command::kWithdraw:
      if (words.size() != 1) return Usage("withdraw: needs the publication's name ('dakctl publications')");
      options.publication = words[0];
      return absl::OkStatus();
    case Command::kDemote:
    case Command::kPromote:
      if (words.size() != 1) return Usage(absl::StrCat(spec.name, ": needs the session's id ('dakctl sessions')"));
      if (!absl::SimpleAtoi(words[0], &options.session_id) || options.session_id == 0) {
        return Usage(absl::StrCat(spec.name, ": SESSION '", Printable(words[0]), "' is no session's id"));
      }
      return absl::OkStatus();
    case Command::kHelp:
      if (words.size() > 1) return Usage("help: takes one command's name");
      if (!words.empty()) {
        DAK_ASSIGN_OR_RETURN(const CommandSpec* topic, RequireCommand(words[0]));
        options.help_topic = topic->name;
      }
      return absl::OkStatus();
    default:
      if (!words.empty()) return Usage(absl::StrCat(spec.name, ": takes no argument '", Printable(words[0]), "'"));
      return absl::OkStatus();
  }
}

// The command line in three heaps.
struct Split {
  const CommandSpec* command = nullptr;
  std::vector<Given> flags;
  std::vector<std::string> words;  // after the command
};

absl::StatusOr<Split> SplitCommandLine(absl::Span<const std::string> args) {
  Split split;
  bool only_words = false;
  for (size_t i = 0; i < args.size(); ++i) {
    std::string arg = args[i] == "-h" ? "--help" : args[i];
    if (arg == "--" && !only_words) {
      only_words = true;
    } else if (!only_words && arg.size() > 1 && arg[0] == '-') {
      if (arg[1] != '-') return Usage(absl::StrCat("unknown option '", Printable(arg), "'"));
      const size_t equals = arg.find('=');
      const std::string name = arg.substr(2, equals == std::string::npos ? equals : equals - 2);
      DAK_ASSIGN_OR_RETURN(const FlagSpec* flag, RequireFlag(name));
      Given given{flag, equals == std::string::npos ? "" : arg.substr(equals + 1)};
      if (*flag->value == '\0' && equals != std::string::npos) {
        return Usage(absl::StrCat("--", name, ": takes no value"));
      }
      if (*flag->value != '\0' && equals == std::string::npos) {
        if (++i == args.size()) return Usage(absl::StrCat("--", name, ": needs a value, ", flag->value));
        given.value = args[i];
      }
      split.flags.push_back(given);
    } else if (split.command == nullptr) {
      DAK_ASSIGN_OR_RETURN(split.command, RequireCommand(arg));
      if (split.command->command == Command::kPlan) {
        split.words.assign(args.begin() + i + 1, args.end());
        return split;
      }
    } else {
      split.words.push_back(arg);
    }
  }
  return split;
}

}  // namespace

absl::StatusOr<Options> ParseCommandLine(absl::Span<const std::string> args, const std::string& default_runtime_dir) {
  DAK_ASSIGN_OR_RETURN(const Split split, SplitCommandLine(args));
  Options options;
  options.runtime_dir = default_runtime_dir;
  const bool wants_help = std::any_of(split.flags.begin(), split.flags.end(),
                                      [](const Given& g) { return g.spec->name == absl::string_view("help"); });
  if (split.command == nullptr && !wants_help) return Usage("needs a command");
  if (wants_help && (split.command == nullptr || split.command->command != Command::kPlan)) {
    if (split.command != nullptr) options.help_topic = split.command->name;
    return options;
  }
  for (const Given& given : split.flags) {
    if (!HasFlag(*split.command, *given.spec)) {
      return Usage(absl::StrCat(split.command->name, ": has no option --", given.spec->name, " (it belongs to ",
                                given.spec->commands, ")"));
    }
    DAK_RETURN_IF_ERROR(ApplyFlag(given, options));
  }
  options.command = split.command->command;
  if (options.command == Command::kPlan) {
    options.plan_args = split.words;
    if (wants_help) options.plan_args.insert(options.plan_args.begin(), "--help");
    if (options.json) options.plan_args.insert(options.plan_args.begin(), "--json");
    return options;
  }
  DAK_RETURN_IF_ERROR(ApplyWords(*split.command, split.words, options));
  return options;
}

absl::StatusOr<uint64_t> ParseLimit(const std::string& text) {
  if (text == "none") return std::numeric_limits<uint64_t>::max();
  const absl::StatusOr<uint64_t> size = planner::ParseSize(text);
  if (!size.ok()) return Usage(absl::StrCat("quotas set: LIMIT ", Printable(std::string(size.status().message()))));
  return size;
}

std::string Nearest(const std::string& word, absl::Span<const std::string> known) {
  std::string best;
  // A third of the letters may be wrong.
  size_t limit = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : known) {
    size_t distance = EditDistance(word, candidate);
    if (word.size() >= 3 && candidate.starts_with(word)) distance = 0;
    if (distance < limit) {
      limit = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace dak::dakctl

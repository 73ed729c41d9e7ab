#include "tests/bench/dak_bench/options.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <iterator>
#include <map>
#include <sstream>

namespace dak::bench {
namespace {

constexpr char kUsage[] =
    "usage: dak-bench gemm|attention|link|mix|pass|predict|greedy|launch|control|prefill|multicast [--json FILE]\n"
    "                 [--batches 1,8,64] [--ratios 0,0.1,1] [--window BYTES]\n"
    "                 [--model llama8b|llama70b|opt6.7b|opt30b|all] [--f16] [--tune] [--tuning FILE] [--no-peers]\n"
    "                 [--exact-rows] [--steady] [--handover 0..2]; values also as --flag=VALUE\n"
    "gemm: one operation at a time; --tune also times the choices that the model didn't make, and with --tuning\n"
    "      stores those that are better; --tuning alone uses what is stored\n"
    "attention: decode over paged KV, [--contexts 4096,65536] [--page 16|64] [--peer FILE of attention_peer.py]; a "
    "ratio\n"
    "      below 0 is the best one\n"
    "link: the kernel's remote reads by window\n"
    "mix:  local and remote rows at once, by window, and with none\n"
    "gemm, pass: splits are at whole tiles of 64 rows, as dakd makes them; --exact-rows splits at any row\n"
    "      --steady: after the same has run for 0.1 s, when the clock is what power allows; else after a rest\n"
    "      --handover: 0, a launch reads when the one before it has ended, and lets the next start late; 1, it reads "
    "what\n"
    "      that one gives up of the window; 2, and lets the next start early\n"
    "pass: the linear layers of Llama-3-8B; ratios are shares of the weights that don't fit in HBM\n"
    "predict: the planner's model on a profile measured first, against passes of --batches and --ratios\n"
    "greedy: greedy against uniform ratios in a mixed pass of --batches, with shares --ratios of it remote\n"
    "      both begin no row later than [--budget SECONDS] (20) after the start\n"
    "launch: CPU time of a launch\n"
    "control: the same work without control and report page, and with them in HBM and on the host\n"
    "prefill: large batches; a ratio below 0 is a share of the edge, which is what the link brings in the time with "
    "all in\n"
    "      HBM: -1 the edge, -0.8 four fifths of it; it needs a 0 before it\n"
    "multicast: remote tiles that every CTA of a cluster needs, with multicast and without\n"
    "neighbours: processes that share the GPU under dakd; see dak-bench neighbours --help\n"
    "--no-peers times dak alone; cuBLAS still gives the ceiling of compute\n"
    "--json is written after each row. Numbers are checked against float64 before anything is timed. Peers need\n"
    "libcublas in the loader's path.\n";

constexpr const char* kCommands[] = {"gemm",   "attention", "link",    "mix",     "pass",     "predict",
                                     "greedy", "launch",    "control", "prefill", "multicast"};
constexpr size_t kMostItems = 64;

template <class T>
bool ParseInRange(const std::string& text, T least, T most, T* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size() && *number >= least && *number <= most;
}

template <class T>
bool ParseList(const std::string& text, T least, T most, std::vector<T>* values) {
  values->clear();
  std::stringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    T value{};
    if (!ParseInRange(item, least, most, &value) || values->size() == kMostItems) return false;
    values->push_back(value);
  }
  return !values->empty();
}

bool SetText(const std::string& value, std::string* text) {
  *text = value;
  return !value.empty();
}

struct Flag {
  const char* limit;  // null: it takes no value
  std::function<bool(Options*, const std::string&)> set;
};

const std::map<std::string, Flag>& Flags() {
  static const auto* const flags = new std::map<std::string, Flag>{
      {"--json", {"a file", [](Options* o, const std::string& v) { return SetText(v, &o->json_path); }}},
      {"--tuning", {"a file", [](Options* o, const std::string& v) { return SetText(v, &o->tuning_path); }}},
      {"--peer", {"a file", [](Options* o, const std::string& v) { return SetText(v, &o->peer_path); }}},
      {"--model", {"a model", [](Options* o, const std::string& v) { return SetText(v, &o->model); }}},
      {"--batches",
       {"up to 64 of 1 to 65536",
        [](Options* o, const std::string& v) { return ParseList<uint64_t>(v, 1, 65'536, &o->batches); }}},
      {"--ratios",
       {"up to 64 of -1 to 1", [](Options* o, const std::string& v) { return ParseList(v, -1.0, 1.0, &o->ratios); }}},
      {"--contexts",
       {"up to 64 of 1 to 2^24",
        [](Options* o, const std::string& v) { return ParseList<uint64_t>(v, 1, 1 << 24, &o->contexts); }}},
      {"--page",
       {"1 to 1024", [](Options* o, const std::string& v) { return ParseInRange(v, 1u, 1024u, &o->page_tokens); }}},
      {"--window",
       {"0 to 2^40",
        [](Options* o, const std::string& v) { return ParseInRange(v, 0.0, 1099511627776.0, &o->window_bytes); }}},
      {"--budget",
       {"1 to 3600", [](Options* o, const std::string& v) { return ParseInRange(v, 1.0, 3600.0, &o->budget_s); }}},
      {"--handover",
       {"0 to 2", [](Options* o, const std::string& v) { return ParseInRange(v, 0u, 2u, &o->handover); }}},
      {"--f16", {nullptr, [](Options* o, const std::string&) { return o->f16 = true; }}},
      {"--tune", {nullptr, [](Options* o, const std::string&) { return o->tune = true; }}},
      {"--exact-rows", {nullptr, [](Options* o, const std::string&) { return o->exact_rows = true; }}},
      {"--steady", {nullptr, [](Options* o, const std::string&) { return o->steady = true; }}},
      {"--no-peers", {nullptr, [](Options* o, const std::string&) { return !(o->peers = false); }}}};
  return *flags;
}

void SetDefaults(Options* options) {
  if (options->command == "pass") {
    options->batches = {1, 64};
    options->ratios = {0, 0.02, 0.1, 0.3, 0.5};
  } else if (options->command == "attention") {
    options->batches = {1, 8, 32};
    options->ratios = {0, -1, 0.1, 0.5};
  } else if (options->command == "prefill") {
    options->batches = {2048, 4096};
    options->ratios = {0, 0.05, -1};
  } else if (options->command == "predict") {
    options->batches = {1, 64, 256};
    options->ratios = {0, 0.1, 0.5};
    options->peers = false;
  } else if (options->command == "greedy") {
    options->batches = {512};
    options->ratios = {0.02, 0.05, 0.1};
    options->peers = false;
  }
}

// Where a ratio below 0 has no meaning.
bool RatiosAreShares(const Options& options) {
  if (options.command == "attention" || options.command == "prefill") return true;
  return std::all_of(options.ratios.begin(), options.ratios.end(), [](double ratio) { return ratio >= 0; });
}

// prefill takes a ratio below 0 from the time that ratio 0 took.
bool EdgeIsKnown(const Options& options) {
  if (options.command != "prefill") return true;
  const auto below = std::find_if(options.ratios.begin(), options.ratios.end(), [](double ratio) { return ratio < 0; });
  return below == options.ratios.end() || std::find(options.ratios.begin(), below, 0.0) != below;
}

}  // namespace

const char* Usage() { return kUsage; }

std::optional<Options> ParseOptions(int argc, const char* const* argv, std::string* error) {
  Options options;
  options.command = argc < 2 ? "" : argv[1];
  if (std::find(std::begin(kCommands), std::end(kCommands), options.command) == std::end(kCommands)) {
    *error = "'" + options.command + "' is no sub-command";
    return std::nullopt;
  }
  SetDefaults(&options);
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const bool joined = equals != std::string::npos;
    const std::string name = argument.substr(0, equals);
    const auto flag = Flags().find(name);
    if (flag == Flags().end()) {
      *error = name + " is no flag";
      return std::nullopt;
    }
    if (flag->second.limit == nullptr && joined) {
      *error = name + " takes no value";
      return std::nullopt;
    }
    if (flag->second.limit != nullptr && !joined && i + 1 == argc) {
      *error = name + " needs a value: " + flag->second.limit;
      return std::nullopt;
    }
    const std::string value = flag->second.limit == nullptr ? "" : joined ? argument.substr(equals + 1) : argv[++i];
    if (!flag->second.set(&options, value)) {
      *error = name + ": '" + value + "' isn't allowed: " + flag->second.limit;
      return std::nullopt;
    }
  }
  if (!RatiosAreShares(options)) {
    *error = "--ratios: below 0 isn't allowed for " + options.command + ": 0 to 1";
    return std::nullopt;
  }
  if (!EdgeIsKnown(options)) {
    *error = "--ratios: below 0 isn't allowed for prefill without a 0 before it";
    return std::nullopt;
  }
  return options;
}

}  // namespace dak::bench

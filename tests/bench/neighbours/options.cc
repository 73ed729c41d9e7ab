#include "tests/bench/neighbours/options.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>
#include <sstream>

namespace dak::bench {
namespace {

constexpr const char* kExperiments[] = {"sharing", "weights", "hbm", "crowd", "off"};

template <typename Number>
bool ParseInRange(const std::string& text, Number least, Number most, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size() && *number >= least && *number <= most;
}

bool ParseExperiments(const std::string& text, std::vector<std::string>* experiments) {
  std::stringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    if (std::find(std::begin(kExperiments), std::end(kExperiments), item) == std::end(kExperiments)) return false;
    experiments->push_back(item);
  }
  return !experiments->empty();
}

bool ParseTargets(const std::string& text, std::vector<double>* targets) {
  std::stringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    if (!ParseInRange(item, 0.1, 100.0, &targets->emplace_back())) return false;
  }
  return !targets->empty();
}

bool SetText(std::string* text, const std::string& value) {
  *text = value;
  return !value.empty();
}

using Options = NeighboursOptions;
using Setter = std::function<bool(Options*, const std::string&)>;

const std::map<std::string, Setter>& Setters() {
  static const auto* const setters = new std::map<std::string, Setter>{
      {"--device",
       [](Options* o, const std::string& v) {
         o->device = v;
         return v == "auto" || v == "cuda" || v == "emulated";
       }},
      {"--mps",
       [](Options* o, const std::string& v) {
         o->mps = v;
         return v == "auto" || v == "on" || v == "off" || v == "both";
       }},
      {"--dakd", [](Options* o, const std::string& v) { return SetText(&o->dakd, v); }},
      {"--target-bdp", [](Options* o, const std::string& v) { return ParseTargets(v, &o->target_bdps); }},
      {"--hbm-percent", [](Options* o, const std::string& v) { return ParseInRange(v, 1, 100, &o->hbm_percent); }},
      {"--experiments", [](Options* o, const std::string& v) { return ParseExperiments(v, &o->experiments); }},
      {"--hold", [](Options* o, const std::string& v) { return ParseInRange(v, 0.05, 60.0, &o->hold_s); }},
      {"--idle-ctas", [](Options* o, const std::string& v) { return ParseInRange(v, 1u, 64u, &o->idle_ctas); }},
      {"--json", [](Options* o, const std::string& v) { return SetText(&o->json, v); }},
      {"--role",
       [](Options* o, const std::string& v) {
         o->role = v;
         return v == "remote" || v == "hbm" || v == "stream" || v == "crowd" || v == "idle" || v == "flood";
       }},
      {"--runtime-dir", [](Options* o, const std::string& v) { return SetText(&o->runtime_dir, v); }},
      {"--name", [](Options* o, const std::string& v) { return SetText(&o->name, v); }},
      {"--weight", [](Options* o, const std::string& v) { return ParseInRange(v, 1u, 1000u, &o->weight); }},
      {"--ctas", [](Options* o, const std::string& v) { return ParseInRange(v, 1u, 64u, &o->ctas); }},
      {"--window",
       [](Options* o, const std::string& v) { return ParseInRange<uint64_t>(v, 0, ~uint64_t{0}, &o->window_bytes); }}};
  return *setters;
}

}  // namespace

bool NeighboursOptions::Wants(const std::string& experiment) const {
  return experiments.empty() || std::find(experiments.begin(), experiments.end(), experiment) != experiments.end();
}

const char* NeighboursHelp() {
  return "usage: dak-bench-neighbours [flags]\n"
         "\n"
         "Starts dakd and processes that each hold a session and stream weights, and shows how they share the link "
         "and\n"
         "what they leave of HBM's rate. Numbers are checked before anything is timed: exit code 1 if one is wrong or "
         "a\n"
         "process fails. A bar that is missed is shown, and fails nothing.\n"
         "\n"
         "  --device=KIND        auto, cuda or emulated (auto)\n"
         "  --mps=WHEN           auto, on, off or both (auto: both on cuda, off on the emulated device)\n"
         "  --dakd-under-mps     dakd is a client of MPS as well\n"
         "  --experiments=LIST   of sharing, weights, hbm, crowd and off (all)\n"
         "  --target-bdp=LIST    congestion.target_bdp of dakd: the experiments again for each, 0.1 to 100 (dakd's "
         "own)\n"
         "  --hbm-percent=N      of the SMs for reads of HBM under MPS, 1 to 100 (85; GEMMs, and beside 32 CTAs: 70)\n"
         "  --hold=SECONDS       of each state of an experiment, 0.05 to 60 (by device)\n"
         "  --idle-ctas=N        that a remote streamer is compared with, 1 to 64 (4)\n"
         "  --json=FILE          everything, with the time series\n"
         "  --dakd=PATH          the daemon (beside this program, or in the bundle's bin)\n"
         "  --help               this text\n";
}

std::optional<NeighboursOptions> ParseOptions(int argc, char** argv, std::string* error) {
  NeighboursOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (i == 1 && argument == "worker") {
      options.worker = true;
    } else if (argument == "--help" || argument == "-h") {
      options.help = true;
    } else if (argument == "--dakd-under-mps") {
      options.dakd_under_mps = true;
    } else {
      const size_t equals = argument.find('=');
      const std::string name = argument.substr(0, equals);
      const auto setter = Setters().find(name);
      if (setter == Setters().end()) {
        *error = argument + " is no flag of dak-bench-neighbours; see --help";
        return std::nullopt;
      }
      if (equals == std::string::npos && i + 1 == argc) {
        *error = name + " needs a value";
        return std::nullopt;
      }
      const std::string value = equals != std::string::npos ? argument.substr(equals + 1) : argv[++i];
      if (!setter->second(&options, value)) {
        *error = name + ": '" + value + "' isn't allowed; see --help";
        return std::nullopt;
      }
    }
  }
  return options;
}

}  // namespace dak::bench

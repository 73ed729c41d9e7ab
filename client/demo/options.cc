#include "client/demo/options.h"

#include <unistd.h>

#include <charconv>
#include <climits>
#include <cstring>
#include <functional>
#include <map>

namespace dak::demo {
namespace {

template <typename Number>
bool ParseNumber(const std::string& text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

template <typename Number>
bool ParseInRange(const std::string& text, Number least, Number most, Number* number) {
  return ParseNumber(text, number) && *number >= least && *number <= most;
}

using Setter = std::function<bool(Options*, const std::string&)>;

const std::map<std::string, Setter>& Setters() {
  static const auto* const setters = new std::map<std::string, Setter>{
      {"--device",
       [](Options* o, const std::string& v) {
         o->device = v;
         return v == "auto" || v == "cuda" || v == "emulated";
       }},
      {"--seconds", [](Options* o, const std::string& v) { return ParseInRange(v, 1.0, 86'400.0, &o->seconds); }},
      {"--dakd",
       [](Options* o, const std::string& v) {
         o->dakd = v;
         return !v.empty();
       }},
      {"--dakctl",
       [](Options* o, const std::string& v) {
         o->dakctl = v;
         return !v.empty();
       }},
      {"--layers", [](Options* o, const std::string& v) { return ParseInRange(v, 1u, 64u, &o->layers); }},
      {"--batch", [](Options* o, const std::string& v) { return ParseInRange(v, 1u, 256u, &o->batch); }},
      {"--hbm-share", [](Options* o, const std::string& v) { return ParseInRange(v, 0.01, 1.0, &o->hbm_share); }},
      {"--reclaim-ms", [](Options* o, const std::string& v) { return ParseInRange(v, 1.0, 60'000.0, &o->reclaim_ms); }},
      {"--runtime-dir",
       [](Options* o, const std::string& v) {
         o->runtime_dir = v;
         return !v.empty();
       }},
      {"--name",
       [](Options* o, const std::string& v) {
         o->name = v;
         return !v.empty();
       }},
      {"--weight", [](Options* o, const std::string& v) { return ParseInRange(v, 1u, 1000u, &o->weight); }}};
  return *setters;
}

}  // namespace

const char* HelpText() {
  return "usage: dak-demo [flags]\n"
         "\n"
         "Starts dakd and two client processes that share one device's memory, shows what they do, kills one,\n"
         "and checks everything on the way. Exit code 0 if all checks passed.\n"
         "\n"
         "  --device=KIND      auto, cuda or emulated (auto)\n"
         "  --seconds=N        how long both clients run side by side (6)\n"
         "  --keep-going       until Ctrl-C instead\n"
         "  --kill-both        end the second client by SIGKILL as well\n"
         "  --layers=N         layers of the model, 1 to 64 (4)\n"
         "  --batch=N          tokens a pass, 1 to 256 (by device)\n"
         "  --hbm-share=X      share of the weights that may stay in HBM, 0.01 to 1 (by device)\n"
         "  --reclaim-ms=N     most milliseconds until a killed client's memory is back (by device)\n"
         "  --dakd=PATH        the daemon (beside this program)\n"
         "  --dakctl=PATH      the control tool (beside this program)\n"
         "  --help             this text\n";
}

std::optional<Options> ParseOptions(int argc, char** argv, std::string* error) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (i == 1 && argument == "worker") {
      options.worker = true;
    } else if (i == 1 && argument == "memory") {
      options.memory = true;
    } else if (argument == "--help" || argument == "-h") {
      options.help = true;
    } else if (argument == "--keep-going") {
      options.keep_going = true;
    } else if (argument == "--kill-both") {
      options.kill_both = true;
    } else {
      const size_t equals = argument.find('=');
      const std::string name = argument.substr(0, equals);
      const auto setter = Setters().find(name);
      if (setter == Setters().end()) {
        *error = argument + " is no flag of dak-demo; see --help";
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

std::string OwnDirectory() {
  char path[PATH_MAX] = "";
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
  const std::string whole(path, length > 0 ? static_cast<size_t>(length) : 0);
  const size_t slash = whole.rfind('/');
  return slash == std::string::npos ? "." : whole.substr(0, slash);
}

}  // namespace dak::demo

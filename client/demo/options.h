// dak-demo's command line.
//
// Pure functions. Errors: ParseOptions answers with a text for the user.
#ifndef DAK_CLIENT_DEMO_OPTIONS_H_
#define DAK_CLIENT_DEMO_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace dak::demo {

struct Options {
  bool help = false;
  std::string device = "auto";
  double seconds = 6;       // that both sessions run side by side
  bool keep_going = false;  // until SIGINT instead
  bool kill_both = false;   // the second client ends by SIGKILL as well
  std::string dakd;         // empty: beside this program
  std::string dakctl;
  uint32_t layers = 4;
  uint32_t batch = 0;     // 0: by device
  double hbm_share = 0;   // of the weights that may stay in HBM; 0: by device
  double reclaim_ms = 0;  // most that reclaiming may take; 0: by device

  // Of the hidden subcommands `memory` and `worker`, which the demo starts itself as.
  bool memory = false;
  bool worker = false;
  std::string runtime_dir;
  std::string name;
  uint32_t weight = 100;
};

// Nothing, and *error filled, if `argv` is wrong.
std::optional<Options> ParseOptions(int argc, char** argv, std::string* error);
const char* HelpText();

// The directory that this program is in.
std::string OwnDirectory();

}  // namespace dak::demo

#endif  // DAK_CLIENT_DEMO_OPTIONS_H_

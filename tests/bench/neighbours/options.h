// The command line of dak-bench-neighbours, and of the processes that it starts itself as.
//
// Pure functions. Errors: ParseOptions answers with a text for the user.
#ifndef DAK_TESTS_BENCH_NEIGHBOURS_OPTIONS_H_
#define DAK_TESTS_BENCH_NEIGHBOURS_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dak::bench {

struct NeighboursOptions {
  bool help = false;
  std::string device = "auto";
  std::string dakd;                      // empty: beside this program, or where the bundle has it
  std::string mps = "auto";              // "on", "off", "both"; auto: both on cuda, off on the emulated device
  bool dakd_under_mps = false;           // else dakd stays outside
  std::vector<std::string> experiments;  // empty: all
  std::vector<double> target_bdps;       // of the controller, one after another; empty: dakd's own
  int hbm_percent = 0;                   // SMs of the stream of HBM under MPS; 0: as many as leave room for streamers
  double hold_s = 0;                     // of each state of an experiment; 0: by device
  uint32_t idle_ctas = 4;                // as many as a remote streamer has
  std::string json;                      // file; empty: none

  // Of the hidden subcommand `worker`.
  bool worker = false;
  std::string role;  // "remote", "hbm", "stream", "crowd", "idle" or "flood"
  std::string runtime_dir;
  std::string name;
  uint32_t weight = 100;
  uint32_t ctas = 0;          // of "idle" and "flood"
  uint64_t window_bytes = 0;  // of "flood"; 0: none

  bool Wants(const std::string& experiment) const;
};

// Nothing, and *error filled, if `argv` is wrong.
std::optional<NeighboursOptions> ParseOptions(int argc, char** argv, std::string* error);
const char* NeighboursHelp();

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_NEIGHBOURS_OPTIONS_H_

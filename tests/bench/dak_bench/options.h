// The command line of dak-bench.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_OPTIONS_H_
#define DAK_TESTS_BENCH_DAK_BENCH_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dak::bench {

inline constexpr uint32_t kPlannedHandover = 3;

struct Options {
  std::string command;
  std::string json_path;
  std::string tuning_path;
  std::string model = "llama8b";  // shapes: llama8b, llama70b, opt6.7b, opt30b, all
  std::vector<uint64_t> batches = {1, 8, 64, 256};
  std::vector<double> ratios = {0, 0.01, 0.1, 0.5, 1};
  double window_bytes = 262'144;
  double budget_s = 20;  // predict, greedy: since the program's start; no row begins later
  bool f16 = false;
  bool tune = false;
  bool exact_rows = false;  // splits at any row, not at whole tiles
  bool steady = false;      // gemm and pass: under a load that lasts
  // gemm, pass: of the ways in which a launch overlaps the one before it, the first so many; kPlannedHandover: the
  // plan's
  uint32_t handover = kPlannedHandover;
  bool peers = true;
  // attention
  std::vector<uint64_t> contexts = {4096, 16'384, 65'536};
  uint32_t page_tokens = 16;
  std::string peer_path;  // what attention_peer.py wrote, or empty
};

const char* Usage();

// Nothing, with what is wrong in `error` ("--budget: '-1' isn't allowed: 1 to 3600"), for a line that can't be run.
std::optional<Options> ParseOptions(int argc, const char* const* argv, std::string* error);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_OPTIONS_H_

// The experiments of `dak-bench neighbours`: each prints its table and adds it, and its time series, to the report.
//
// Thread safety: none. Errors: the stage's.
#ifndef DAK_TESTS_BENCH_NEIGHBOURS_EXPERIMENTS_H_
#define DAK_TESTS_BENCH_NEIGHBOURS_EXPERIMENTS_H_

#include <string>
#include <vector>

#include "tests/bench/neighbours/options.h"
#include "tests/bench/neighbours/stage.h"

namespace dak::bench {

struct Report {
  std::vector<std::string> tables;   // JSON
  std::vector<std::string> courses;  // JSON
};

// One to four sessions of equal weight join and leave.
void RunSharing(Stage& stage, const NeighboursOptions& options, Report& report);
// Three sessions of weights 1:2:3.
void RunWeights(Stage& stage, const NeighboursOptions& options, Report& report);
// A session that streams HBM beside idle CTAs, beside remote streamers, and, on cuda, beside a flood.
void RunHbm(Stage& stage, const NeighboursOptions& options, Report& report);
// What dakd's congestion loop costs with 64 sessions, most of which are only open.
void RunCrowd(Stage& stage, const NeighboursOptions& options, Report& report);
// A stream of HBM beside remote streamers whose windows bind nothing. Starts a dakd of its own.
void RunOff(Stage& stage, const NeighboursOptions& options, Report& report);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_NEIGHBOURS_EXPERIMENTS_H_

// dak-bench-neighbours: processes that share a GPU and its link under a real dakd, with and without MPS.
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "tests/bench/dak_bench/report_file.h"
#include "tests/bench/neighbours/experiments.h"
#include "tests/bench/neighbours/worker.h"

namespace dak::bench {
namespace {

std::string Join(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "\n" : ",\n") + item;
  return text;
}

void WriteJson(const std::string& path, const Stage& stage, const Report& report) {
  const std::string text = "{\"device\": \"" + stage.device_name() + "\", \"device_kind\": \"" + stage.device_kind() +
                           "\",\n\"tables\": [" + Join(report.tables) + "],\n\"courses\": [" + Join(report.courses) +
                           "]}\n";
  if (!WriteWhole(path, text)) Die(path + " can't be written: " + std::strerror(errno));
}

// One pass over the experiments, in the mode that the stage is in. The file is written after each, so that a run that
// is killed leaves what it had.
void RunAll(Stage& stage, const NeighboursOptions& options, Report& report) {
  const auto run = [&](const char* name, void (*experiment)(Stage&, const NeighboursOptions&, Report&)) {
    if (!options.Wants(name)) return;
    experiment(stage, options, report);
    if (!options.json.empty()) WriteJson(options.json, stage, report);
  };
  const auto begin = std::chrono::steady_clock::now();
  for (const double target_bdp : options.target_bdps.empty() ? std::vector<double>{0} : options.target_bdps) {
    stage.SetTarget(target_bdp);
    stage.StartDaemon(/*controlled=*/true);
    run("sharing", RunSharing);
    run("weights", RunWeights);
    run("hbm", RunHbm);
    run("crowd", RunCrowd);
    stage.StopDaemon();
  }
  stage.SetTarget(0);
  run("off", RunOff);
  std::printf("\n%s MPS: %.0f s\n", stage.under_mps() ? "with" : "without",
              std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
}

int Run(const NeighboursOptions& options) {
  // Static, so that whoever ends the program ends MPS and dakd with it.
  static Stage stage(options);
  Report report;
  bool with = options.mps == "on" || options.mps == "both";
  bool without = options.mps == "off" || options.mps == "both";
  if (options.mps == "auto") {
    stage.StartDaemon(/*controlled=*/true);
    stage.StopDaemon();
    without = true;
    with = stage.device_kind() == "cuda";
  }
  if (with) {
    const std::string error = stage.StartMps();
    if (!error.empty() && options.mps != "auto") Die("MPS: " + error);
    if (!error.empty()) std::printf("without MPS alone: %s\n", error.c_str());
    if (error.empty()) RunAll(stage, options, report);
    stage.StopMps();
  }
  if (without) RunAll(stage, options, report);
  return 0;
}

}  // namespace
}  // namespace dak::bench

int main(int argc, char** argv) {
  dak::bench::FlushEveryLine();
  std::string error;
  const auto options = dak::bench::ParseOptions(argc, argv, &error);
  if (!options.has_value()) {
    std::fprintf(stderr, "dak-bench-neighbours: %s\n", error.c_str());
    return 2;
  }
  if (options->help) {
    std::fputs(dak::bench::NeighboursHelp(), stdout);
    return 0;
  }
  return options->worker ? dak::bench::RunWorker(*options) : dak::bench::Run(*options);
}

// dak-bench: what dak's kernels do on this GPU, against its ceilings and against others, all measured in one run.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/operation.h"
#include "tests/bench/dak_bench/options.h"
#include "tests/bench/dak_bench/report_file.h"

namespace dak::bench {
namespace {

// A program of its own, which needs no GPU: it lies beside this one.
[[noreturn]] void BecomeNeighbours(char** argv) {
  const std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe");
  const std::string program = own.parent_path() / "dak-bench-neighbours";
  argv[1] = argv[0];
  execv(program.c_str(), argv + 1);
  Fail(program.c_str(), "can't be started");
}

// A pass has its weights and two layers of buffers. Weights on the host may lie in the same place (TakeHost).
Context MakeContext(const Options& options) {
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  const bool passes = options.command == "pass" || options.command == "predict" || options.command == "greedy";
  uint64_t host_bytes = 2 * kGiB;
  if (options.command == "attention") {
    const double most = *std::max_element(options.ratios.begin(), options.ratios.end());
    host_bytes = static_cast<uint64_t>((std::max(most, 0.0) * 2 + 0.25) * kGiB);
  }
  return Context(passes ? 14 * kGiB : 3 * kGiB, host_bytes, options.f16);
}

std::string Document(const Context& context, const Options& options, const std::vector<std::string>& tables) {
  char ceilings[256];
  std::snprintf(ceilings, sizeof(ceilings),
                "{\"hbm_gbps\": %.1f, \"link_sm_gbps\": %.2f, \"copy_engine_gbps\": %.2f, \"cublas_tflops\": %.1f}",
                context.ceilings.hbm_bytes_per_s * 1e-9, context.ceilings.link_bytes_per_s * 1e-9,
                context.ceilings.copy_engine_bytes_per_s * 1e-9, context.ceilings.flops_per_s * 1e-12);
  std::ostringstream text;
  text << "{\"device\": \"" << context.device_name << "\", \"element\": \"" << (options.f16 ? "f16" : "bf16")
       << "\", \"window_bytes\": " << options.window_bytes << ", \"ceilings\": " << ceilings
       << ",\n \"table\": " << JoinTables(tables) << "}\n";
  return text.str();
}

void Run(Context& context, const Options& options) {
  const std::string& command = options.command;
  if (command == "gemm") return RunGemm(context, options);
  if (command == "attention") return RunAttention(context, options);
  if (command == "link") return RunLink(context, options);
  if (command == "mix") return RunMix(context, options);
  if (command == "pass") return RunPass(context, options);
  if (command == "predict") return RunPredict(context, options);
  if (command == "greedy") return RunGreedy(context, options);
  if (command == "launch") return RunLaunch(context);
  if (command == "control") return RunControl(context);
  if (command == "prefill") return RunPrefill(context, options);
  RunMulticast(context);
}

}  // namespace
}  // namespace dak::bench

int main(int argc, char** argv) {
  using namespace dak::bench;
  if (argc > 1 && std::strcmp(argv[1], "neighbours") == 0) BecomeNeighbours(argv);
  FlushEveryLine();
  std::string error;
  const std::optional<Options> options = ParseOptions(argc, argv, &error);
  if (!options.has_value()) {
    std::fprintf(stderr, "dak-bench: %s\n%s", error.c_str(), Usage());
    return 2;
  }
  Context context = MakeContext(*options);
  context.report = ReportFile(
      options->json_path, [&](const std::vector<std::string>& tables) { return Document(context, *options, tables); });
  Run(context, *options);
  context.report.Write();
  return 0;
}

// dak-bench: what dak's kernels do on this GPU, against its ceilings and against others, all measured in one run.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/operation.h"

namespace dak::bench {
namespace {

constexpr char kUsage[] =
    "usage: dak-bench gemm|attention|link|mix|pass|predict|launch|control|prefill|multicast [--json FILE]\n"
    "                 [--batches 1,8,64] [--ratios 0,0.1,1] [--window BYTES]\n"
    "                 [--model llama8b|llama70b|opt6.7b|opt30b|all] [--f16] [--tune] [--tuning FILE] [--no-peers]\n"
    "                 [--exact-rows]\n"
    "gemm: one operation at a time; --tune also times the choices that the model didn't make, and with --tuning\n"
    "      stores those that are better; --tuning alone uses what is stored\n"
    "attention: decode over paged KV, [--contexts 4096,65536] [--page 16|64] [--peer FILE of attention_peer.py]; a "
    "ratio\n"
    "      below 0 is the best one\n"
    "link: the kernel's remote reads by window\n"
    "mix:  local and remote rows at once, by window, and with none\n"
    "gemm, pass: splits are at whole tiles of 64 rows, as dakd makes them; --exact-rows splits at any row\n"
    "pass: the linear layers of Llama-3-8B; ratios are shares of the weights that don't fit in HBM\n"
    "predict: the planner's model on a profile measured first, against passes; and greedy against uniform ratios\n"
    "launch: CPU time of a launch\n"
    "control: the same work with control and report page, and without\n"
    "prefill: large batches; a ratio of -1 is what hides behind the products\n"
    "multicast: remote tiles that every CTA of a cluster needs, with multicast and without\n"
    "neighbours: processes that share the GPU under dakd; see dak-bench neighbours --help\n"
    "--no-peers times dak alone; cuBLAS still gives the ceiling of compute\n"
    "Numbers are checked against float64 before anything is timed. Peers need libcublas in the loader's path.\n";

double ParseNumber(const std::string& flag, const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') Fail(flag.c_str(), ("'" + text + "' isn't a number").c_str());
  return value;
}

template <class T>
std::vector<T> ParseList(const std::string& flag, const char* text) {
  std::vector<T> values;
  std::stringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) values.push_back(static_cast<T>(ParseNumber(flag, item)));
  if (values.empty()) Fail(flag.c_str(), "needs numbers, with commas between them");
  return values;
}

Options Parse(int argc, char** argv) {
  Options options;
  if (argc < 2) {
    std::fputs(kUsage, stderr);
    std::exit(2);
  }
  options.command = argv[1];
  if (options.command == "pass") {
    options.batches = {1, 64};
    options.ratios = {0, 0.02, 0.1, 0.3, 0.5};
  } else if (options.command == "attention") {
    options.batches = {1, 8, 32};
    options.ratios = {0, -1, 0.1, 0.5};
  } else if (options.command == "prefill") {
    options.batches = {2048, 4096};
    options.ratios = {0, 0.05, -1};
  }
  if (options.command == "predict") {
    options.batches = {1, 16, 64, 128, 256};
    options.ratios = {0, 0.02, 0.1, 0.3, 0.5};
    options.peers = false;
  }
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string flag = argument.substr(0, equals);
    bool value_taken = equals == std::string::npos;
    const auto value = [&]() -> const char* {  // after = or as the next argument
      if (!std::exchange(value_taken, true)) return argv[i] + equals + 1;
      if (++i == argc) Fail(flag.c_str(), "needs a value");
      return argv[i];
    };
    if (flag == "--json") {
      options.json_path = value();
    } else if (flag == "--batches") {
      options.batches = ParseList<uint64_t>(flag, value());
    } else if (flag == "--ratios") {
      options.ratios = ParseList<double>(flag, value());
    } else if (flag == "--window") {
      options.window_bytes = ParseNumber(flag, value());
    } else if (flag == "--model") {
      options.model = value();
    } else if (flag == "--contexts") {
      options.contexts = ParseList<uint64_t>(flag, value());
    } else if (flag == "--page") {
      options.page_tokens = ParseList<uint32_t>(flag, value()).at(0);
    } else if (flag == "--peer") {
      options.peer_path = value();
    } else if (flag == "--f16") {
      options.f16 = true;
    } else if (flag == "--tune") {
      options.tune = true;
    } else if (flag == "--tuning") {
      options.tuning_path = value();
    } else if (flag == "--exact-rows") {
      options.exact_rows = true;
    } else if (flag == "--no-peers") {
      options.peers = false;
    } else {
      Fail(flag.c_str(), "unknown flag");
    }
    if (!value_taken) Fail(flag.c_str(), "takes no value");
  }
  return options;
}

// A program of its own, which needs no GPU: it lies beside this one.
[[noreturn]] void BecomeNeighbours(char** argv) {
  const std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe");
  const std::string program = own.parent_path() / "dak-bench-neighbours";
  argv[1] = argv[0];
  execv(program.c_str(), argv + 1);
  Fail(program.c_str(), "can't be started");
}

}  // namespace
}  // namespace dak::bench

int main(int argc, char** argv) {
  using namespace dak::bench;
  if (argc > 1 && std::strcmp(argv[1], "neighbours") == 0) BecomeNeighbours(argv);
  const Options options = Parse(argc, argv);
  const bool pass = options.command == "pass";
  const bool predict = options.command == "predict";
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  // A pass: its weights and two layers of buffers. Weights on the host may lie in the same place (TakeHost).
  const uint64_t hbm_bytes = pass || predict ? 14 * kGiB : 3 * kGiB;
  uint64_t host_bytes = 2 * kGiB;
  if (options.command == "attention") {
    const double most = options.ratios.empty() ? 0 : *std::max_element(options.ratios.begin(), options.ratios.end());
    host_bytes = static_cast<uint64_t>((most * 2 + 0.25) * kGiB);
  }
  Context context(hbm_bytes, host_bytes, options.f16);
  std::string json;
  if (options.command == "gemm") {
    json = RunGemm(context, options);
  } else if (options.command == "attention") {
    json = RunAttention(context, options);
  } else if (options.command == "link") {
    json = RunLink(context, options);
  } else if (options.command == "mix") {
    json = RunMix(context, options);
  } else if (pass) {
    json = RunPass(context, options);
  } else if (predict) {
    json = RunPredict(context, options);
  } else if (options.command == "launch") {
    json = RunLaunch(context);
  } else if (options.command == "control") {
    json = RunControl(context);
  } else if (options.command == "prefill") {
    json = RunPrefill(context, options);
  } else if (options.command == "multicast") {
    json = RunMulticast(context);
  } else {
    Fail(options.command.c_str(), "no such sub-command");
  }
  if (!options.json_path.empty()) {
    std::ofstream file(options.json_path);
    char ceilings[256];
    std::snprintf(ceilings, sizeof(ceilings),
                  "{\"hbm_gbps\": %.1f, \"link_sm_gbps\": %.2f, \"copy_engine_gbps\": %.2f, \"cublas_tflops\": %.1f}",
                  context.ceilings.hbm_bytes_per_s * 1e-9, context.ceilings.link_bytes_per_s * 1e-9,
                  context.ceilings.copy_engine_bytes_per_s * 1e-9, context.ceilings.flops_per_s * 1e-12);
    file << "{\"device\": \"" << context.device_name << "\", \"element\": \"" << (options.f16 ? "f16" : "bf16")
         << "\", \"window_bytes\": " << options.window_bytes << ", \"ceilings\": " << ceilings
         << ",\n \"table\": " << json << "}\n";
    if (!file.flush()) Fail(options.json_path.c_str(), "can't be written");
  }
  return 0;
}

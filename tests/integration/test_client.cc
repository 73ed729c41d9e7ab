// A client that integration tests run in a process of its own: dak-test-client RUNTIME_DIR NAME WEIGHT SCENARIO.
//
//   work     holds a split matrix, answers "ready"; on each line "pass" it runs a GEMM on it and answers "ok" if the
//            result equals the reference; on "passes" it runs one GEMM after another until the next line comes, and
//            then answers "ok" if the last result equals the reference; on "fork" it forks a child that lingers until
//            its input is closed; on "quit" it ends in order
//   publish  publishes group "model" as "model" with fingerprint "v1" and answers "published"
//   hold     allocates and answers "ready"
// Then it reads lines until it is killed or told to quit.
#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "dak/dak.hpp"
#include "tests/integration/harness/matrix.h"

namespace {

constexpr uint64_t kRows = 512;
constexpr uint64_t kCols = 256;
constexpr uint32_t kBatch = 4;

dak::TensorSpec Matrix(const std::string& name, uint64_t rows, double ratio) {
  return {.name = name,
          .data_type = DAK_BF16,
          .rows = rows,
          .cols = kCols,
          .offload_ratio = ratio,
          .remote_tier = DAK_TIER_HOST,
          .tile_rows = 0};
}

void Must(const dak::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "dak-test-client: %s\n", status.ToString().c_str());
  std::exit(1);
}

void Say(const std::string& line) { std::cout << line << std::endl; }

bool RunPass(dak::Session& session, dak::Tensor w, const std::vector<uint16_t>& weights, uint32_t seed) {
  alignas(64) static uint16_t x[kBatch * kCols];
  alignas(64) static uint16_t y[kBatch * kRows];
  const auto input = dak::testing::RandomMatrix(kBatch, kCols, seed, false);
  std::copy(input.begin(), input.end(), x);
  std::fill(std::begin(y), std::end(y), 0x7fff);
  Must(session.Gemm(w, reinterpret_cast<uint64_t>(x), reinterpret_cast<uint64_t>(y), kBatch));
  const std::vector<uint16_t> result(std::begin(y), std::end(y));
  return dak::testing::WorstError(input, weights, result, kBatch, kRows, kCols, false) < dak::testing::Tolerance(false);
}

bool LineIsThere() {
  pollfd input = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  return std::cin.rdbuf()->in_avail() > 0 || poll(&input, 1, 0) > 0;
}

// Without the reference in between, which takes longer than a GEMM.
void RunUntilLine(dak::Session& session, dak::Tensor w) {
  alignas(64) static uint16_t x[kBatch * kCols] = {};
  alignas(64) static uint16_t y[kBatch * kRows];
  while (!LineIsThere()) {
    Must(session.Gemm(w, reinterpret_cast<uint64_t>(x), reinterpret_cast<uint64_t>(y), kBatch));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  // Else lines that came together wait in C's buffer, where LineIsThere doesn't see the second.
  std::ios::sync_with_stdio(false);
  auto session = dak::Session::Open({.runtime_dir = argv[1],
                                     .name = argv[2],
                                     .weight = static_cast<uint32_t>(std::stoul(argv[3])),
                                     .hbm_quota_bytes = 0,
                                     .host_quota_bytes = 0,
                                     .cxl_quota_bytes = 0,
                                     .timeout = {}});
  Must(session.status());
  const std::string scenario = argv[4];
  const uint32_t seed = static_cast<uint32_t>(std::hash<std::string>()(argv[2]));
  const auto weights = dak::testing::RandomMatrix(kRows, kCols, seed, false);
  auto w = session->Allocate(Matrix("w", kRows, 0.5), "model");
  Must(w.status());
  Must(w->Upload(std::span(weights)));
  if (scenario == "publish") {
    Must(session->Publish("model", "model", "v1"));
    Say("published");
  } else {
    Say("ready");
  }
  uint32_t pass = 0;
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "quit") return 0;
    if (line == "fork") {
      if (fork() == 0) {
        char byte;
        _exit(read(STDIN_FILENO, &byte, 1) == 0 ? 0 : 1);
      }
      Say("forked");
    }
    if (line == "passes") RunUntilLine(*session, *w);
    if (line == "pass" || line == "passes") Say(RunPass(*session, *w, weights, seed + ++pass) ? "ok" : "wrong");
  }
  return 0;
}

// A client that stops itself for good in the middle of one phase: dak-stopping-client RUNTIME_DIR PHASE CALL N.
//
// Everything before the phase runs through; in the phase it stops at the N-th CALL to the kernel (kernel_calls.h) and
// says so. If the phase has fewer of them, it says "done" and waits. Publication "shared" must be there for `attach`.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "dak/dak.hpp"
#include "tests/fault/kernel_calls.h"

namespace {

constexpr uint64_t kRows = 1024;
constexpr uint64_t kCols = 512;

struct Client {
  std::string runtime_dir;
  dak::Session session;
  std::vector<dak::Tensor> tensors;
};

void Must(const dak::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "dak-stopping-client: %s\n", status.ToString().c_str());
  std::exit(1);
}

dak::TensorSpec Matrix(const std::string& name) {
  return {.name = name,
          .data_type = DAK_BF16,
          .rows = kRows,
          .cols = kCols,
          .offload_ratio = 0.5,
          .remote_tier = DAK_TIER_HOST,
          .tile_rows = 0};
}

void Open(Client& client) {
  auto session = dak::Session::Open({.runtime_dir = client.runtime_dir,
                                     .name = "victim",
                                     .weight = 0,
                                     .hbm_quota_bytes = 0,
                                     .host_quota_bytes = 0,
                                     .cxl_quota_bytes = 0,
                                     .timeout = {}});
  Must(session.status());
  client.session = *std::move(session);
}

void Allocate(Client& client) {
  const std::vector<dak::TensorSpec> specs = {Matrix("a"), Matrix("b")};
  auto tensors = client.session.Allocate(specs, "model");
  Must(tensors.status());
  client.tensors = *tensors;
}

void Upload(Client& client) {
  const std::vector<uint8_t> bytes(kRows * kCols * 2, 0x5a);
  for (const dak::Tensor& tensor : client.tensors) Must(tensor.Upload(std::span(bytes)));
}

void Gemm(Client& client) {
  alignas(64) static uint16_t x[4 * kCols];
  alignas(64) static uint16_t y[4 * kRows];
  for (const dak::Tensor& tensor : client.tensors) {
    Must(client.session.Gemm(tensor, reinterpret_cast<uint64_t>(x), reinterpret_cast<uint64_t>(y), 4));
  }
}

void Move(Client& client, double ratio) {
  std::vector<dak::TensorMove> moves(client.tensors.size());
  for (size_t i = 0; i < moves.size(); ++i) {
    moves[i].tensor = client.tensors[i];
    moves[i].offload_ratio = ratio;
  }
  Must(client.session.PrepareMove(moves).status());
}
void PrepareMove(Client& client) { Move(client, 0.25); }
void CommitMove(Client& client) { Must(client.session.CommitMove()); }
void AbortMove(Client& client) { Must(client.session.AbortMove()); }
void Suspend(Client& client) { Must(client.session.Suspend()); }
void Resume(Client& client) { Must(client.session.Resume()); }
void Publish(Client& client) { Must(client.session.Publish("model", "victims", "v1")); }
void Detach(Client& client) { Must(client.session.Detach("victims")); }
void Attach(Client& client) { Must(client.session.Attach("shared").status()); }
void Free(Client& client) { Must(client.session.Free(client.tensors)); }
void Close(Client& client) { client.session.Close(); }

using Step = std::function<void(Client&)>;
const std::map<std::string, std::vector<Step>>& Phases() {
  // The last step is the one to stop in.
  static const auto* const phases =
      new std::map<std::string, std::vector<Step>>{{"open", {Open}},
                                                   {"allocate", {Open, Allocate}},
                                                   {"upload", {Open, Allocate, Upload}},
                                                   {"gemm", {Open, Allocate, Upload, Gemm}},
                                                   {"prepare_move", {Open, Allocate, Upload, PrepareMove}},
                                                   {"commit_move", {Open, Allocate, Upload, PrepareMove, CommitMove}},
                                                   {"abort_move", {Open, Allocate, Upload, PrepareMove, AbortMove}},
                                                   {"suspend", {Open, Allocate, Upload, Suspend}},
                                                   {"resume", {Open, Allocate, Upload, Suspend, Resume}},
                                                   {"publish", {Open, Allocate, Upload, Publish}},
                                                   {"detach", {Open, Allocate, Upload, Publish, Detach}},
                                                   {"attach", {Open, Attach}},
                                                   {"free", {Open, Allocate, Upload, Free}},
                                                   {"close", {Open, Allocate, Upload, Close}}};
  return *phases;
}

}  // namespace

int main(int argc, char** argv) {
  const auto phase = argc == 5 ? Phases().find(argv[2]) : Phases().end();
  if (phase == Phases().end()) {
    std::fprintf(stderr, "usage: dak-stopping-client RUNTIME_DIR PHASE CALL N\n");
    return 2;
  }
  Client client{.runtime_dir = argv[1], .session = {}, .tensors = {}};
  const std::vector<Step>& steps = phase->second;
  for (size_t i = 0; i + 1 < steps.size(); ++i) steps[i](client);
  dak::testing::StopAtCall(argv[3], std::stoi(argv[4]));
  steps.back()(client);
  dak::testing::Disarm();
  std::cout << "done" << std::endl;
  for (;;) pause();
}

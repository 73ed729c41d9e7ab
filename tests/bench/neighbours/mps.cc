#include "tests/bench/neighbours/mps.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <thread>

namespace dak::bench {
namespace {

constexpr char kControl[] = "nvidia-cuda-mps-control";
constexpr auto kQuitPatience = std::chrono::seconds(15);

// Empty where no directory of PATH has it.
std::string FindProgram(const std::string& name) {
  const char* const path = std::getenv("PATH");
  std::stringstream directories(path == nullptr ? "" : path);
  for (std::string directory; std::getline(directories, directory, ':');) {
    const std::string program = directory + "/" + name;
    if (access(program.c_str(), X_OK) == 0) return program;
  }
  return "";
}

}  // namespace

std::string Mps::Start() {
  control_ = FindProgram(kControl);
  if (control_.empty()) return std::string("no ") + kControl + " in PATH";
  std::error_code error;
  std::filesystem::create_directories(directory_ + "/pipe", error);
  std::filesystem::create_directories(directory_ + "/log", error);
  if (error) return directory_ + ": " + error.message();
  demo::ChildProcess start({control_, "-d"}, ClientEnvironment(0));
  const int code = start.Wait();
  if (code != 0) return std::string(kControl) + " -d ended with code " + std::to_string(code);
  running_ = true;
  return "";
}

void Mps::Stop() {
  if (!running_) return;
  running_ = false;
  // NOTE: with its input left open, and without a time for clients to go, it hasn't ended on an H100 (580.159.04) even
  // after all clients had.
  demo::ChildProcess stop({"/bin/sh", "-c", "echo quit -t 5 | exec " + control_}, ClientEnvironment(0));
  const auto deadline = std::chrono::steady_clock::now() + kQuitPatience;
  while (stop.alive() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));  // tidy: sleep, because there is no wait with a limit
  }
  if (stop.alive()) std::printf("%s -d doesn't quit; going on beside it\n", kControl);
}

demo::ChildProcess::Environment Mps::ClientEnvironment(int sm_percent) const {
  demo::ChildProcess::Environment environment = {{"CUDA_MPS_PIPE_DIRECTORY", directory_ + "/pipe"},
                                                 {"CUDA_MPS_LOG_DIRECTORY", directory_ + "/log"}};
  if (sm_percent > 0) environment.emplace_back("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", std::to_string(sm_percent));
  return environment;
}

}  // namespace dak::bench

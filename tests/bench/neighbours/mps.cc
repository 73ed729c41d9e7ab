#include "tests/bench/neighbours/mps.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

namespace dak::bench {
namespace {

constexpr char kControl[] = "nvidia-cuda-mps-control";

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
  demo::ChildProcess stop({control_}, ClientEnvironment(0));
  stop.WriteLine("quit");
  stop.Wait();
}

demo::ChildProcess::Environment Mps::ClientEnvironment(int sm_percent) const {
  demo::ChildProcess::Environment environment = {{"CUDA_MPS_PIPE_DIRECTORY", directory_ + "/pipe"},
                                                 {"CUDA_MPS_LOG_DIRECTORY", directory_ + "/log"}};
  if (sm_percent > 0) environment.emplace_back("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", std::to_string(sm_percent));
  return environment;
}

}  // namespace dak::bench

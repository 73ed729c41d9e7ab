#include "tests/bench/neighbours/worker.h"

#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>
#include <thread>

#include "tests/bench/neighbours/load.h"

namespace dak::bench {
namespace {

constexpr auto kSampleInterval = std::chrono::milliseconds(1);

void Say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

int Fail(const std::string& text) {
  Say("failed " + text);
  return 1;
}

bool InputWaits() {
  pollfd polled{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  return poll(&polled, 1, 0) > 0;
}

// Samples a load from its construction to its destruction.
class Sampler {
 public:
  Sampler(Load& load, Series& series)
      : thread_([this, &load, &series] {
          auto next = std::chrono::steady_clock::now();
          while (!stop_) {
            series.Add(load.Now());
            next += kSampleInterval;
            std::this_thread::sleep_until(next);  // tidy: sleep, because it samples
          }
          series.Add(load.Now());
        }) {}
  ~Sampler() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Empty, or what failed; *end_ns is when the last of the work was done.
std::string Work(Load& load, double seconds, Series& series, int64_t* end_ns) {
  Sampler sampler(load, series);
  const int64_t begin_ns = NowNs();
  Say("began " + std::to_string(begin_ns));
  do {
    if (std::string error = load.RunBatch(); !error.empty()) return error;
  } while (static_cast<double>(NowNs() - begin_ns) < seconds * 1e9 && !InputWaits());
  *end_ns = NowNs();
  return "";
}

void Dump(Series& series) {
  std::string line = "samples";
  for (const Sample& sample : series.samples()) {
    line += " " + std::to_string(sample.time_ns) + " " + std::to_string(sample.bytes) + " " +
            std::to_string(sample.window_bytes);
  }
  Say(line);
  series = Series();
}

}  // namespace

int RunWorker(const NeighboursOptions& options) {
  const bool needs_gpu =
      options.device == "cuda" && (options.role == "idle" || options.role == "flood" || options.role == "stream");
  const std::unique_ptr<Load> load = needs_gpu ? CreateGpuLoad(options) : CreateSessionLoad(options);
  if (load == nullptr) return Fail("this build has no CUDA code");
  std::string error = load->Prepare();
  if (error.empty()) error = load->RunBatch();
  if (error.empty()) error = load->Check();
  if (!error.empty()) return Fail(error);
  Say("ready " + std::to_string(options.device == "cuda" ? VisibleMultiprocessors() : 0));
  Series series;
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "quit") {
      error = load->Check();
      return error.empty() ? 0 : Fail(error);
    }
    if (line == "dump") {
      Dump(series);
    } else if (line.starts_with("run ")) {
      int64_t end_ns = 0;
      if (error = Work(*load, std::stod(line.substr(4)), series, &end_ns); !error.empty()) return Fail(error);
      Say("ended " + std::to_string(end_ns));
    } else if (line != "stop") {
      return Fail("no such command: " + line);
    }
  }
  return 0;
}

}  // namespace dak::bench

// Latency and rate of the control plane, over real sockets: a daemon on the emulated device and its clients, all in
// this process and on its cores. Checks every answer; prints a table and JSON.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using Clock = std::chrono::steady_clock;

double MicrosSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

void Check(const grpc::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "a call failed: %s\n", status.error_message().c_str());
  std::exit(1);
}

// Processor time of this process, daemon and clients together: what a busy machine doesn't change.
double CpuMicros() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  auto micros = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_usec);
  };
  return micros(usage.ru_utime) + micros(usage.ru_stime);
}

struct Latencies {
  std::vector<double> micros;
  double At(double quantile) {
    std::sort(micros.begin(), micros.end());
    return micros[static_cast<size_t>(quantile * static_cast<double>(micros.size() - 1))];
  }
};

void Report(const char* what, Latencies latencies) {
  const double p50 = latencies.At(0.5), p99 = latencies.At(0.99);
  std::printf("%-44s p50 %8.1f us   p99 %8.1f us\n", what, p50, p99);
  std::printf("{\"bench\": \"%s\", \"p50_us\": %.1f, \"p99_us\": %.1f, \"samples\": %zu}\n", what, p50, p99,
              latencies.micros.size());
}

void BenchLatency(const std::string& runtime_dir) {
  TestSession session(runtime_dir);
  Latencies allocate, fetch, free, keep;
  for (int i = 0; i < 3000; ++i) {
    v1::AllocateTensorsResponse response;
    auto begin = Clock::now();
    Check(session.Allocate("g", {TestSession::Spec("w", 1024, 1024, 0.25)}, &response));
    allocate.micros.push_back(MicrosSince(begin));
    begin = Clock::now();
    if (session.connection.Fetch({response.segments(0).ticket(), response.segments(1).ticket()}).fds.size() != 2) {
      std::exit(1);
    }
    fetch.micros.push_back(MicrosSince(begin));
    begin = Clock::now();
    Check(session.Free({response.tensors(0).tensor_id()}));
    free.micros.push_back(MicrosSince(begin));
    v1::KeepSessionRequest request;
    v1::KeepSessionResponse kept;
    request.set_session_token(session.token());
    begin = Clock::now();
    Check(Call(*session.stubs.session, &v1::SessionService::Stub::KeepSession, request, &kept));
    keep.micros.push_back(MicrosSince(begin));
  }
  Report("allocate (two tiers, new segments)", allocate);
  Report("fetch two descriptors", fetch);
  Report("free (segments released)", free);
  Report("keep (an empty call)", keep);
}

void BenchRate(const std::string& runtime_dir, int clients) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> calls{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < clients; ++i) {
    threads.emplace_back([&] {
      TestSession session(runtime_dir);
      v1::AllocateTensorsResponse base, response;
      Check(session.Allocate("g", {TestSession::Spec("base", 64, 64, 0)}, &base));
      while (!stop) {
        Check(session.Allocate("g", {TestSession::Spec("w", 64, 64, 0)}, &response));
        Check(session.Free({response.tensors(0).tensor_id()}));
        calls += 2;
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // tidy: sleep, because a rate is measured over time
  const uint64_t before = calls;
  const double cpu_before = CpuMicros();
  const auto begin = Clock::now();
  std::this_thread::sleep_for(std::chrono::seconds(2));  // tidy: sleep, because a rate is measured over time
  const auto count = static_cast<double>(calls - before);
  const double rate = count / (MicrosSince(begin) / 1e6);
  const double cpu_us = (CpuMicros() - cpu_before) / count;
  stop = true;
  for (std::thread& thread : threads) thread.join();
  std::printf("%3d clients, allocate and free in turn: %9.0f requests/s, %6.1f us of CPU each, both ends\n", clients,
              rate, cpu_us);
  std::printf("{\"bench\": \"rate\", \"clients\": %d, \"requests_per_s\": %.0f, \"cpu_us\": %.1f}\n", clients, rate,
              cpu_us);
}

// What 64 sessions that do nothing cost: the congestion loop.
void BenchIdle(const std::string& runtime_dir) {
  std::vector<std::unique_ptr<TestSession>> sessions;
  for (int i = 0; i < 64; ++i) sessions.push_back(std::make_unique<TestSession>(runtime_dir));
  const double cpu_before = CpuMicros();
  const auto begin = Clock::now();
  std::this_thread::sleep_for(std::chrono::seconds(2));  // tidy: sleep, because a rate is measured over time
  const double percent = 100 * (CpuMicros() - cpu_before) / MicrosSince(begin);
  std::printf("64 idle sessions: %.2f %% of one core\n", percent);
  std::printf("{\"bench\": \"idle\", \"sessions\": 64, \"core_percent\": %.2f}\n", percent);
}

void BenchReclaim(TestDaemon& daemon) {
  Latencies reclaim;
  for (int i = 0; i < 200; ++i) {
    TestSession session(daemon.options().runtime_dir);
    v1::AllocateTensorsResponse response;
    Check(session.Allocate("g", {TestSession::Spec("w", 8192, 1024, 0.5)}, &response));
    const auto begin = Clock::now();
    session.connection.Close();
    if (!WaitUntil([&] { return daemon.LedgerUsage() == TierArray{}; })) std::exit(1);
    reclaim.micros.push_back(MicrosSince(begin));
  }
  Report("connection ended to memory back", reclaim);
}

void BenchStart() {
  Latencies start;
  for (int i = 0; i < 20; ++i) {
    const auto begin = Clock::now();
    TestDaemon daemon;
    start.micros.push_back(MicrosSince(begin));
  }
  Report("daemon start", start);
}

}  // namespace
}  // namespace dak::daemon

int main() {
  dak::daemon::BenchStart();
  dak::daemon::TestDaemon daemon([](dak::daemon::DaemonOptions* options) {
    options->device.emulated.tier_bytes = {uint64_t{1} << 30, uint64_t{1} << 30, 0};
  });
  dak::daemon::BenchLatency(daemon.options().runtime_dir);
  dak::daemon::BenchReclaim(daemon);
  dak::daemon::BenchIdle(daemon.options().runtime_dir);
  for (const int clients : {1, 8, 64}) dak::daemon::BenchRate(daemon.options().runtime_dir, clients);
}

// What dakd's congestion loop costs beside the controller: reading every session's report page, writing its control
// page, metrics. The sessions' own part of the work isn't counted.
//
// BM_LoopRound is a round by itself, with caches warm or, as between two rounds of a busy machine, cold; BM_LoopThread
// what dakd's thread takes of a core while it runs by its clock, waking up included.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "allocator/device/emulated_device.h"
#include "daemon/congestion_loop.h"
#include "daemon/session/clock.h"
#include "dak/v1/control_page.h"
#include "tests/bench/cpu_clock.h"

namespace dak::daemon {
namespace {

constexpr congestion::LinkProfile kProfile;
constexpr congestion::Parameters kParameters;
constexpr uint64_t kRoundTripsPerTick = 100;
constexpr size_t kCacheBytes = size_t{64} << 20;
constexpr size_t kCacheLineBytes = 64;
constexpr auto kRunning = std::chrono::seconds(1);

[[noreturn]] void Die(const char* what) {
  std::cerr << "dak-bench-congestion: " << what << "\n";
  std::exit(1);
}

// Puts other data into the caches than what the loop works on.
void EvictCaches() {
  static std::vector<uint8_t> other(kCacheBytes);
  for (size_t i = 0; i < other.size(); i += kCacheLineBytes) ++other[i];
  benchmark::DoNotOptimize(other.data());
}

// `count` sessions, of which the first `readers` read; the others are idle.
class Sessions {
 public:
  Sessions(uint64_t count, uint64_t readers) : readers_(readers) {
    for (uint64_t id = 1; id <= count; ++id) {
      std::vector<HandleGrant> handles;
      auto pages = SessionPages::Create(device_, id, 1, &handles);
      if (!pages.ok()) Die("no pages");
      void* const report =
          mmap(nullptr, v1::kControlPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, handles[1].fd.get(), 0);
      if (report == MAP_FAILED) Die("a report page can't be mapped");
      reports_.push_back(&static_cast<v1::ReportPage*>(report)->links[0]);
      if (!loop_.Add(id, "session " + std::to_string(id), 100, *std::move(pages)).ok()) Die("a session was refused");
    }
    now_ns_ = MonotonicNs();
  }

  // An interval in which each reader has its share of a full link.
  void Read() {
    uint64_t all_bytes = 0;
    const LinkSnapshot link = loop_.Snapshot()[0];
    for (size_t i = 0; i < readers_; ++i) all_bytes += link.sessions[i].state.window_bytes;
    const double bytes = kProfile.bandwidth_bytes_per_s * static_cast<double>(kParameters.interval_ns) * 1e-9;
    const double round_trip_ns = std::max(static_cast<double>(kProfile.round_trip_ns),
                                          static_cast<double>(all_bytes) / kProfile.bandwidth_bytes_per_s * 1e9);
    for (size_t i = 0; i < readers_; ++i) {
      const uint64_t window_bytes = link.sessions[i].state.window_bytes;
      v1::LinkReport& report = *reports_[i];
      Add(report.bytes,
          static_cast<uint64_t>(bytes * static_cast<double>(window_bytes) / static_cast<double>(all_bytes)));
      Add(report.round_trips, kRoundTripsPerTick);
      Add(report.round_trip_ns, static_cast<uint64_t>(kRoundTripsPerTick * round_trip_ns));
      Store(report.inflight_bytes, window_bytes);
      Store(report.inflight_peak_bytes, std::max(report.inflight_peak_bytes, window_bytes));
    }
  }

  // Returns the seconds that the loop took for a round.
  double Round() {
    now_ns_ += kParameters.interval_ns;
    const double begin = bench::ThreadSeconds();
    loop_.TickOnce(now_ns_);
    return bench::ThreadSeconds() - begin;
  }

  CongestionLoop& loop() { return loop_; }

  void Check() const {
    const LinkSnapshot link = loop_.Snapshot()[0];
    for (size_t i = 0; i < link.sessions.size(); ++i) {
      const congestion::SessionState& state = link.sessions[i].state;
      if (state.violating || (i < readers_ && !state.active)) Die("an honest session was misjudged");
    }
  }

 private:
  static void Store(uint64_t& word, uint64_t value) { __atomic_store_n(&word, value, __ATOMIC_RELAXED); }
  static void Add(uint64_t& word, uint64_t value) { Store(word, word + value); }

  const size_t readers_;
  EmulatedDevice device_{EmulatedDeviceOptions{}};
  monitoring::Metrics metrics_{[] { return monitoring::Snapshot(); }};
  EventLog events_{64, {}};
  CongestionLoop loop_{{NodeLink{.profile = kProfile, .is_modelled = false}}, kParameters, &events_, &metrics_};
  std::vector<v1::LinkReport*> reports_;  // mapped until the program ends
  uint64_t now_ns_ = 0;
};

void BM_LoopRound(benchmark::State& state) {
  Sessions sessions(static_cast<uint64_t>(state.range(0)), static_cast<uint64_t>(state.range(1)));
  double seconds = 0;
  for (auto _ : state) {
    sessions.Read();
    if (state.range(2) != 0) EvictCaches();
    const double took = sessions.Round();
    state.SetIterationTime(took);
    seconds += took;
  }
  sessions.Check();
  state.counters["core_share"] =
      seconds * 1e9 / static_cast<double>(state.iterations()) / static_cast<double>(kParameters.interval_ns);
}

// What the kernel says of the loop's thread: nanoseconds on a core; 0 before it runs.
double LoopThreadNs() {
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::ifstream(thread.path() / "comm") >> name;
    double ns = 0;
    if (name == "dak-congestion" && std::ifstream(thread.path() / "schedstat") >> ns) return ns;
  }
  return 0;
}

void BM_LoopThread(benchmark::State& state) {
  Sessions sessions(static_cast<uint64_t>(state.range(0)), static_cast<uint64_t>(state.range(1)));
  sessions.loop().Start();
  while (LoopThreadNs() == 0) std::this_thread::yield();
  double core_share = 0;
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    const double begin_ns = LoopThreadNs();
    while (std::chrono::steady_clock::now() < begin + kRunning) {
      sessions.Read();
      std::this_thread::sleep_for(std::chrono::nanoseconds(kParameters.interval_ns));  // tidy: sleep, because it paces
    }
    core_share = (LoopThreadNs() - begin_ns) * 1e-9 /
                 std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    state.SetIterationTime(core_share * static_cast<double>(kParameters.interval_ns) * 1e-9);
  }
  sessions.loop().Stop();
  state.counters["core_share"] = core_share;
}

constexpr int kWarm = 0;
constexpr int kCold = 1;
BENCHMARK(BM_LoopRound)
    ->ArgNames({"sessions", "readers", "cold"})
    ->Args({1, 1, kWarm})
    ->Args({8, 8, kWarm})
    ->Args({64, 64, kWarm})
    ->Args({68, 4, kWarm})
    ->Args({68, 0, kWarm})
    ->UseManualTime()
    ->MinTime(0.1);
BENCHMARK(BM_LoopRound)
    ->ArgNames({"sessions", "readers", "cold"})
    ->Args({1, 1, kCold})
    ->Args({64, 64, kCold})
    ->Args({68, 4, kCold})
    ->Args({68, 0, kCold})
    ->UseManualTime()
    ->Iterations(100);
BENCHMARK(BM_LoopThread)
    ->ArgNames({"sessions", "readers"})
    ->Args({1, 1})
    ->Args({68, 4})
    ->Args({68, 0})
    ->UseManualTime()
    ->Iterations(2);

}  // namespace
}  // namespace dak::daemon

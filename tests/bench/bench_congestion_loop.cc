// What dakd's congestion loop costs beside the controller: reading every session's report page, writing its control
// page, metrics. The sessions' own part of the work isn't counted.
//
// BM_LoopRound is a round by itself, with caches warm or, as between two rounds of a busy machine, cold; BM_LoopThread
// what dakd's thread takes of a core while it runs by its clock, waking up included: while nothing changes, or with
// rates that change all the time, so that no round is left out; on cores that sleep, or are busy with other data.
// BM_WakeUp is what a thread that does nothing else than to sleep for an interval takes of a core each time.
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
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
constexpr double kRoundTripsPerNs = 2e-5;
constexpr size_t kCacheBytes = size_t{64} << 20;
constexpr size_t kCacheLineBytes = 64;
constexpr auto kReporting = std::chrono::microseconds(500);
constexpr auto kRunning = std::chrono::seconds(1);
constexpr auto kSettling = std::chrono::milliseconds(1500);  // until rounds are as rare as they get

[[noreturn]] void Die(const char* what) {
  std::cerr << "dak-bench-congestion: " << what << "\n";
  std::exit(1);
}

// Puts other data into the caches than what the loop works on.
void EvictCaches() {
  thread_local std::vector<uint8_t> other(kCacheBytes);
  for (size_t i = 0; i < other.size(); i += kCacheLineBytes) ++other[i];
  benchmark::DoNotOptimize(other.data());
}

// Work for every core that gives way to any other.
class OtherWork {
 public:
  OtherWork() {
    for (unsigned i = 0; i < std::thread::hardware_concurrency(); ++i) {
      threads_.emplace_back([this] {
        if (setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 19) != 0) Die("no lower priority");
        while (!stop_) EvictCaches();
      });
    }
  }
  ~OtherWork() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> threads_;
};

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

  // Time in which each reader has its share of a link that gives `link_share` of its rate.
  void Read(uint64_t elapsed_ns, double link_share = 1) {
    uint64_t all_bytes = 0;
    const LinkSnapshot link = loop_.Snapshot()[0];
    for (size_t i = 0; i < readers_; ++i) all_bytes += link.sessions[i].state.window_bytes;
    const double bandwidth_bytes_per_s = link_share * kProfile.bandwidth_bytes_per_s;
    const double bytes = bandwidth_bytes_per_s * static_cast<double>(elapsed_ns) * 1e-9;
    const auto round_trips = static_cast<uint64_t>(kRoundTripsPerNs * static_cast<double>(elapsed_ns));
    const double round_trip_ns = std::max(static_cast<double>(kProfile.round_trip_ns),
                                          static_cast<double>(all_bytes) / bandwidth_bytes_per_s * 1e9);
    for (size_t i = 0; i < readers_; ++i) {
      const uint64_t window_bytes = link.sessions[i].state.window_bytes;
      v1::LinkReport& report = *reports_[i];
      Add(report.bytes,
          static_cast<uint64_t>(bytes * static_cast<double>(window_bytes) / static_cast<double>(all_bytes)));
      Add(report.round_trips, round_trips);
      Add(report.round_trip_ns, static_cast<uint64_t>(static_cast<double>(round_trips) * round_trip_ns));
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
    sessions.Read(kParameters.interval_ns);
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
  const bool changes = state.range(2) != 0;
  std::optional<OtherWork> other_work;
  if (state.range(3) != 0) other_work.emplace();
  sessions.loop().Start();
  while (LoopThreadNs() == 0) std::this_thread::yield();
  const auto read_for = [&](std::chrono::nanoseconds time) {
    const auto begin = std::chrono::steady_clock::now();
    for (auto last = begin, now = begin; last < begin + time; last = now) {
      std::this_thread::sleep_for(kReporting);  // tidy: sleep, because it paces
      now = std::chrono::steady_clock::now();
      const bool is_slow = changes && (now - begin) / std::chrono::nanoseconds(kParameters.interval_ns) % 2 != 0;
      sessions.Read(static_cast<uint64_t>(std::chrono::nanoseconds(now - last).count()), is_slow ? 0.3 : 1);
    }
  };
  read_for(kSettling);
  double core_shares = 0;
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    const double begin_ns = LoopThreadNs();
    read_for(kRunning);
    const double core_share = (LoopThreadNs() - begin_ns) * 1e-9 /
                              std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    state.SetIterationTime(core_share * static_cast<double>(kParameters.interval_ns) * 1e-9);
    core_shares += core_share;
  }
  sessions.loop().Stop();
  state.counters["core_share"] = core_shares / static_cast<double>(state.iterations());
}

void BM_WakeUp(benchmark::State& state) {
  std::optional<OtherWork> other_work;
  if (state.range(0) != 0) other_work.emplace();
  for (auto _ : state) {
    const double begin = bench::ThreadSeconds();
    std::this_thread::sleep_for(std::chrono::nanoseconds(kParameters.interval_ns));  // tidy: sleep, because it is timed
    state.SetIterationTime(bench::ThreadSeconds() - begin);
  }
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
    ->ArgNames({"sessions", "readers", "changes", "busy"})
    ->ArgsProduct({{1}, {1}, {0, 1}, {0, 1}})
    ->ArgsProduct({{8}, {8}, {0, 1}, {0, 1}})
    ->ArgsProduct({{64}, {64}, {0, 1}, {0, 1}})
    ->ArgsProduct({{68}, {4}, {0, 1}, {0, 1}})
    ->ArgsProduct({{68}, {0}, {0}, {0, 1}})
    ->UseManualTime()
    ->Iterations(2);
BENCHMARK(BM_WakeUp)->ArgName("busy")->Arg(0)->Arg(1)->UseManualTime()->Iterations(400);

}  // namespace
}  // namespace dak::daemon

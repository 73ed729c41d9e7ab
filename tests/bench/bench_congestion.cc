// What the congestion controller costs: one Tick, and one join with one leave, with 1 to 64 sessions.
//
//   dak-bench-congestion [--benchmark_format=json]
//
// `core_share` is the part of one core that a Tick every 5 ms takes. After the timing the windows are checked: whole
// tiles that add up to no more than half the cliff or a tile a session, alike for equal weights.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "daemon/congestion/controller.h"
#include "tests/bench/cpu_clock.h"

namespace dak::congestion {
namespace {

constexpr Parameters kParameters;
constexpr int kBatch = 100;  // ticks between two looks at the clock

void Require(bool condition, const std::string& what) {
  if (condition) return;
  std::cerr << "dak-bench-congestion: " << what << "\n";
  std::exit(1);
}

// Sessions that fill their windows, reported as a full link would serve them.
class Load {
 public:
  Load(uint64_t sessions, bool mixed_weights) : mixed_(mixed_weights) {
    for (uint64_t id = 1; id <= sessions; ++id) {
      const uint32_t weight = mixed_ ? static_cast<uint32_t>(50 + id * 37 % 400) : 100;
      Require(controller_.AddSession(id, weight, now_ns_).ok(), "a session was refused");
      reports_.push_back({.session_id = id});
    }
  }
  // The reports of the next intervals, as they will be if the windows stay what they are.
  void Prepare() {
    double windows = 0;
    for (const SessionReport& report : reports_)
      windows += static_cast<double>(controller_.WindowOf(report.session_id));
    const double round_trip_ns = std::max(1'800.0, windows / 51.1);
    batch_.clear();
    for (int i = 0; i < kBatch; ++i) {
      for (SessionReport& report : reports_) {
        const auto window = static_cast<double>(controller_.WindowOf(report.session_id));
        const double bytes = window / round_trip_ns * static_cast<double>(kParameters.interval_ns);
        report.bytes += static_cast<uint64_t>(bytes);
        report.round_trips += 100;
        report.round_trip_ns += static_cast<uint64_t>(100 * round_trip_ns);
        report.inflight_bytes = static_cast<uint64_t>(window);
        report.inflight_peak_bytes = std::max(report.inflight_peak_bytes, report.inflight_bytes);
      }
      batch_.push_back(reports_);
    }
  }
  // Runs them; returns the seconds that the controller took.
  double Ticks() {
    const double start = bench::ThreadSeconds();
    for (const std::vector<SessionReport>& reports : batch_) {
      now_ns_ += kParameters.interval_ns;
      controller_.Tick(now_ns_, reports);
    }
    return bench::ThreadSeconds() - start;
  }
  void JoinAndLeave() {
    Require(controller_.AddSession(1'000, 100, now_ns_).ok(), "a session was refused");
    Require(controller_.RemoveSession(1'000, now_ns_).ok(), "a session was lost");
  }
  void Check() const {
    uint64_t sum = 0, least = ~uint64_t{0}, most = 0;
    for (const SessionState& state : controller_.Sessions()) {
      Require(!state.violating && state.active, "an honest session was misjudged");
      Require(state.window_bytes % kParameters.min_window_bytes == 0, "a window isn't whole tiles");
      sum += state.window_bytes;
      least = std::min(least, state.window_bytes);
      most = std::max(most, state.window_bytes);
    }
    Require(sum <= std::max<uint64_t>(500'000, reports_.size() * kParameters.min_window_bytes), "windows sum too high");
    Require(mixed_ || most - least <= kParameters.min_window_bytes, "equal weights have unequal windows");
  }

 private:
  bool mixed_;
  Controller controller_{LinkProfile{}, kParameters};
  std::vector<SessionReport> reports_;
  std::vector<std::vector<SessionReport>> batch_;
  uint64_t now_ns_ = 1'000'000'000;
};

void BM_Tick(benchmark::State& state) {
  Load load(static_cast<uint64_t>(state.range(0)), state.range(1) != 0);
  double seconds = 0;
  int64_t ticks = 0;
  for (auto _ : state) {
    load.Prepare();
    const double took = load.Ticks();
    state.SetIterationTime(took);
    seconds += took;
    ticks += kBatch;
  }
  load.Check();
  state.SetItemsProcessed(ticks);
  state.counters["ns_per_tick"] = seconds * 1e9 / static_cast<double>(ticks);
  state.counters["core_share"] =
      seconds * 1e9 / static_cast<double>(ticks) / static_cast<double>(kParameters.interval_ns);
}

void BM_JoinAndLeave(benchmark::State& state) {
  Load load(static_cast<uint64_t>(state.range(0)), /*mixed_weights=*/false);
  load.Prepare();
  load.Ticks();
  for (auto _ : state) load.JoinAndLeave();
  load.Check();
}

BENCHMARK(BM_Tick)->ArgNames({"sessions", "mixed_weights"})->ArgsProduct({{1, 8, 64}, {0, 1}})->UseManualTime();
BENCHMARK(BM_JoinAndLeave)->ArgName("sessions")->Arg(1)->Arg(8)->Arg(63);

}  // namespace
}  // namespace dak::congestion

BENCHMARK_MAIN();

// What dakd's congestion loop costs beside the controller: reading every session's report page, writing its control
// page, metrics. One round of the loop, with sessions that all read; the sessions' own part of the work isn't counted.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cstdlib>
#include <iostream>
#include <memory>
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

[[noreturn]] void Die(const char* what) {
  std::cerr << "dak-bench-congestion: " << what << "\n";
  std::exit(1);
}

class Sessions {
 public:
  explicit Sessions(uint64_t count) {
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

  // An interval in which each has its share of a full link; returns the seconds that the loop took for it.
  double Round() {
    uint64_t all_bytes = 0;
    const LinkSnapshot link = loop_.Snapshot()[0];
    for (const SessionLinkState& session : link.sessions) all_bytes += session.state.window_bytes;
    const double bytes = kProfile.bandwidth_bytes_per_s * static_cast<double>(kParameters.interval_ns) * 1e-9;
    const double round_trip_ns = std::max(static_cast<double>(kProfile.round_trip_ns),
                                          static_cast<double>(all_bytes) / kProfile.bandwidth_bytes_per_s * 1e9);
    for (size_t i = 0; i < reports_.size(); ++i) {
      const uint64_t window_bytes = link.sessions[i].state.window_bytes;
      v1::LinkReport& report = *reports_[i];
      report.bytes += static_cast<uint64_t>(bytes * static_cast<double>(window_bytes) / static_cast<double>(all_bytes));
      report.round_trips += kRoundTripsPerTick;
      report.round_trip_ns += static_cast<uint64_t>(kRoundTripsPerTick * round_trip_ns);
      report.inflight_bytes = window_bytes;
      report.inflight_peak_bytes = std::max(report.inflight_peak_bytes, window_bytes);
    }
    now_ns_ += kParameters.interval_ns;
    const double begin = bench::ThreadSeconds();
    loop_.TickOnce(now_ns_);
    return bench::ThreadSeconds() - begin;
  }

  void Check() const {
    const LinkSnapshot link = loop_.Snapshot()[0];
    for (const SessionLinkState& session : link.sessions) {
      if (session.state.violating || !session.state.active) Die("an honest session was misjudged");
    }
  }

 private:
  EmulatedDevice device_{EmulatedDeviceOptions{}};
  monitoring::Metrics metrics_{[] { return monitoring::Snapshot(); }};
  EventLog events_{64, {}};
  CongestionLoop loop_{{NodeLink{.profile = kProfile}}, kParameters, &events_, &metrics_};
  std::vector<v1::LinkReport*> reports_;  // mapped until the program ends
  uint64_t now_ns_ = 0;
};

void BM_LoopRound(benchmark::State& state) {
  Sessions sessions(static_cast<uint64_t>(state.range(0)));
  double seconds = 0;
  for (auto _ : state) {
    const double took = sessions.Round();
    state.SetIterationTime(took);
    seconds += took;
  }
  sessions.Check();
  state.counters["core_share"] =
      seconds * 1e9 / static_cast<double>(state.iterations()) / static_cast<double>(kParameters.interval_ns);
}

BENCHMARK(BM_LoopRound)->ArgName("sessions")->Arg(1)->Arg(8)->Arg(64)->UseManualTime()->MinTime(0.1);

}  // namespace
}  // namespace dak::daemon

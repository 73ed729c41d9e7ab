#include "tests/bench/neighbours/experiments.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "tests/bench/dak_bench/table.h"
#include "tests/bench/neighbours/load.h"
#include "tests/bench/neighbours/script.h"

namespace dak::bench {
namespace {

// The bars of the project's plan for hardware under MPS.
constexpr double kLeastOfLink = 0.95;
constexpr double kLeastJain = 0.98;
constexpr double kMostShareError = 0.08;
constexpr double kMostSteadyMs = 100;
constexpr double kLeastOfHbm = 0.95;
constexpr double kMostCorePercent = 1;
constexpr int64_t kSettleNs = 100'000'000;
constexpr double kHbmHolds = 1.5;  // a batch of the stream is 3 ms, a bar's margin a few per cent
constexpr double kCrowdHolds = 2;  // a state's time, since 40 rounds of a loop are few
// SMs under MPS, per cent: a streamer's CTAs and its next launch's; what two streamers leave to a stream of HBM; and
// what a flood leaves to it, or what a GEMM has that isn't bound by HBM alone. All have to fit: a CTA that finds no SM
// free waits for a streamer's launch to end, and the stream for that CTA.
constexpr int kRemotePercent = 7;
constexpr int kHbmPercent = 85;
constexpr int kFewerPercent = 70;
constexpr uint32_t kFloodCtas = 32;
constexpr uint64_t kFloodWindowBytes = 184'000;
constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

double HoldOf(const Stage& stage, const NeighboursOptions& options) {
  return options.hold_s > 0 ? options.hold_s : stage.device_kind() == "cuda" ? 0.3 : 0.8;
}

std::string Title(const Stage& stage, const std::string& what) {
  std::string target;
  if (stage.target_bdp() > 0) {
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), ", target %g products", stage.target_bdp());
    target = text.data();
  }
  return what + target + ", " + stage.device_name() + (stage.under_mps() ? ", under MPS" : ", without MPS");
}

Part Remote(const std::string& name, uint32_t weight = 100) {
  return {.role = "remote", .name = name, .weight = weight, .ctas = 0, .window_bytes = 0, .sm_percent = kRemotePercent};
}

// Where states change before they have settled, the second half of one is taken.
int64_t SettledAt(const State& state) {
  return state.begin_ns + std::min(kSettleNs, (state.end_ns - state.begin_ns) / 2);
}

std::vector<Sharer> SharersOf(const Script& script, const State& state) {
  std::vector<Sharer> sharers;
  for (const size_t i : state.working) {
    const Player& player = *script.players()[i];
    if (player.part.role == "remote") sharers.push_back({&player.series, static_cast<double>(player.part.weight)});
  }
  return sharers;
}

// The rate of the states with one session: the most that this run can be measured against.
double CeilingOf(const Script& script) {
  double ceiling = 0;
  for (const State& state : script.states()) {
    if (state.working.size() != 1) continue;
    ceiling = std::max(ceiling, SharesOf(SharersOf(script, state), SettledAt(state), state.end_ns).bytes_per_s);
  }
  return ceiling;
}

void TabulateShares(const Stage& stage, const Script& script, bool by_weight, const std::string& title,
                    Report& report) {
  Table table(title);
  const double ceiling = CeilingOf(script);
  for (const State& state : script.states()) {
    const std::vector<Sharer> sharers = SharersOf(script, state);
    const int64_t settled_ns = SettledAt(state);
    const Shares shares = SharesOf(sharers, settled_ns, state.end_ns);
    SteadyBar bar;
    (by_weight ? bar.most_error : bar.least_jain) = by_weight ? kMostShareError : kLeastJain;
    const auto steady_ns = SteadyAfter(sharers, state.begin_ns, state.end_ns, bar);
    const double steady_ms = steady_ns.has_value() ? static_cast<double>(*steady_ns) * 1e-6 : kNotMeasured;
    const Observed observed = script.Average(state, settled_ns - state.begin_ns);
    const bool fair = by_weight ? shares.worst_error <= kMostShareError : shares.jain >= kLeastJain;
    const bool met = shares.bytes_per_s >= kLeastOfLink * ceiling && fair && steady_ms <= kMostSteadyMs;
    table.Add(Table::Row()
                  .Text("state", state.name)
                  .Number("sessions", static_cast<double>(sharers.size()))
                  .Number("link_gbps", shares.bytes_per_s * 1e-9)
                  .Number("of_single", shares.bytes_per_s / ceiling)
                  .Number("jain", shares.jain)
                  .Number("share_error", shares.worst_error)
                  .Number("steady_ms", steady_ms)
                  .Number("target_kib", observed.target_bytes / 1024)
                  .Number("round_trip_us", observed.round_trip_ns * 1e-3)
                  .Number("violations", observed.violations)
                  .Text("bars", !stage.under_mps() ? "-"
                                : met              ? "met"
                                                   : "MISSED"));
  }
  report.tables.push_back(table.ToJson());
  report.courses.push_back(script.ToJson());
}

// What the neighbour of a state is compared with: the state in which as many CTAs were idle; empty: none.
struct HbmState {
  std::string state;
  std::string beside;
};

// The rate of the stream of HBM in all states of a name.
double HbmRate(const Script& script, const std::string& name) {
  double rate = 0;
  int count = 0;
  for (const State& state : script.states()) {
    if (state.name != name) continue;
    rate += script.players()[state.working.front()]->series.RateBySteps(SettledAt(state), state.end_ns);
    ++count;
  }
  return count == 0 ? kNotMeasured : rate / count;
}

// A stream of HBM is the first player of every state.
void TabulateHbm(const Stage& stage, const Script& script, const std::vector<HbmState>& compared,
                 const std::string& title, bool has_bar, Report& report) {
  Table table(title);
  for (const State& state : script.states()) {
    const int64_t settled_ns = SettledAt(state);
    const double rate = script.players()[state.working.front()]->series.RateBySteps(settled_ns, state.end_ns);
    double link = 0, window = 0;
    for (const size_t i : state.working) {
      const Player& player = *script.players()[i];
      if (player.part.role == "hbm" || player.part.role == "stream" || player.part.role == "idle") continue;
      link += player.series.Rate(settled_ns, state.end_ns);
      window += player.series.MeanWindow(settled_ns, state.end_ns);
    }
    std::string beside;
    for (const HbmState& c : compared) beside = c.state == state.name ? c.beside : beside;
    const double of_idle = beside.empty() ? kNotMeasured : rate / HbmRate(script, beside);
    const Observed observed = script.Average(state, settled_ns - state.begin_ns);
    const bool judged =
        has_bar && !std::isnan(of_idle) && stage.under_mps() && state.name.find("remote") != std::string::npos;
    table.Add(Table::Row()
                  .Text("neighbours", state.name)
                  .Number("hbm_gbps", rate * 1e-9)
                  .Number("of_idle", of_idle)
                  .Number("link_gbps", link * 1e-9)
                  .Number("window_kib", window / 1024)
                  .Number("round_trip_us", observed.round_trip_ns * 1e-3)
                  .Text("bar", !judged                  ? "-"
                               : of_idle >= kLeastOfHbm ? "met"
                                                        : "MISSED"));
  }
  report.tables.push_back(table.ToJson());
  report.courses.push_back(script.ToJson());
}

// Whose reads of HBM are watched: on cuda copies of what they read ("stream"), or GEMMs of a session ("hbm").
Part Hbm(const Stage& stage, const NeighboursOptions& options, const std::string& role, const std::string& name,
         int otherwise) {
  const int sm_percent = options.hbm_percent > 0 ? options.hbm_percent : otherwise;
  const std::string there = stage.device_kind() == "cuda" ? role : "hbm";
  return {.role = there,
          .name = name + std::to_string(sm_percent),
          .weight = 100,
          .ctas = 0,
          .window_bytes = 0,
          .sm_percent = sm_percent};
}

Part Ctas(const std::string& role, const std::string& name, uint32_t ctas, uint64_t window_bytes = 0) {
  return {.role = role, .name = name, .weight = 100, .ctas = ctas, .window_bytes = window_bytes, .sm_percent = 0};
}

}  // namespace

void RunSharing(Stage& stage, const NeighboursOptions& options, Report& report) {
  const double hold_s = HoldOf(stage, options);
  Script script(stage, Title(stage, "sharing"), {Remote("a"), Remote("b"), Remote("c"), Remote("d")});
  for (size_t i = 0; i < 4; ++i) {
    script.Start(i, script.players()[i]->part.name + " joins");
    script.Hold(hold_s);
  }
  for (size_t i = 3; i > 0; --i) {
    script.Stop(i, script.players()[i]->part.name + " leaves");
    script.Hold(hold_s);
  }
  script.Finish();
  TabulateShares(stage, script, /*by_weight=*/false, Title(stage, "sharing: equal weights"), report);
}

void RunWeights(Stage& stage, const NeighboursOptions& options, Report& report) {
  const double hold_s = HoldOf(stage, options);
  Script script(stage, Title(stage, "weights"), {Remote("w3", 300), Remote("w2", 200), Remote("w1", 100)});
  for (size_t i = 0; i < 3; ++i) {
    script.Start(i, script.players()[i]->part.name + " joins");
    script.Hold(hold_s);
  }
  script.Stop(0, "w3 leaves");
  script.Hold(hold_s);
  script.Finish();
  TabulateShares(stage, script, /*by_weight=*/true, Title(stage, "weights: 1:2:3"), report);
}

void RunHbm(Stage& stage, const NeighboursOptions& options, Report& report) {
  const double hold_s = kHbmHolds * HoldOf(stage, options);
  const bool cuda = stage.device_kind() == "cuda";
  const std::string few = std::to_string(options.idle_ctas) + " idle";
  const std::string twice = std::to_string(2 * options.idle_ctas) + " idle";
  enum : size_t { kStream, kGemm, kIdle, kRemote, kIdleTwice, kOther, kFewer, kIdle32, kPolite, kFlood };
  std::vector<Part> parts = {Hbm(stage, options, "stream", "stream", kHbmPercent),
                             Hbm(stage, options, "hbm", "gemm", kFewerPercent),
                             Ctas("idle", "idle", options.idle_ctas),
                             Remote("a"),
                             Ctas("idle", "idle2", 2 * options.idle_ctas),
                             Remote("b")};
  if (cuda) {
    parts.insert(parts.end(),
                 {Hbm(stage, options, "stream", "fewer", kFewerPercent), Ctas("idle", "idle32", kFloodCtas),
                  Ctas("flood", "polite", kFloodCtas, kFloodWindowBytes), Ctas("flood", "flood", kFloodCtas)});
  }
  Script script(stage, Title(stage, "hbm"), parts);
  const auto hold = [&] { script.Hold(hold_s); };
  std::vector<HbmState> compared = {{"32 in a window", "32 idle"}, {"32 without", "32 idle"}};
  // By turns, so that what drifts drifts for both.
  const auto by_turns = [&](size_t reader, const std::string& who) {
    script.Start(reader, who + "none"), hold();
    script.Start(kIdle, who + few), hold();
    script.Switch(kIdle, kRemote, who + "remote"), hold();
    script.Switch(kRemote, kIdle, who + few), hold();
    script.Switch(kIdle, kRemote, who + "remote"), hold();
    script.Switch(kRemote, kIdleTwice, who + twice), hold();
    script.Switch(kIdleTwice, kRemote, who + "remote"), hold();
    script.Start(kOther, who + "remote x2"), hold();
    script.Stop(kOther, who + "remote"), hold();
    script.Switch(kRemote, kIdleTwice, who + twice), hold();
    script.Switch(kIdleTwice, kRemote, who + "remote"), hold();
    script.Start(kOther, who + "remote x2"), hold();
    script.Rest();
    compared.insert(compared.end(), {{who + "remote", who + few}, {who + "remote x2", who + twice}});
  };
  by_turns(kStream, "");
  if (cuda) {
    by_turns(kGemm, "GEMM: ");
    script.Start(kFewer, "fewer SMs"), hold();
    script.Start(kIdle32, "32 idle"), hold();
    script.Switch(kIdle32, kPolite, "32 in a window"), hold();
    script.Switch(kPolite, kFlood, "32 without"), hold();
  }
  script.Finish();
  TabulateHbm(stage, script, compared, Title(stage, "hbm: a stream of HBM beside neighbours, controller on"),
              /*has_bar=*/true, report);
}

void RunCrowd(Stage& stage, const NeighboursOptions& options, Report& report) {
  const double hold_s = kCrowdHolds * HoldOf(stage, options);
  const Part crowd = {.role = "crowd", .name = "crowd", .weight = 100, .ctas = 0, .window_bytes = 0, .sm_percent = 0};
  std::vector<Part> parts = {crowd, Remote("a"), Remote("b"), Remote("c"), Remote("d")};
  Script script(stage, Title(stage, "crowd"), parts);
  script.Start(0, "nobody reads"), script.Hold(hold_s, /*ask=*/false);
  for (size_t i = 1; i < parts.size(); ++i) {
    script.Start(i, std::to_string(i) + (i == 1 ? " reads" : " read"));
    script.Hold(hold_s, /*ask=*/false);
  }
  script.Finish();
  Table table(Title(stage, "crowd: dakd's congestion loop"));
  for (const State& state : script.states()) {
    const int64_t settled_ns = SettledAt(state);
    const double core_percent = script.Average(state, settled_ns - state.begin_ns).loop_core_percent;
    table.Add(Table::Row()
                  .Text("state", state.name)
                  .Number("sessions", static_cast<double>(kCrowd + parts.size() - 1))
                  .Number("link_gbps", SharesOf(SharersOf(script, state), settled_ns, state.end_ns).bytes_per_s * 1e-9)
                  .Number("core_percent", core_percent > 0 ? core_percent : kNotMeasured)
                  .Text("bar", core_percent <= 0                 ? "-"
                               : core_percent < kMostCorePercent ? "met"
                                                                 : "MISSED"));
  }
  report.tables.push_back(table.ToJson());
}

void RunOff(Stage& stage, const NeighboursOptions& options, Report& report) {
  const double hold_s = HoldOf(stage, options);
  stage.StartDaemon(/*controlled=*/false);
  const std::string idle = std::to_string(4 * options.idle_ctas) + " idle";
  Script script(stage, Title(stage, "off"),
                {Hbm(stage, options, "stream", "stream", kFewerPercent), Ctas("idle", "idle", 4 * options.idle_ctas),
                 Remote("a"), Remote("b"), Remote("c"), Remote("d")});
  script.Start(0, "none"), script.Hold(hold_s);
  script.Start(1, idle), script.Hold(hold_s);
  script.Switch(1, 2, "1 remote"), script.Hold(hold_s);
  script.Start(3, "2 remote"), script.Hold(hold_s);
  script.Start(4, "3 remote"), script.Hold(hold_s);
  script.Start(5, "4 remote"), script.Hold(hold_s);
  script.Finish();
  stage.StopDaemon();
  TabulateHbm(stage, script, {{"1 remote", idle}, {"2 remote", idle}, {"3 remote", idle}, {"4 remote", idle}},
              Title(stage, "off: the same beside streamers whose windows bind nothing"), /*has_bar=*/false, report);
}

}  // namespace dak::bench

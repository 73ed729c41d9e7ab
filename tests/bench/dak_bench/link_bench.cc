// `dak-bench link`: the kernel's remote reads by window. `dak-bench mix`: the same beside a stream of HBM, and what
// happens when nobody holds the window.
#include <algorithm>
#include <vector>

#include "tests/bench/dak_bench/operation.h"
#include "tests/bench/dak_bench/table.h"
#include "tests/bench/dak_bench/timing.h"

namespace dak::bench {
namespace {

constexpr uint64_t kK = 8192;
constexpr uint64_t kBatch = 8;
constexpr uint64_t kLinkBytes = uint64_t{192} << 20;

// What the kernel reported over a run.
struct Reported {
  double round_trip_us = 0;
  uint64_t peak_bytes = 0;
};

Reported Difference(const v1::LinkReport& before, const v1::LinkReport& after) {
  const double trips = static_cast<double>(after.round_trips - before.round_trips);
  return {static_cast<double>(after.round_trip_ns - before.round_trip_ns) / std::max(1.0, trips) * 1e-3,
          after.inflight_peak_bytes};
}

}  // namespace

void RunLink(Context& context, const Options& options) {
  Table table("link: the kernel with every row remote, " + context.device_name, &context.report);
  for (const uint64_t k : options.tune ? std::vector<uint64_t>{64, 512, 4096} : std::vector<uint64_t>{kK}) {
    const uint64_t rows = std::min(kLinkBytes, context.host_bytes) / (k * kElementBytes);
    Operation operation{.batch = kBatch,
                        .n = rows,
                        .k = k,
                        .local_rows = 0,
                        .f16 = context.f16,
                        .x = context.x,
                        .w_local = nullptr,
                        .w_remote = context.host,
                        .y = context.y};
    for (const uint64_t window_kib : {8, 16, 32, 64, 96, 128, 160, 192, 256, 512, 1024}) {
      if (options.tune && window_kib != 128 && window_kib != 256) continue;
      for (const uint32_t remote_ctas :
           options.tune ? std::vector<uint32_t>{2, 4, 6, 8, 16} : std::vector<uint32_t>{0}) {
        DakGemm dak;  // fresh counters, so that the peak is this window's
        dak.SetWindow(window_kib * 1024);
        kernels::GemmPlan plan = dak.Plan(operation);
        if (remote_ctas > 0) plan.remote_ctas = remote_ctas;
        if (window_kib > 512) plan.remote_ctas = 16;
        CheckSplitNumbers(context, dak, operation, plan);
        const v1::LinkReport before = dak.report();
        const double seconds = TimeGraph(
            context.stream, [&] { dak.Launch(operation, context.stream, plan); }, window_kib < 64 ? 3 : 5, 1);
        const Reported reported = Difference(before, dak.report());
        const double rate = operation.remote_bytes() / seconds;
        table.Add(Table::Row()
                      .Number("k", k)
                      .Number("ctas", plan.remote_ctas)
                      .Number("window_kib", window_kib)
                      .Number("link_gbps", rate * 1e-9)
                      .Number("of_sm_link", rate / context.ceilings.link_bytes_per_s)
                      .Number("of_copy_engine", rate / context.ceilings.copy_engine_bytes_per_s)
                      .Number("round_trip_us", reported.round_trip_us)
                      .Number("peak_kib", reported.peak_bytes / 1024.0));
      }
    }
  }
}

void RunMix(Context& context, const Options& options) {
  Table table("mix: local and remote rows at once, both sides equally long, " + context.device_name, &context.report);
  const Ceilings& ceilings = context.ceilings;
  const uint64_t rows = std::min<uint64_t>(131'072, context.hbm_bytes / (kK * kElementBytes));
  const double balance = ceilings.link_bytes_per_s / (ceilings.link_bytes_per_s + ceilings.hbm_bytes_per_s);
  const auto remote_rows = static_cast<uint64_t>(balance * static_cast<double>(rows));
  Operation operation{.batch = kBatch,
                      .n = rows,
                      .k = kK,
                      .local_rows = rows - remote_rows,
                      .f16 = context.f16,
                      .x = context.x,
                      .w_local = context.hbm,
                      .w_remote = context.host,
                      .y = context.y};
  Operation alone = operation;
  alone.n = alone.local_rows;
  const double alone_s = TimeGraph(
      context.stream, [&] { context.dak.Launch(alone, context.stream); }, 7);
  const auto measure = [&](const char* name, uint64_t window, uint32_t remote_ctas, uint32_t local_inflight) {
    DakGemm dak;
    dak.SetWindow(window);
    kernels::GemmPlan plan = dak.Plan(operation);
    if (remote_ctas > 0) {
      plan.local_ctas = plan.local_ctas + plan.remote_ctas - remote_ctas;
      plan.remote_ctas = remote_ctas;
      plan.whole_tiles = false;
    }
    if (local_inflight > 0) plan.local_inflight_boxes = local_inflight;
    CheckSplitNumbers(context, dak, operation, plan);
    context.RefreshLink();
    const v1::LinkReport before = dak.report();
    const double seconds = TimeGraph(
        context.stream, [&] { dak.Launch(operation, context.stream, plan); }, 7);
    const Reported reported = Difference(before, dak.report());
    table.Add(Table::Row()
                  .Text("window", name)
                  .Number("remote_ctas", plan.remote_ctas)
                  .Number("local_kib", plan.local_inflight_boxes * kernels::kBoxBytes / 1024)
                  .Number("ms", seconds * 1e3)
                  .Number("hbm_gbps", operation.local_bytes() / seconds * 1e-9)
                  .Number("of_hbm_alone", alone_s / seconds)
                  .Number("link_gbps", operation.remote_bytes() / seconds * 1e-9)
                  .Number("of_sm_link", operation.remote_bytes() / seconds / ceilings.link_bytes_per_s)
                  .Number("round_trip_us", reported.round_trip_us)
                  .Number("peak_kib", reported.peak_bytes / 1024.0));
  };
  for (const uint32_t local_inflight : options.tune ? std::vector<uint32_t>{4, 5, 6, 8} : std::vector<uint32_t>{0}) {
    for (const uint32_t remote_ctas : options.tune ? std::vector<uint32_t>{3, 4, 5} : std::vector<uint32_t>{0}) {
      measure("128KiB", 128 * 1024, remote_ctas, local_inflight);
      measure("184kB", 184'000, remote_ctas, local_inflight);
      measure("256KiB", 256 * 1024, remote_ctas, local_inflight);
    }
  }
  if (options.tune) return;
  measure("512KiB", 512 * 1024, 0, 0);
  measure("1MiB", 1 << 20, 16, 0);
  measure("2MiB", 2 << 20, 32, 0);
  measure("4MiB", 4 << 20, 32, 0);
  measure("none", kUnlimitedWindow, 8, 0);
  measure("none", kUnlimitedWindow, 16, 0);
  measure("none", kUnlimitedWindow, 32, 0);
}

}  // namespace dak::bench

// How long planning takes. Every case first checks that the plan keeps its limits and isn't worse than uniform ratios,
// then times. Bars: 10,000 operations of one pass under 2 ms; 64 sessions of 1,000 operations under 50 ms.
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "daemon/planner/planner.h"

namespace dak::planner {
namespace {

enum Kind : int64_t {
  kModelLike,  // a few distinct shapes, all read once: few distinct slopes
  kAllDiffer,  // sizes, intensities and read densities all differ: as many slopes as segments
};

Pass MakePass(size_t operations, Kind kind, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto real = [&random](double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random);
  };
  Pass pass;
  uint64_t stored = 0;
  for (size_t i = 0; i < operations; ++i) {
    Operation operation;
    operation.bytes = kind == kModelLike ? (uint64_t{8} << 20) * (1 + i % 4) : static_cast<uint64_t>(real(1e6, 1e8));
    if (kind == kAllDiffer)
      operation.stored_bytes = static_cast<uint64_t>(real(1, 8) * static_cast<double>(operation.bytes));
    const double intensity = kind == kModelLike ? 1 + 600.0 * static_cast<double>(i % 2) : std::exp2(real(0, 12));
    operation.flops = intensity * static_cast<double>(operation.bytes);
    stored += operation.stored_bytes == 0 ? operation.bytes : operation.stored_bytes;
    pass.operations.push_back(std::move(operation));
  }
  pass.hbm_budget_bytes = stored * 7 / 10;
  return pass;
}

std::vector<Pass> MakePasses(size_t sessions, size_t operations, Kind kind) {
  std::vector<Pass> passes;
  for (size_t s = 0; s < sessions; ++s) {
    passes.push_back(MakePass(operations, kind, s + 1));
    passes.back().session_id = s + 1;
    passes.back().weight = static_cast<double>(1 + s % 7);
  }
  return passes;
}

uint64_t StoredBytes(const std::vector<Pass>& passes) {
  uint64_t bytes = 0;
  for (const Pass& pass : passes) {
    for (const Operation& operation : pass.operations) {
      bytes += operation.stored_bytes == 0 ? operation.bytes : operation.stored_bytes;
    }
  }
  return bytes;
}

// Empty if all is well.
std::string Fault(const std::vector<Pass>& passes, const absl::StatusOr<std::vector<PassPlan>>& plans,
                  uint64_t hbm_capacity_bytes) {
  if (!plans.ok()) return plans.status().ToString();
  double predicted_s = 0;
  double uniform_s = 0;
  uint64_t remote_bytes = 0;
  for (size_t p = 0; p < passes.size(); ++p) {
    predicted_s += passes[p].weight * (*plans)[p].predicted_s;
    uniform_s += passes[p].weight * (*plans)[p].uniform_s;
    remote_bytes += (*plans)[p].remote_bytes;
  }
  if (predicted_s > uniform_s * (1 + 1e-11)) return "the plan is slower than uniform ratios";
  const uint64_t stored = StoredBytes(passes);
  if (stored > hbm_capacity_bytes && remote_bytes + passes.size() < stored - hbm_capacity_bytes) {
    return "too much stays in HBM";
  }
  return "";
}

void Run(benchmark::State& state, const Profile& profile, const std::vector<Pass>& passes,
         uint64_t hbm_capacity_bytes) {
  const std::string fault = Fault(passes, PlanAll(profile, passes, hbm_capacity_bytes), hbm_capacity_bytes);
  if (!fault.empty()) {
    state.SkipWithError(fault.c_str());
    return;
  }
  for (auto _ : state) benchmark::DoNotOptimize(PlanAll(profile, passes, hbm_capacity_bytes));
  size_t operations = 0;
  for (const Pass& pass : passes) operations += pass.operations.size();
  state.counters["operations"] = static_cast<double>(operations);
  state.SetComplexityN(static_cast<benchmark::IterationCount>(operations));
}

void BM_OnePass(benchmark::State& state) {
  const std::vector<Pass> passes =
      MakePasses(1, static_cast<size_t>(state.range(0)), static_cast<Kind>(state.range(1)));
  Run(state, *NamedProfile("h100-pcie"), passes, kUnlimitedBytes);
}
BENCHMARK(BM_OnePass)
    ->ArgNames({"operations", "all_differ"})
    ->ArgsProduct({{100, 1000, 10'000, 100'000}, {kModelLike, kAllDiffer}})
    ->Unit(benchmark::kMillisecond);

void BM_OnePassGrowth(benchmark::State& state) {
  Run(state, *NamedProfile("h100-pcie"), MakePasses(1, static_cast<size_t>(state.range(0)), kAllDiffer),
      kUnlimitedBytes);
}
BENCHMARK(BM_OnePassGrowth)
    ->RangeMultiplier(4)
    ->Range(1 << 8, 1 << 18)
    ->Complexity(benchmark::oNLogN)
    ->Complexity()
    ->Unit(benchmark::kMillisecond);

// HBM that all share, so that the sessions' segments compete.
void BM_Sessions(benchmark::State& state) {
  const std::vector<Pass> passes =
      MakePasses(static_cast<size_t>(state.range(0)), 1000, static_cast<Kind>(state.range(1)));
  Run(state, *NamedProfile("h100-pcie"), passes, StoredBytes(passes) * 6 / 10);
}
BENCHMARK(BM_Sessions)
    ->ArgNames({"sessions", "all_differ"})
    ->ArgsProduct({{1, 8, 64}, {kModelLike, kAllDiffer}})
    ->Unit(benchmark::kMillisecond);

// Tiers that are full: each needs a search for its price.
void BM_FullTiers(benchmark::State& state) {
  const std::vector<Pass> passes = MakePasses(1, static_cast<size_t>(state.range(1)), kAllDiffer);
  const uint64_t remote = StoredBytes(passes) * 4 / 10;
  Profile profile = *NamedProfile("h100-pcie");
  profile.remote_tiers = {{.name = "host", .capacity_bytes = remote / 2}};
  for (int64_t k = 1; k <= state.range(0); ++k) {
    RemoteTier tier{.name = "cxl" + std::to_string(k), .bytes_per_s = 20e9 / static_cast<double>(k)};
    if (k < state.range(0)) tier.capacity_bytes = remote / 5;
    profile.remote_tiers.push_back(tier);
  }
  Run(state, profile, passes, kUnlimitedBytes);
}
BENCHMARK(BM_FullTiers)
    ->ArgNames({"full", "operations"})
    ->ArgsProduct({{1, 2, 3}, {1000, 10'000}})
    ->Unit(benchmark::kMillisecond);

// Whole tiles of 64 rows of 4096 bytes for each session's plan, as dakd does after it has planned.
void BM_Rounding(benchmark::State& state) {
  const auto sessions = static_cast<size_t>(state.range(0));
  const std::vector<Pass> passes = MakePasses(sessions, static_cast<size_t>(state.range(1)), kModelLike);
  const Profile profile = NamedProfile("h100-pcie").value();
  const std::vector<PassPlan> plans = PlanAll(profile, passes).value();
  std::vector<RowSplit> splits;
  for (const Operation& operation : passes.front().operations) {
    splits.push_back({.rows = operation.bytes / 4096, .tile_rows = 64, .row_bytes = 4096});
  }
  for (auto _ : state) {
    for (size_t s = 0; s < sessions; ++s) {
      const auto rows = RoundToFastestTiles(profile, passes[s], plans[s], splits, passes[s].hbm_budget_bytes);
      if (!rows.ok()) {
        state.SkipWithError(rows.status().ToString().c_str());
        return;
      }
      benchmark::DoNotOptimize(rows->data());
    }
  }
}
BENCHMARK(BM_Rounding)
    ->ArgNames({"sessions", "operations"})
    ->Args({1, 1'000})
    ->Args({64, 1'000})
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace dak::planner

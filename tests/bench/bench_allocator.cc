// Nanoseconds per operation of the extent allocator with 10^3 to 10^6 live extents.
//
//   dak-bench-allocator [--benchmark_format=json] [--benchmark_filter=...]
//
// Every pool is aged first (its live extents are replaced four times over), so that the free space is as broken up as
// after a long run. The pool's invariants and its books are checked before and after the timing; a failure ends the
// bench with status 1. Which extents to free and which lengths to ask for is drawn off the clock, which is the thread's
// own: time on a core.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "allocator/extent_allocator.h"
#include "allocator/ledger.h"
#include "tests/bench/cpu_clock.h"

namespace dak {
namespace {

void Require(bool condition, const std::string& what) {
  if (condition) return;
  std::cerr << "dak-bench-allocator: " << what << "\n";
  std::exit(1);
}

// Operations between two looks at the clock, and no more than a tenth of all extents.
constexpr size_t kBatch = 1'000;
size_t BatchOf(size_t live) { return std::min(kBatch, std::max<size_t>(live / 10, 1)); }

enum Sizes : int64_t {
  kSpread = 0,  // 1 to 512 units, every order of magnitude as likely
  kFew = 1,     // the eight lengths that a model's layers have: freed space mostly fits again
};

// A few nanoseconds a number, where std::mt19937_64 and a division would be a third of what is measured (splitmix64).
class Random {
 public:
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t Below(uint64_t bound) { return static_cast<uint64_t>((static_cast<__uint128_t>(Next()) * bound) >> 64); }

 private:
  uint64_t state_ = 20261124;
};

class AgedPool {
 public:
  AgedPool(size_t live, Sizes sizes) : sizes_(sizes) {
    double mean = 0;
    for (int i = 0; i < 4096; ++i) mean += static_cast<double>(NextLength()) / 4096;
    // Half as much again as what lives in it, so that the longest lengths nearly always find room.
    const auto capacity = static_cast<uint64_t>(mean * static_cast<double>(live) * 1.5) + 1024;
    Require(allocator_.AddRange({0, capacity}).ok(), "the range was refused");
    while (live_.size() < live) live_.push_back(Allocate(NextLength()));
    const size_t batch = BatchOf(live);
    for (size_t i = 0; i < live * 4; i += batch) Replace(batch, /*in_turns=*/true);
    Check();
  }

  uint64_t NextLength() {
    if (sizes_ == kFew) {
      constexpr uint64_t kLengths[8] = {1, 4, 8, 16, 56, 64, 112, 250};
      return kLengths[random_.Below(8)];
    }
    const uint64_t top = uint64_t{1} << random_.Below(10);
    return top + random_.Below(top);
  }

  // Replaces `count` live extents, drawn beforehand: first frees, then allocates (or in turns), and returns the
  // seconds that the allocator took for each side. What the bench does for itself is off the clock.
  struct Seconds {
    double freeing = 0;
    double allocating = 0;
  };
  Seconds Replace(size_t count, bool in_turns) {
    // Victims are distinct: they are swapped to the end of live_.
    for (size_t i = 0; i < count; ++i) std::swap(live_[random_.Below(live_.size() - i)], live_[live_.size() - 1 - i]);
    victims_.assign(live_.end() - static_cast<ptrdiff_t>(count), live_.end());
    lengths_.clear();
    for (size_t i = 0; i < count; ++i) lengths_.push_back(NextLength());
    live_.resize(live_.size() - count);
    const double start = bench::ThreadSeconds();
    if (in_turns) {
      for (size_t i = 0; i < count; ++i) {
        Free(victims_[i]);
        victims_[i] = Allocate(lengths_[i]);
      }
    } else {
      for (uint32_t offset : victims_) Free(offset);
    }
    const double middle = bench::ThreadSeconds();
    if (!in_turns) {
      for (size_t i = 0; i < count; ++i) victims_[i] = Allocate(lengths_[i]);
    }
    const double end = bench::ThreadSeconds();
    live_.insert(live_.end(), victims_.begin(), victims_.end());
    return {.freeing = middle - start, .allocating = end - middle};
  }

  void Check() const {
    const absl::Status status = allocator_.CheckInvariants();
    Require(status.ok(), status.ToString());
    Require(allocator_.stats().live_extents == live_.size(), "live extents were lost");
  }
  ExtentAllocator& allocator() { return allocator_; }
  size_t live() const { return live_.size(); }

 private:
  void Free(uint64_t offset) {
    const absl::Status status = allocator_.Free(offset);
    if (!status.ok()) Require(false, status.ToString());
  }
  uint32_t Allocate(uint64_t length) {
    absl::StatusOr<Extent> extent = allocator_.Allocate(length);
    if (!extent.ok()) Require(false, extent.status().ToString());
    return static_cast<uint32_t>(extent->offset);
  }

  Sizes sizes_;
  ExtentAllocator allocator_;
  std::vector<uint32_t> live_;  // offsets; half as wide, to take less of the cache from what is measured
  std::vector<uint32_t> victims_;
  std::vector<uint64_t> lengths_;
  Random random_;
};

// One pool per shape, aged once: Google Benchmark calls a bench several times to find its number of iterations.
AgedPool& PoolFor(int64_t live, int64_t sizes) {
  static std::map<std::pair<int64_t, int64_t>, std::unique_ptr<AgedPool>> pools;
  std::unique_ptr<AgedPool>& pool = pools[{live, sizes}];
  if (pool == nullptr) pool = std::make_unique<AgedPool>(static_cast<size_t>(live), static_cast<Sizes>(sizes));
  return *pool;
}

void Report(benchmark::State& state, AgedPool& pool, uint64_t operations) {
  pool.Check();
  const ExtentAllocator::Stats stats = pool.allocator().stats();
  state.SetItemsProcessed(static_cast<int64_t>(operations));
  state.counters["free_extents"] = static_cast<double>(stats.free_extents);
  state.counters["fragmentation"] = stats.fragmentation();
}

enum class Side { kBoth, kFree, kAllocate };

template <Side kSide>
void BM_Operations(benchmark::State& state) {
  AgedPool& pool = PoolFor(state.range(0), state.range(1));
  // In turns; or a batch of frees, then as many allocations.
  const size_t batch = BatchOf(static_cast<size_t>(state.range(0)));
  double seconds = 0;
  uint64_t operations = 0;
  for (auto _ : state) {
    const AgedPool::Seconds took = pool.Replace(batch, kSide == Side::kBoth);
    const double timed = kSide == Side::kAllocate ? took.allocating : took.freeing;
    state.SetIterationTime(timed);
    seconds += timed;
    operations += kSide == Side::kBoth ? 2 * batch : batch;
  }
  state.counters["ns_per_op"] = seconds * 1e9 / static_cast<double>(operations);
  Report(state, pool, operations);
}
void BM_FreeAllocate(benchmark::State& state) { BM_Operations<Side::kBoth>(state); }
void BM_Free(benchmark::State& state) { BM_Operations<Side::kFree>(state); }
void BM_Allocate(benchmark::State& state) { BM_Operations<Side::kAllocate>(state); }

void BM_Stats(benchmark::State& state) {
  AgedPool& pool = PoolFor(state.range(0), state.range(1));
  for (auto _ : state) benchmark::DoNotOptimize(pool.allocator().stats());
  Report(state, pool, static_cast<uint64_t>(state.iterations()));
}

void BM_LedgerReserveCommitRelease(benchmark::State& state) {
  Ledger ledger({uint64_t{80} << 30, uint64_t{512} << 30, 0});
  const auto sessions = static_cast<uint64_t>(state.range(0));
  for (uint64_t id = 1; id <= sessions; ++id) {
    Require(ledger.OpenSession(id, {kNoLimit, kNoLimit, kNoLimit}).ok(), "the session was refused");
  }
  uint64_t id = 1;
  for (auto _ : state) {
    absl::StatusOr<Reservation> reservation = ledger.Reserve(id, Tier::kHost, kGranuleBytes);
    Require(reservation.ok(), "the reservation was refused");
    reservation->Commit();
    Require(ledger.Release(id, Tier::kHost, kGranuleBytes).ok(), "the release was refused");
    id = id == sessions ? 1 : id + 1;
  }
  Require(ledger.CheckInvariants().ok() && ledger.Pools()[1].session_bytes == 0, "the ledger's books are wrong");
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"live", "few_sizes"});
  for (int64_t sizes : {kSpread, kFew}) {
    for (int64_t live : {1'000, 10'000, 100'000, 1'000'000}) bench->Args({live, sizes});
  }
}

BENCHMARK(BM_FreeAllocate)->Apply(Shapes)->UseManualTime();
BENCHMARK(BM_Free)->Apply(Shapes)->UseManualTime();
BENCHMARK(BM_Allocate)->Apply(Shapes)->UseManualTime();
BENCHMARK(BM_Stats)->ArgNames({"live", "few_sizes"})->Args({1'000, kSpread})->Args({1'000'000, kSpread});
BENCHMARK(BM_LedgerReserveCommitRelease)->ArgName("sessions")->Arg(1)->Arg(64);

}  // namespace
}  // namespace dak

BENCHMARK_MAIN();

// What the processes of `dak-bench neighbours` have read, over time, and how they shared.
//
// Times are nanoseconds of the monotonic clock, which all processes of a machine share; bytes only grow.
// Thread safety: values and pure functions. Errors: none; a rate over no time is 0.
#ifndef DAK_TESTS_BENCH_NEIGHBOURS_SERIES_H_
#define DAK_TESTS_BENCH_NEIGHBOURS_SERIES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace dak::bench {

struct Sample {
  int64_t time_ns = 0;
  uint64_t bytes = 0;  // so far
  uint64_t window_bytes = 0;
};

// Samples in order of time. Between two of them bytes grow evenly; before the first and after the last they don't.
class Series {
 public:
  Series() = default;
  explicit Series(std::vector<Sample> samples) : samples_(std::move(samples)) {}

  void Add(const Sample& sample) { samples_.push_back(sample); }
  double BytesAt(int64_t time_ns) const;
  // Bytes a second between the two times.
  double Rate(int64_t begin_ns, int64_t end_ns) const;
  // The same of bytes that are counted a batch at a time: from the first step in between to the last.
  double RateBySteps(int64_t begin_ns, int64_t end_ns) const;
  // Of the samples in between; 0 if there is none.
  double MeanWindow(int64_t begin_ns, int64_t end_ns) const;
  const std::vector<Sample>& samples() const { return samples_; }

 private:
  std::vector<Sample> samples_;
};

struct Sharer {
  const Series* series = nullptr;
  double weight = 1;
};

struct Shares {
  double bytes_per_s = 0;  // all together
  double jain = 0;         // of rate by weight: 1 is fair, 1/n is one alone
  double worst_error = 0;  // largest |share / fair share - 1|
};

double Jain(std::span<const double> values);
Shares SharesOf(std::span<const Sharer> sharers, int64_t begin_ns, int64_t end_ns);

// When shares are steady: over any `window_ns`.
struct SteadyBar {
  int64_t window_ns = 25'000'000;
  int64_t step_ns = 5'000'000;
  double least_jain = 0;
  double most_error = 1;
};

// How long after `begin_ns` every window up to `end_ns` meets the bar; nothing if the last one doesn't, or none fits.
std::optional<int64_t> SteadyAfter(std::span<const Sharer> sharers, int64_t begin_ns, int64_t end_ns,
                                   const SteadyBar& bar);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_NEIGHBOURS_SERIES_H_

#include "tests/bench/neighbours/series.h"

#include <algorithm>
#include <cmath>

namespace dak::bench {

double Series::BytesAt(int64_t time_ns) const {
  if (samples_.empty()) return 0;
  const auto after = std::lower_bound(samples_.begin(), samples_.end(), time_ns,
                                      [](const Sample& sample, int64_t time) { return sample.time_ns < time; });
  if (after == samples_.begin()) return static_cast<double>(samples_.front().bytes);
  if (after == samples_.end()) return static_cast<double>(samples_.back().bytes);
  const Sample& before = *(after - 1);
  const double part =
      static_cast<double>(time_ns - before.time_ns) / static_cast<double>(after->time_ns - before.time_ns);
  return static_cast<double>(before.bytes) + part * static_cast<double>(after->bytes - before.bytes);
}

double Series::Rate(int64_t begin_ns, int64_t end_ns) const {
  if (end_ns <= begin_ns) return 0;
  return (BytesAt(end_ns) - BytesAt(begin_ns)) / static_cast<double>(end_ns - begin_ns) * 1e9;
}

double Series::RateBySteps(int64_t begin_ns, int64_t end_ns) const {
  const Sample* first = nullptr;
  const Sample* last = nullptr;
  for (size_t i = 1; i < samples_.size(); ++i) {
    const Sample& sample = samples_[i];
    if (sample.bytes == samples_[i - 1].bytes || sample.time_ns < begin_ns || sample.time_ns > end_ns) continue;
    first = first == nullptr ? &sample : first;
    last = &sample;
  }
  if (first == last) return Rate(begin_ns, end_ns);
  return static_cast<double>(last->bytes - first->bytes) / static_cast<double>(last->time_ns - first->time_ns) * 1e9;
}

double Series::MeanWindow(int64_t begin_ns, int64_t end_ns) const {
  double sum = 0;
  int count = 0;
  for (const Sample& sample : samples_) {
    if (sample.time_ns < begin_ns || sample.time_ns > end_ns) continue;
    sum += static_cast<double>(sample.window_bytes);
    ++count;
  }
  return count == 0 ? 0 : sum / count;
}

double Jain(std::span<const double> values) {
  double sum = 0, squares = 0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
  }
  return squares == 0 ? 0 : sum * sum / (static_cast<double>(values.size()) * squares);
}

Shares SharesOf(std::span<const Sharer> sharers, int64_t begin_ns, int64_t end_ns) {
  Shares shares;
  double weight = 0;
  std::vector<double> rates, by_weight;
  for (const Sharer& sharer : sharers) {
    rates.push_back(sharer.series->Rate(begin_ns, end_ns));
    by_weight.push_back(rates.back() / sharer.weight);
    shares.bytes_per_s += rates.back();
    weight += sharer.weight;
  }
  shares.jain = Jain(by_weight);
  for (size_t i = 0; i < sharers.size(); ++i) {
    const double fair = shares.bytes_per_s * sharers[i].weight / weight;
    shares.worst_error = std::max(shares.worst_error, fair == 0 ? 1.0 : std::abs(rates[i] / fair - 1));
  }
  return shares;
}

std::optional<int64_t> SteadyAfter(std::span<const Sharer> sharers, int64_t begin_ns, int64_t end_ns,
                                   const SteadyBar& bar) {
  std::optional<int64_t> steady;
  for (int64_t at = begin_ns; at + bar.window_ns <= end_ns; at += bar.step_ns) {
    const Shares shares = SharesOf(sharers, at, at + bar.window_ns);
    if (shares.jain < bar.least_jain || shares.worst_error > bar.most_error) {
      steady.reset();
    } else if (!steady.has_value()) {
      steady = at - begin_ns;
    }
  }
  return steady;
}

}  // namespace dak::bench

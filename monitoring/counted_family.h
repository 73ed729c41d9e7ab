// A family of counters or histograms whose label values come from outside, held to a bound.
//
// Every distinct set of label values is a time series that Prometheus keeps. Values such as an RPC's method come from
// peers, so a family admits `max_series` sets and counts the rest under "other" in every label.
//
// Thread safety: Get may be called from any thread. What it returns is thread-safe and lives as long as the registry.
#ifndef DAK_MONITORING_COUNTED_FAMILY_H_
#define DAK_MONITORING_COUNTED_FAMILY_H_

#include <cstddef>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "monitoring/families.h"
#include "monitoring/labels.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace dak::monitoring {

template <typename Metric>
class CountedFamily {
 public:
  // `make_args` are passed to each Metric made: bucket bounds, for a histogram.
  template <typename... Args>
  CountedFamily(prometheus::Registry& registry, const FamilySpec& spec, std::vector<std::string> labels,
                size_t max_series, Args... make_args)
      : labels_(std::move(labels)), max_series_(max_series), family_(Register(registry, spec)) {
    make_ = [this, make_args...](const prometheus::Labels& values) -> Metric* {
      return &family_.Add(values, make_args...);
    };
  }

  // The series of these label values, in the order of the constructor's labels.
  Metric& Get(const std::vector<std::string>& values) {
    {
      absl::ReaderMutexLock lock(&mutex_);
      if (auto it = series_.find(values); it != series_.end()) return *it->second;
    }
    absl::MutexLock lock(&mutex_);
    if (auto it = series_.find(values); it != series_.end()) return *it->second;
    if (series_.size() < max_series_) return *series_.emplace(values, make_(Named(values))).first->second;
    if (other_ == nullptr) other_ = make_(Named(std::vector<std::string>(labels_.size(), "other")));
    return *other_;
  }

 private:
  static prometheus::Family<Metric>& Register(prometheus::Registry& registry, const FamilySpec& spec) {
    if constexpr (std::is_same_v<Metric, prometheus::Counter>) {
      return prometheus::BuildCounter().Name(spec.name).Help(spec.help).Register(registry);
    } else {
      return prometheus::BuildHistogram().Name(spec.name).Help(spec.help).Register(registry);
    }
  }
  prometheus::Labels Named(const std::vector<std::string>& values) const {
    prometheus::Labels named;
    for (size_t i = 0; i < labels_.size(); ++i) named.emplace(labels_[i], LabelValue(values[i]));
    return named;
  }

  const std::vector<std::string> labels_;
  const size_t max_series_;
  prometheus::Family<Metric>& family_;
  std::function<Metric*(const prometheus::Labels&)> make_;
  absl::Mutex mutex_;
  absl::flat_hash_map<std::vector<std::string>, Metric*> series_ ABSL_GUARDED_BY(mutex_);
  Metric* other_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace dak::monitoring

#endif  // DAK_MONITORING_COUNTED_FAMILY_H_

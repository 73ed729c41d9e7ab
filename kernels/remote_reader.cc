#include "kernels/remote_reader.h"

#include <algorithm>
#include <atomic>
#include <thread>

namespace dak::kernels {
namespace {

constexpr double kNsPerSecond = 1e9;
// Sleeping for less than this isn't worth a system call.
constexpr std::chrono::microseconds kLeastSleep(200);

uint64_t Load(const uint64_t& word) {
  return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(word)).load(std::memory_order_relaxed);
}

void Add(uint64_t& word, uint64_t value) {
  std::atomic_ref<uint64_t>(word).fetch_add(value, std::memory_order_relaxed);
}

void Store(uint64_t& word, uint64_t value) { std::atomic_ref<uint64_t>(word).store(value, std::memory_order_relaxed); }

void RaiseTo(uint64_t& word, uint64_t value) {
  std::atomic_ref<uint64_t> reference(word);
  uint64_t old = reference.load(std::memory_order_relaxed);
  while (old < value && !reference.compare_exchange_weak(old, value, std::memory_order_relaxed)) {
  }
}

}  // namespace

void RemoteReader::Read(uint64_t bytes) {
  const uint64_t window = link_.control == nullptr ? left_bytes_ : Load(link_.control->window_bytes);
  const uint64_t pieces = std::max<uint64_t>(1, window / piece_bytes_);
  const uint64_t own = std::min(left_bytes_, pieces * piece_bytes_);
  const uint64_t neighbours = link_.control == nullptr ? 0 : Load(link_.control->neighbour_inflight_bytes);
  response_ = RespondTo(model_, {.own_inflight_bytes = own, .total_inflight_bytes = own + neighbours});
  seconds_ += static_cast<double>(bytes) / response_.bytes_per_s;
  left_bytes_ -= bytes;
  stats_.remote_bytes += bytes;
  stats_.round_trips += 1;
  stats_.round_trip_ns += response_.round_trip_ns;
  stats_.inflight_peak_bytes = std::max(stats_.inflight_peak_bytes, own);
  if (link_.report == nullptr) return;
  Add(link_.report->bytes, bytes);
  Add(link_.report->round_trips, 1);
  Add(link_.report->round_trip_ns, static_cast<uint64_t>(response_.round_trip_ns));
  Store(link_.report->inflight_bytes, own);
  RaiseTo(link_.report->inflight_peak_bytes, own);
}

GemmReferenceStats RemoteReader::Finish(uint64_t local_bytes) {
  if (stats_.remote_bytes == 0) response_ = RespondTo(model_, {});
  const double local_seconds = static_cast<double>(local_bytes) / response_.local_bytes_per_s;
  stats_.modelled_seconds = std::max(seconds_, local_seconds);
  if (link_.report != nullptr) {
    Store(link_.report->inflight_bytes, 0);
    Add(link_.report->passes, 1);
  }
  return stats_;
}

void ModelClock::SleepTo(double seconds) const {
  const auto end = start_ + std::chrono::nanoseconds(static_cast<int64_t>(seconds * kNsPerSecond));
  if (real_time_ && end - std::chrono::steady_clock::now() > kLeastSleep) std::this_thread::sleep_until(end);
}

}  // namespace dak::kernels

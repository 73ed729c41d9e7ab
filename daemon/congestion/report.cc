#include "daemon/congestion/report.h"

#include <algorithm>

namespace dak::congestion {
namespace {

// A link may beat its profile a little, and reports aren't read at the very moment of the tick.
constexpr double kMostRate = 1.25;
// No read comes back in a quarter of the unloaded round trip.
constexpr double kLeastRoundTrip = 0.25;

bool WentBack(const SessionReport& before, const SessionReport& after) {
  return after.bytes < before.bytes || after.round_trip_ns < before.round_trip_ns ||
         after.round_trips < before.round_trips || after.inflight_peak_bytes < before.inflight_peak_bytes;
}

}  // namespace

Measured Compare(const LinkProfile& profile, const SessionReport& before, const SessionReport& after,
                 uint64_t elapsed_ns) {
  Measured measured;
  measured.inflight_bytes = after.inflight_bytes;
  if (after.inflight_peak_bytes > before.inflight_peak_bytes) {
    measured.inflight_bytes = std::max(measured.inflight_bytes, after.inflight_peak_bytes);
  }
  // Nothing can be told from differences of counters that only grow and didn't.
  if (WentBack(before, after)) {
    measured.suspect = true;
    return measured;
  }
  measured.still = after.bytes == before.bytes && after.round_trips == before.round_trips;
  const auto elapsed = static_cast<double>(elapsed_ns);
  const double most_bytes_per_s = profile.bandwidth_bytes_per_s * kMostRate;
  const auto bytes = static_cast<double>(after.bytes - before.bytes);
  // Beyond the rate, all that fits in flight may have been counted an instant before or after the tick.
  if (bytes > most_bytes_per_s * elapsed * 1e-9 + static_cast<double>(profile.cliff_bytes)) measured.suspect = true;
  measured.bytes_per_s = std::min(bytes / elapsed * 1e9, most_bytes_per_s);

  const uint64_t trips = after.round_trips - before.round_trips;
  if (trips == 0) return measured;
  const double mean_ns = static_cast<double>(after.round_trip_ns - before.round_trip_ns) / static_cast<double>(trips);
  if (mean_ns < kLeastRoundTrip * static_cast<double>(profile.round_trip_ns)) {
    measured.suspect = true;
  } else if (mean_ns <= elapsed) {
    measured.round_trip_ns = mean_ns;
  }
  return measured;
}

}  // namespace dak::congestion

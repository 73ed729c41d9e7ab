#include "allocator/device/link_model.h"

#include <algorithm>
#include <limits>

namespace dak {
namespace {

constexpr double kNsPerSecond = 1e9;

double LocalShare(const LinkModel& model, double inflight_bytes) {
  const double cliff = static_cast<double>(model.cliff_bytes);
  if (cliff == 0 || inflight_bytes <= cliff) return 1.0;
  const double share = cliff / inflight_bytes;
  return std::max(model.cliff_floor, share * share * share);
}

}  // namespace

LinkResponse RespondTo(const LinkModel& model, const LinkLoad& load) {
  const double own = static_cast<double>(load.own_inflight_bytes);
  const double total = std::max(own, static_cast<double>(load.total_inflight_bytes));
  const double bandwidth = static_cast<double>(model.bandwidth_bytes_per_s);
  const double unloaded_ns = static_cast<double>(model.round_trip_ns);

  LinkResponse response;
  response.local_bytes_per_s = static_cast<double>(model.local_bandwidth_bytes_per_s) * LocalShare(model, total);
  response.round_trip_ns = unloaded_ns;
  if (total == 0) return response;
  if (bandwidth == 0) {
    response.round_trip_ns = std::numeric_limits<double>::infinity();
    return response;
  }
  response.round_trip_ns = std::max(unloaded_ns, total / bandwidth * kNsPerSecond);
  // Every byte in flight comes back once a round trip, so rate and round trip are one law.
  response.bytes_per_s = own / response.round_trip_ns * kNsPerSecond;
  return response;
}

}  // namespace dak

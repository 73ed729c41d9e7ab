#include "daemon/planner/uniform.h"

#include <algorithm>
#include <cmath>

namespace dak::planner::internal {
namespace {

// Remote bytes of items [first, end) when each has the ratio, clipped to its bounds.
struct Remote {
  double bytes = 0;
  double bytes_per_ratio = 0;
};
Remote RemoteAt(const Problem& problem, size_t first, size_t end, double ratio) {
  Remote remote;
  for (size_t i = first; i < end; ++i) {
    const Item& item = problem.items[i];
    remote.bytes += item.stored_bytes * std::clamp(ratio, item.min_ratio, item.max_ratio);
    if (ratio >= item.min_ratio && ratio < item.max_ratio) remote.bytes_per_ratio += item.stored_bytes;
  }
  return remote;
}

// The smallest ratio in [0, 1] at which `remote_at` reaches `needed`: Newton's steps on a piecewise linear function,
// with halvings between that bound their number.
template <typename RemoteAtRatio>
double SmallestRatio(double needed, const RemoteAtRatio& remote_at) {
  if (remote_at(0).bytes >= needed) return 0;
  double low = 0;
  double high = 1;
  double ratio = 0.5;
  for (int i = 0; high - low > 1e-15; ++i) {
    const Remote remote = remote_at(ratio);
    const double missing = needed - remote.bytes;
    (missing > 0 ? low : high) = ratio;
    const double step = remote.bytes_per_ratio > 0 ? ratio + missing / remote.bytes_per_ratio : -1;
    if (step == ratio) return ratio;
    ratio = step > low && step < high && i % 3 != 2 ? step : low + (high - low) / 2;
    if (ratio == low || ratio == high) break;
  }
  return high;
}

// Tiers deliver in proportion to their rates until one is full; the others take its rest.
PerTier MixOf(const Problem& problem, double remote_bytes) {
  PerTier mix{};
  if (remote_bytes <= 0 || problem.sessions.empty()) {
    mix[0] = 1;
    return mix;
  }
  const SessionTerms& terms = problem.sessions.front();  // rates of all sessions are in one proportion
  double left = remote_bytes;
  std::vector<size_t> open;
  for (size_t k = 0; k < problem.tiers; ++k) open.push_back(k);
  const auto rate = [&terms](size_t k) { return std::min(terms.tier_bytes_per_s[k], terms.link_bytes_per_s); };
  while (!open.empty()) {
    double rates = 0;
    for (size_t k : open) rates += rate(k);
    const auto full = std::min_element(open.begin(), open.end(), [&](size_t a, size_t b) {
      return problem.capacity_bytes[a] / rate(a) < problem.capacity_bytes[b] / rate(b);
    });
    if (problem.capacity_bytes[*full] >= left * rate(*full) / rates) {
      for (size_t k : open) mix[k] = left * rate(k) / rates / remote_bytes;
      break;
    }
    mix[*full] = problem.capacity_bytes[*full] / remote_bytes;
    left -= problem.capacity_bytes[*full];
    open.erase(full);
  }
  return mix;
}

}  // namespace

UniformPlan PlanUniform(const Problem& problem) {
  UniformPlan plan;
  double remote_bytes = 0;
  for (const SessionTerms& session : problem.sessions) {
    const auto remote_at = [&](double ratio) { return RemoteAt(problem, session.first_item, session.end_item, ratio); };
    plan.ratio.push_back(SmallestRatio(session.needed_bytes, remote_at));
    remote_bytes += remote_at(plan.ratio.back()).bytes;
  }
  if (remote_bytes < problem.shared_needed_bytes) {
    const auto remote_at = [&](double ratio) {
      Remote sum;
      for (size_t s = 0; s < problem.sessions.size(); ++s) {
        const SessionTerms& session = problem.sessions[s];
        const Remote own = RemoteAt(problem, session.first_item, session.end_item, std::max(ratio, plan.ratio[s]));
        sum.bytes += own.bytes;
        if (ratio >= plan.ratio[s]) sum.bytes_per_ratio += own.bytes_per_ratio;
      }
      return sum;
    };
    const double common = SmallestRatio(problem.shared_needed_bytes, remote_at);
    for (double& ratio : plan.ratio) ratio = std::max(ratio, common);
    remote_bytes = remote_at(common).bytes;
  }
  plan.mix = MixOf(problem, remote_bytes);
  return plan;
}

}  // namespace dak::planner::internal

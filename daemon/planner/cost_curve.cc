#include "daemon/planner/cost_curve.h"

#include <algorithm>

namespace dak::planner::internal {
namespace {

// How many of the tiers the item uses: the next one would cost more than a longer wait for those before it.
size_t UsedTiers(const TierOrder& order, const Item& item) {
  size_t used = 1;
  // weight * read / stored is the item's cost of a second, per unit of the price's "per stored byte".
  const double second = order.weight * item.read_bytes;
  while (used < order.count && order.gain[used] * item.stored_bytes <= second) ++used;
  return used;
}

}  // namespace

TierOrder OrderTiers(const Problem& problem, const SessionTerms& session, const PerTier& prices) {
  std::array<size_t, kMaxRemoteTiers> by_price{};
  for (size_t k = 0; k < problem.tiers; ++k) by_price[k] = k;
  std::stable_sort(by_price.begin(), by_price.begin() + problem.tiers,
                   [&prices](size_t a, size_t b) { return prices[a] < prices[b]; });
  TierOrder order;
  order.weight = session.weight;
  double rate_before = 0;
  double price_rate_before = 0;
  for (size_t j = 0; j < problem.tiers && rate_before < session.link_bytes_per_s; ++j) {
    const size_t k = by_price[j];
    const size_t m = order.count++;
    order.tier[m] = k;
    order.price[m] = prices[k];
    const double left = session.link_bytes_per_s - rate_before;
    order.rate[m] = std::min(session.tier_bytes_per_s[k], left);
    // The link's own rate where it is what ends the list: a sum of differences would miss it by a rounding.
    order.rate_up_to[m] =
        session.tier_bytes_per_s[k] >= left ? session.link_bytes_per_s : rate_before + session.tier_bytes_per_s[k];
    order.gain[m] = prices[k] * rate_before - price_rate_before;
    order.price_rate[m] = price_rate_before + prices[k] * order.rate[m];
    rate_before = order.rate_up_to[m];
    price_rate_before = order.price_rate[m];
  }
  return order;
}

Segments SegmentsOf(const TierOrder& order, const Item& item) {
  Segments segments;
  double at = item.min_ratio;
  const auto extend_to = [&](double end, double slope) {
    end = std::min(end, item.max_ratio);
    if (end <= at) return;
    // Convex by proof; this keeps it so where a price makes two slopes equal but for a rounding.
    if (segments.count > 0) slope = std::max(slope, segments.segment[segments.count - 1].slope);
    segments.segment[segments.count++] = {slope, at, end};
    at = end;
  };
  if (item.stored_bytes <= 0) return segments;
  if (item.read_bytes <= 0) {
    extend_to(1, order.price[0]);
    return segments;
  }
  const double density = item.read_bytes / item.stored_bytes;
  const double weight = order.weight * density;
  const size_t used = UsedTiers(order, item);
  const double hbm_bound_until = 1 - item.compute_s * item.hbm_bytes_per_s / item.read_bytes;
  for (size_t m = 0; m < used; ++m) {
    // Where HBM and the tiers up to this one take equally long.
    const double crossing = order.rate_up_to[m] / (item.hbm_bytes_per_s + order.rate_up_to[m]);
    extend_to(std::min(crossing, hbm_bound_until), order.price[m] - (weight - order.gain[m]) / item.hbm_bytes_per_s);
  }
  for (size_t m = 0; m < used; ++m) {
    extend_to(order.rate_up_to[m] * item.compute_s / item.read_bytes, order.price[m]);
  }
  extend_to(1, (weight + order.price_rate[used - 1]) / order.rate_up_to[used - 1]);
  return segments;
}

Spread SpreadAt(const TierOrder& order, const Item& item, double ratio) {
  Spread spread;
  if (item.read_bytes <= 0) {
    spread.seconds = item.compute_s;
    spread.ratio[order.tier[0]] = ratio;
    return spread;
  }
  const size_t used = UsedTiers(order, item);
  spread.seconds = std::max({item.compute_s, item.read_bytes * (1 - ratio) / item.hbm_bytes_per_s,
                             item.read_bytes * ratio / order.rate_up_to[used - 1]});
  double left = ratio;
  for (size_t m = 0; m + 1 < used && left > 0; ++m) {
    const double taken = std::min(left, order.rate[m] * spread.seconds / item.read_bytes);
    spread.ratio[order.tier[m]] = taken;
    left -= taken;
  }
  spread.ratio[order.tier[used - 1]] += std::max(left, 0.0);
  return spread;
}

}  // namespace dak::planner::internal

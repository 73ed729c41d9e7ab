// One operation's cost as a function of its remote share, at given prices of the remote tiers' bytes. Internal.
//
// With a price p_k on each stored byte of tier k, an operation is best spread over the tiers in order of price, each up
// to what it delivers in the operation's time; a tier so dear that waiting for the cheaper ones costs less is not used
// at all. What is left is a convex, piecewise linear curve in the ratio x, of three kinds of segments in this order:
// bound by HBM (one for each tier used), by compute (one for each tier used), by the remote tiers (one).
// docs/planner.md derives the slopes.
//
// Pure values and functions, thread-safe.
#ifndef DAK_DAEMON_PLANNER_COST_CURVE_H_
#define DAK_DAEMON_PLANNER_COST_CURVE_H_

#include <array>
#include <cstddef>

#include "daemon/planner/problem.h"

namespace dak::planner::internal {

inline constexpr size_t kMaxSegments = 2 * kMaxRemoteTiers + 1;

// A session's remote tiers in order of price, then of the profile's preference. Tiers that add nothing to the rate,
// because those before them fill the link, are left out.
struct TierOrder {
  size_t count = 0;
  std::array<size_t, kMaxRemoteTiers> tier{};
  PerTier price{};
  PerTier rate{};        // what it adds
  PerTier rate_up_to{};  // with all before it
  PerTier gain{};        // what a second more saves, if this tier is the dearest in use: cheaper tiers take its bytes
  PerTier price_rate{};  // sum of price * rate, up to this tier
  double weight = 1;
};

TierOrder OrderTiers(const Problem& problem, const SessionTerms& session, const PerTier& prices);

// Cost per stored byte between two ratios.
struct Segment {
  double slope;
  double begin;
  double end;
};

// The segments between the item's bounds, in order of ratio, hence of slope; empty ones are left out. Equal items give
// bitwise equal slopes.
struct Segments {
  size_t count = 0;
  std::array<Segment, kMaxSegments> segment;  // past `count` unset: clearing them would double the planner's time
};
Segments SegmentsOf(const TierOrder& order, const Item& item);

// The time at a ratio (without the item's own_s), and the ratio's best spread over the tiers.
struct Spread {
  double seconds = 0;
  PerTier ratio{};
};
Spread SpreadAt(const TierOrder& order, const Item& item, double ratio);

}  // namespace dak::planner::internal

#endif  // DAK_DAEMON_PLANNER_COST_CURVE_H_

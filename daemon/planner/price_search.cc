#include "daemon/planner/price_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"

namespace dak::planner::internal {
namespace {

// Shares of what is compared: below the first two lie only the roundings of sums.
constexpr double kSameValue = 1e-14;
constexpr double kSameBytes = 1e-13;
constexpr int kMaxEvaluations = 400;
constexpr int kMaxGrowth = 100;

Mixture Mix(Mixture a, Mixture b, double weight_of_b) {
  Mixture mixed;
  const double weight_of_a = 1 - weight_of_b;
  const auto add = [&mixed](Mixture& from, double weight) {
    if (weight <= 0) return;
    mixed.weighted_s += weight * from.weighted_s;
    for (size_t k = 0; k < kMaxRemoteTiers; ++k) mixed.used_bytes[k] += weight * from.used_bytes[k];
    for (WeightedPlan& part : from.parts) {
      part.weight *= weight;
      mixed.parts.push_back(std::move(part));
    }
  };
  add(a, weight_of_a);
  add(b, weight_of_b);
  return mixed;
}

class Search {
 public:
  explicit Search(const Problem& problem) : problem_(problem) {
    for (size_t k = 0; k < problem.tiers; ++k) {
      if (std::isfinite(problem.capacity_bytes[k])) limited_.push_back(k);
    }
  }

  // Minimises under the capacities of limited_[level..], with those before priced.
  absl::StatusOr<Mixture> Minimise(size_t level, PerTier prices) const {
    if (level == limited_.size()) {
      GreedyPlan plan = SolveAtPrices(problem_, prices, !limited_.empty());
      Mixture single{.parts = {}, .weighted_s = plan.weighted_s, .used_bytes = plan.used_bytes};
      single.parts.push_back({.weight = 1, .plan = std::move(plan)});
      return single;
    }
    const size_t tier = limited_[level];
    prices[tier] = 0;
    DAK_ASSIGN_OR_RETURN(Mixture over, Minimise(level + 1, prices));
    if (ExcessBytes(over, tier) <= 0) return over;
    DAK_ASSIGN_OR_RETURN(Mixture within, Within(level, prices, over));
    for (int i = 0; i < kMaxEvaluations; ++i) {
      const double over_bytes = ExcessBytes(over, tier);
      const double within_bytes = ExcessBytes(within, tier);
      const double over_cost = Cost(level, prices, over);
      prices[tier] = std::max(0.0, (Cost(level, prices, within) - over_cost) / (over_bytes - within_bytes));
      const double met = over_cost + prices[tier] * over_bytes;
      DAK_ASSIGN_OR_RETURN(Mixture at, Minimise(level + 1, prices));
      const double excess = ExcessBytes(at, tier);
      const double value = Cost(level, prices, at) + prices[tier] * excess;
      const double scale = std::abs(over_cost) + prices[tier] * over_bytes;
      const bool moves = excess > 0 ? excess < over_bytes : excess > within_bytes;
      if (value >= met - kSameValue * scale || !moves) {
        return Mix(std::move(over), std::move(within), over_bytes / (over_bytes - within_bytes));
      }
      (excess > 0 ? over : within) = std::move(at);
    }
    return absl::InternalError(
        absl::StrCat("the price of remote tier ", tier, " wasn't found in ", kMaxEvaluations, " evaluations"));
  }

 private:
  // A plan that keeps to the tier's capacity; `over` becomes the dearest known one that doesn't.
  absl::StatusOr<Mixture> Within(size_t level, PerTier prices, Mixture& over) const {
    const size_t tier = limited_[level];
    prices[tier] = FirstPrice(prices);
    for (int i = 0; i < kMaxGrowth; ++i) {
      DAK_ASSIGN_OR_RETURN(Mixture plan, Minimise(level + 1, prices));
      if (ExcessBytes(plan, tier) <= 0) return plan;
      over = std::move(plan);
      prices[tier] *= 8;
    }
    return absl::InternalError(absl::StrCat("no price empties remote tier ", tier));
  }

  // Above what a byte costs in time anywhere, for operations that store what they read.
  double FirstPrice(const PerTier& prices) const {
    double price = *std::max_element(prices.begin(), prices.end());
    for (const SessionTerms& session : problem_.sessions) {
      double remote = session.link_bytes_per_s;
      for (size_t k = 0; k < problem_.tiers; ++k) remote = std::min(remote, session.tier_bytes_per_s[k]);
      const double slowest = std::min(session.least_hbm_bytes_per_s, session.least_link_share * remote);
      price = std::max(price, 2 * session.weight / slowest);
    }
    return price;
  }

  // The weighted time, and what the tiers searched further out cost.
  double Cost(size_t level, const PerTier& prices, const Mixture& plan) const {
    double cost = plan.weighted_s;
    for (size_t j = 0; j < level; ++j) cost += prices[limited_[j]] * plan.used_bytes[limited_[j]];
    return cost;
  }

  // 0 where the rest is a rounding: a tier may have to be exactly full.
  double ExcessBytes(const Mixture& plan, size_t tier) const {
    const double excess = plan.used_bytes[tier] - problem_.capacity_bytes[tier];
    return std::abs(excess) <= kSameBytes * problem_.total_bytes ? 0 : excess;
  }

  const Problem& problem_;
  std::vector<size_t> limited_;
};

}  // namespace

absl::StatusOr<Mixture> FillTiers(const Problem& problem) { return Search(problem).Minimise(0, PerTier{}); }

}  // namespace dak::planner::internal

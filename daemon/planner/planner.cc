#include "daemon/planner/planner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "allocator/base/status_macros.h"
#include "daemon/planner/price_search.h"
#include "daemon/planner/problem.h"
#include "daemon/planner/uniform.h"

namespace dak::planner {
namespace {

using internal::Item;
using internal::Mixture;
using internal::PerTier;
using internal::Problem;
using internal::SessionTerms;

double SecondsOf(const SessionTerms& session, const Item& item, absl::Span<const double> tier_ratios) {
  double ratio = 0;
  double seconds = item.compute_s;
  for (size_t k = 0; k < tier_ratios.size(); ++k) {
    ratio += tier_ratios[k];
    const double rate = item.link_share * session.tier_bytes_per_s[k];
    seconds = std::max(seconds, item.remote_s + item.read_bytes * tier_ratios[k] / rate);
  }
  seconds = std::max(seconds, item.read_bytes * std::max(0.0, 1 - ratio) / item.hbm_bytes_per_s);
  const double link_rate = item.link_share * session.link_bytes_per_s;
  return item.own_s + std::max(seconds, item.remote_s + item.read_bytes * ratio / link_rate);
}

// Adds one greedy plan's shares, weighted, to the operations of one session.
void AddPart(const Problem& problem, const SessionTerms& session, const internal::TierOrder& order,
             const internal::Threshold& threshold, double weight, std::vector<OperationPlan>& operations) {
  for (size_t i = session.first_item; i < session.end_item; ++i) {
    const Item& item = problem.items[i];
    const double ratio = internal::RatioAt(internal::SegmentsOf(order, item), item, threshold);
    const internal::Spread spread = internal::SpreadAt(order, item, ratio);
    std::vector<double>& tier_ratios = operations[i - session.first_item].tier_ratios;
    for (size_t k = 0; k < problem.tiers; ++k) tier_ratios[k] += weight * spread.ratio[k];
  }
}

void SetUniformSeconds(const Problem& problem, std::vector<PassPlan>& plans) {
  const internal::UniformPlan uniform = internal::PlanUniform(problem);
  for (size_t s = 0; s < problem.sessions.size(); ++s) {
    const SessionTerms& session = problem.sessions[s];
    for (size_t i = session.first_item; i < session.end_item; ++i) {
      const Item& item = problem.items[i];
      const double ratio = std::clamp(uniform.ratio[s], item.min_ratio, item.max_ratio);
      PerTier tier_ratios{};
      for (size_t k = 0; k < problem.tiers; ++k) tier_ratios[k] = ratio * uniform.mix[k];
      plans[s].uniform_s += SecondsOf(session, item, absl::MakeConstSpan(tier_ratios.data(), problem.tiers));
    }
  }
}

// Ratios, times and sums of one session, once all parts are in.
void Finish(const Problem& problem, const SessionTerms& session, PassPlan& plan) {
  double remote_bytes = 0;
  for (size_t i = session.first_item; i < session.end_item; ++i) {
    const Item& item = problem.items[i];
    OperationPlan& operation = plan.operations[i - session.first_item];
    double ratio = 0;
    for (double tier_ratio : operation.tier_ratios) ratio += tier_ratio;
    operation.ratio = std::clamp(ratio, item.min_ratio, item.max_ratio);
    operation.predicted_s = SecondsOf(session, item, operation.tier_ratios);
    plan.predicted_s += operation.predicted_s;
    plan.all_hbm_s += item.own_s + std::max(item.compute_s, item.read_bytes / item.hbm_bytes_per_s);
    remote_bytes += operation.ratio * item.stored_bytes;
  }
  plan.remote_bytes = static_cast<uint64_t>(std::llround(remote_bytes));
}

absl::StatusOr<std::vector<PassPlan>> PlanPasses(const Profile& profile, absl::Span<const Pass> passes,
                                                 uint64_t hbm_capacity_bytes, bool single_pass) {
  DAK_ASSIGN_OR_RETURN(const Problem problem, internal::BuildProblem(profile, passes, hbm_capacity_bytes, single_pass));
  DAK_ASSIGN_OR_RETURN(const Mixture mixture, internal::FillTiers(problem));
  std::vector<PassPlan> plans(passes.size());
  for (size_t s = 0; s < passes.size(); ++s) {
    const SessionTerms& session = problem.sessions[s];
    plans[s].session_id = passes[s].session_id;
    plans[s].operations.resize(passes[s].operations.size());
    for (OperationPlan& operation : plans[s].operations) operation.tier_ratios.assign(problem.tiers, 0);
    for (const internal::WeightedPlan& part : mixture.parts) {
      const internal::TierOrder order = internal::OrderTiers(problem, session, part.plan.prices);
      AddPart(problem, session, order, part.plan.thresholds[s], part.weight, plans[s].operations);
    }
    Finish(problem, session, plans[s]);
  }
  SetUniformSeconds(problem, plans);
  return plans;
}

}  // namespace

BatchRate RateAt(const Profile& profile, uint64_t batch) {
  if (batch == 0 || profile.batch_rates.empty()) {
    return {.hbm_bytes_per_s = profile.hbm_bytes_per_s, .flops_per_s = profile.flops_per_s};
  }
  for (const BatchRate& rate : profile.batch_rates) {
    if (rate.batch >= batch) return rate;
  }
  return profile.batch_rates.back();
}

double OperationSeconds(const Profile& profile, const Operation& operation, absl::Span<const double> tier_ratios) {
  SessionTerms session;
  const internal::LinkRates rates = internal::LinkRatesOf(profile);
  session.link_bytes_per_s = rates.all_bytes_per_s;
  session.tier_bytes_per_s = rates.tier_bytes_per_s;
  const size_t tiers = std::min({tier_ratios.size(), profile.remote_tiers.size(), kMaxRemoteTiers});
  return SecondsOf(session, internal::ItemOf(profile, operation), tier_ratios.subspan(0, tiers));
}

Profile ScaledToShare(const Profile& profile, double share) {
  Profile scaled = profile;
  scaled.link_bytes_per_s *= share;
  for (RemoteTier& tier : scaled.remote_tiers) tier.bytes_per_s *= share;
  for (BatchRate& rate : scaled.batch_rates) rate.link_bytes_per_s *= share;
  return scaled;
}

absl::StatusOr<PassPlan> Plan(const Profile& profile, const Pass& pass) {
  DAK_ASSIGN_OR_RETURN(std::vector<PassPlan> plans,
                       PlanPasses(profile, absl::MakeConstSpan(&pass, 1), kUnlimitedBytes, true));
  return std::move(plans.front());
}

absl::StatusOr<std::vector<PassPlan>> PlanAll(const Profile& profile, absl::Span<const Pass> passes,
                                              uint64_t hbm_capacity_bytes) {
  return PlanPasses(profile, passes, hbm_capacity_bytes, false);
}

}  // namespace dak::planner

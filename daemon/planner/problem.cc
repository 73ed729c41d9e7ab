#include "daemon/planner/problem.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak::planner::internal {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr double kMaxWeight = 1e6;
// Sums of doubles miss by less than this share of what was summed.
constexpr double kRounding = 1e-12;

absl::Status CheckRate(absl::string_view field, double rate, bool may_be_zero) {
  const bool in_range = std::isfinite(rate) && (may_be_zero ? rate >= 0 : rate > 0);
  if (in_range) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(rate, " is out of range"),
                      may_be_zero ? "finite, at least 0" : "above 0, finite");
}

absl::Status CheckBatchRates(const std::vector<BatchRate>& rates) {
  if (rates.size() > kMaxBatchRates) {
    return InvalidField("profile.batch_rates", absl::StrCat(rates.size(), " entries"),
                        absl::StrCat("at most ", kMaxBatchRates));
  }
  uint64_t before = 0;
  for (size_t i = 0; i < rates.size(); ++i) {
    const std::string name = absl::StrCat("profile.batch_rates[", i, "].");
    if (rates[i].batch <= before) {
      return InvalidField(name + "batch", absl::StrCat(rates[i].batch, " is out of order"),
                          absl::StrCat("above ", before, ", the one before"));
    }
    before = rates[i].batch;
    DAK_RETURN_IF_ERROR(CheckRate(name + "hbm_bytes_per_s", rates[i].hbm_bytes_per_s, false));
    DAK_RETURN_IF_ERROR(CheckRate(name + "flops_per_s", rates[i].flops_per_s, false));
    DAK_RETURN_IF_ERROR(CheckRate(name + "operation_s", rates[i].operation_s, true));
    DAK_RETURN_IF_ERROR(CheckRate(name + "link_bytes_per_s", rates[i].link_bytes_per_s, true));
    DAK_RETURN_IF_ERROR(CheckRate(name + "remote_s", rates[i].remote_s, true));
  }
  return absl::OkStatus();
}

absl::Status CheckLinks(const Profile& profile) {
  size_t shared = 0;
  bool own = false;
  for (size_t k = 0; k < profile.remote_tiers.size(); ++k) {
    const RemoteTier& tier = profile.remote_tiers[k];
    own = own || tier.own_link;
    shared += tier.own_link ? 0 : 1;
    if (!tier.own_link || tier.bytes_per_s > 0) continue;
    return InvalidField(absl::StrCat("profile.remote_tiers[", k, "].bytes_per_s"), "is 0 with a link of its own",
                        "above 0");
  }
  if (!own || shared <= 1) return absl::OkStatus();
  return InvalidField("profile.remote_tiers", absl::StrCat(shared, " tiers share a link beside one that has its own"),
                      "at most 1");
}

absl::Status CheckProfile(const Profile& profile) {
  DAK_RETURN_IF_ERROR(CheckRate("profile.hbm_bytes_per_s", profile.hbm_bytes_per_s, false));
  DAK_RETURN_IF_ERROR(CheckRate("profile.link_bytes_per_s", profile.link_bytes_per_s, false));
  DAK_RETURN_IF_ERROR(CheckRate("profile.flops_per_s", profile.flops_per_s, false));
  DAK_RETURN_IF_ERROR(CheckBatchRates(profile.batch_rates));
  const size_t tiers = profile.remote_tiers.size();
  if (tiers < 1 || tiers > kMaxRemoteTiers) {
    return InvalidField("profile.remote_tiers", absl::StrCat(tiers, " tiers"), absl::StrCat("1 to ", kMaxRemoteTiers));
  }
  for (size_t k = 0; k < tiers; ++k) {
    DAK_RETURN_IF_ERROR(CheckRate(absl::StrCat("profile.remote_tiers[", k, "].bytes_per_s"),
                                  profile.remote_tiers[k].bytes_per_s, true));
  }
  return CheckLinks(profile);
}

absl::Status OperationFault(absl::string_view prefix, size_t index, absl::string_view field, absl::string_view problem,
                            absl::string_view limit) {
  return InvalidField(absl::StrCat(prefix, "operations[", index, "].", field), problem, limit);
}

absl::Status CheckOperation(absl::string_view prefix, size_t index, const Operation& operation) {
  for (const auto& [field, bytes] : {std::pair("bytes", operation.bytes), {"stored_bytes", operation.stored_bytes}}) {
    if (bytes <= kMaxOperationBytes) continue;
    return OperationFault(prefix, index, field, absl::StrCat(bytes, " is out of range"),
                          absl::StrCat("at most ", kMaxOperationBytes));
  }
  if (!std::isfinite(operation.flops) || operation.flops < 0) {
    return OperationFault(prefix, index, "flops", absl::StrCat(operation.flops, " is out of range"),
                          "finite, at least 0");
  }
  if (!(operation.min_ratio >= 0 && operation.min_ratio <= 1)) {
    return OperationFault(prefix, index, "min_ratio", absl::StrCat(operation.min_ratio, " is out of range"), "0 to 1");
  }
  if (!(operation.max_ratio >= operation.min_ratio && operation.max_ratio <= 1)) {
    return OperationFault(prefix, index, "max_ratio", absl::StrCat(operation.max_ratio, " is out of range"),
                          absl::StrCat("min_ratio, here ", operation.min_ratio, ", to 1"));
  }
  return absl::OkStatus();
}

absl::Status DoesNotFit(const std::string& field, double needed, double possible, absl::string_view what) {
  const uint64_t shortfall = static_cast<uint64_t>(std::ceil(needed - possible));
  const std::string limit = absl::StrCat("at most ", static_cast<uint64_t>(possible), " bytes ", what);
  return WithDetail(
      absl::ResourceExhaustedError(absl::StrCat(field, ": ", static_cast<uint64_t>(std::ceil(needed)),
                                                " bytes must be remote (", limit, "): ", shortfall, " bytes too many")),
      {.field = field, .reason = "QUOTA_EXCEEDED", .limit = limit, .shortfall_bytes = shortfall});
}

// What one pass must and may have remote.
struct PassBytes {
  uint64_t stored = 0;
  double least_remote = 0;
  double most_remote = 0;
};

absl::StatusOr<PassBytes> AppendItems(const Profile& profile, const Pass& pass, absl::string_view prefix,
                                      Problem& problem) {
  if (!std::isfinite(pass.weight) || pass.weight <= 0 || pass.weight > kMaxWeight) {
    return InvalidField(absl::StrCat(prefix, "weight"), absl::StrCat(pass.weight, " is out of range"),
                        "above 0, at most 1e6");
  }
  if (pass.operations.empty()) return InvalidField(absl::StrCat(prefix, "operations"), "none", "at least 1");
  PassBytes bytes;
  for (size_t i = 0; i < pass.operations.size(); ++i) {
    const Operation& operation = pass.operations[i];
    if (absl::Status status = CheckOperation(prefix, i, operation); !status.ok()) return status;
    const uint64_t stored = operation.stored_bytes == 0 ? operation.bytes : operation.stored_bytes;
    bytes.stored += stored;
    if (bytes.stored > kMaxTotalBytes) {
      return InvalidField(absl::StrCat(prefix, "operations"), "too many bytes",
                          absl::StrCat("at most ", kMaxTotalBytes));
    }
    const double size = static_cast<double>(stored);
    bytes.least_remote += size * operation.min_ratio;
    bytes.most_remote += size * operation.max_ratio;
    problem.items.push_back(ItemOf(profile, operation));
  }
  return bytes;
}

SessionTerms TermsOf(const Profile& profile, double weight, double share) {
  SessionTerms terms;
  terms.weight = weight;
  terms.least_hbm_bytes_per_s = profile.hbm_bytes_per_s;
  for (const BatchRate& rate : profile.batch_rates) {
    terms.least_hbm_bytes_per_s = std::min(terms.least_hbm_bytes_per_s, rate.hbm_bytes_per_s);
    if (rate.link_bytes_per_s == 0) continue;
    terms.least_link_share = std::min(terms.least_link_share, rate.link_bytes_per_s / profile.link_bytes_per_s);
  }
  const LinkRates rates = LinkRatesOf(profile);
  terms.link_bytes_per_s = rates.all_bytes_per_s * share;
  for (size_t k = 0; k < profile.remote_tiers.size(); ++k) {
    terms.tier_bytes_per_s[k] = rates.tier_bytes_per_s[k] * share;
  }
  return terms;
}

// The least that must leave HBM against the most that may, each limit in turn.
absl::Status CheckItFits(const Problem& problem, double least_remote, double most_remote, bool single_pass) {
  const double slack = kRounding * problem.total_bytes;
  if (problem.shared_needed_bytes > most_remote + slack) {
    return DoesNotFit("hbm_capacity_bytes", problem.shared_needed_bytes, most_remote,
                      "of all passes may be remote at their highest ratios");
  }
  double capacity = 0;
  for (size_t k = 0; k < problem.tiers; ++k) capacity += problem.capacity_bytes[k];
  const double needed = std::max(least_remote, problem.shared_needed_bytes);
  if (needed > capacity + slack) {
    return DoesNotFit("profile.remote_tiers", needed, capacity,
                      single_pass ? "fit in the remote tiers" : "of all passes fit in the remote tiers");
  }
  return absl::OkStatus();
}

}  // namespace

LinkRates LinkRatesOf(const Profile& profile) {
  LinkRates rates;
  bool shared = false;
  bool own = false;
  for (const RemoteTier& tier : profile.remote_tiers) {
    (tier.own_link ? own : shared) = true;
    if (tier.own_link) rates.all_bytes_per_s += tier.bytes_per_s;
  }
  if (shared || !own) rates.all_bytes_per_s += profile.link_bytes_per_s;
  const size_t tiers = std::min(profile.remote_tiers.size(), kMaxRemoteTiers);
  for (size_t k = 0; k < tiers; ++k) {
    const RemoteTier& tier = profile.remote_tiers[k];
    double& rate = rates.tier_bytes_per_s[k];
    rate = tier.bytes_per_s == 0 ? kInfinite : tier.bytes_per_s;
    // The sum bounds it no more.
    if (own && !tier.own_link) rate = std::min(rate, profile.link_bytes_per_s);
  }
  return rates;
}

Item ItemOf(const Profile& profile, const Operation& operation) {
  const BatchRate rate = RateAt(profile, operation.batch);
  Item item;
  item.read_bytes = static_cast<double>(operation.bytes);
  item.stored_bytes = static_cast<double>(operation.stored_bytes == 0 ? operation.bytes : operation.stored_bytes);
  item.compute_s = operation.flops / rate.flops_per_s;
  item.own_s = rate.operation_s;
  item.hbm_bytes_per_s = rate.hbm_bytes_per_s;
  item.remote_s = std::min(rate.remote_s, std::max(item.compute_s, item.read_bytes / item.hbm_bytes_per_s));
  if (rate.link_bytes_per_s > 0) item.link_share = rate.link_bytes_per_s / profile.link_bytes_per_s;
  item.min_ratio = operation.min_ratio;
  item.max_ratio = operation.max_ratio;
  return item;
}

absl::StatusOr<Problem> BuildProblem(const Profile& profile, absl::Span<const Pass> passes, uint64_t hbm_capacity_bytes,
                                     bool single_pass) {
  DAK_RETURN_IF_ERROR(CheckProfile(profile));
  Problem problem;
  problem.tiers = profile.remote_tiers.size();
  for (size_t k = 0; k < problem.tiers; ++k) {
    const uint64_t capacity = profile.remote_tiers[k].capacity_bytes;
    problem.capacity_bytes[k] = capacity == kUnlimitedBytes ? kInfinite : static_cast<double>(capacity);
  }
  size_t operations = 0;
  double weights = 0;
  for (const Pass& pass : passes) {
    operations += pass.operations.size();
    weights += pass.weight;
  }
  problem.items.reserve(operations);
  uint64_t stored = 0;
  double least_remote = 0;
  double most_remote = 0;
  for (size_t p = 0; p < passes.size(); ++p) {
    const Pass& pass = passes[p];
    const std::string prefix = single_pass ? "" : absl::StrCat("passes[", p, "].");
    const size_t first = problem.items.size();
    DAK_ASSIGN_OR_RETURN(const PassBytes bytes, AppendItems(profile, pass, prefix, problem));
    stored += bytes.stored;
    if (stored > kMaxTotalBytes) {
      return InvalidField("passes", "too many bytes", absl::StrCat("at most ", kMaxTotalBytes, " in all"));
    }
    SessionTerms terms = TermsOf(profile, pass.weight, pass.weight / weights);
    terms.first_item = first;
    terms.end_item = problem.items.size();
    if (bytes.stored > pass.hbm_budget_bytes) {
      terms.needed_bytes = static_cast<double>(bytes.stored - pass.hbm_budget_bytes);
    }
    if (terms.needed_bytes > bytes.most_remote + kRounding * static_cast<double>(bytes.stored)) {
      return DoesNotFit(absl::StrCat(prefix, "hbm_budget_bytes"), terms.needed_bytes, bytes.most_remote,
                        "may be remote at the highest ratios");
    }
    least_remote += std::max(bytes.least_remote, terms.needed_bytes);
    most_remote += bytes.most_remote;
    problem.sessions.push_back(terms);
  }
  problem.total_bytes = static_cast<double>(stored);
  if (stored > hbm_capacity_bytes) problem.shared_needed_bytes = static_cast<double>(stored - hbm_capacity_bytes);
  DAK_RETURN_IF_ERROR(CheckItFits(problem, least_remote, most_remote, single_pass));
  return problem;
}

}  // namespace dak::planner::internal

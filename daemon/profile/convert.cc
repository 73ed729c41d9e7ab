#include "daemon/profile/convert.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "allocator/base/tier.h"

namespace dak::daemon {
namespace {

absl::Status SetRate(absl::string_view field, double value, double* target) {
  if (!(std::isfinite(value) && value > 0)) {
    return InvalidField(absl::StrCat("profile.", field), absl::StrCat(value, " is out of range"), "above 0, finite");
  }
  *target = value;
  return absl::OkStatus();
}

absl::Status ApplyBatchRates(const config::Profile& config, planner::Profile* profile) {
  // A rate by batch was measured beside the plain rates: with other ones it would contradict them.
  if (config.has_hbm_bytes_per_s() || config.has_link_bytes_per_s() || config.has_flops_per_s()) {
    profile->batch_rates.clear();
  }
  if (config.batch_rates_size() == 0) return absl::OkStatus();
  if (config.batch_rates_size() > static_cast<int>(planner::kMaxBatchRates)) {
    return InvalidField("profile.batch_rates", absl::StrCat("has ", config.batch_rates_size(), " entries"),
                        absl::StrCat("at most ", planner::kMaxBatchRates));
  }
  profile->batch_rates.clear();
  uint64_t before = 0;
  for (int i = 0; i < config.batch_rates_size(); ++i) {
    const config::BatchRate& from = config.batch_rates(i);
    const std::string name = absl::StrCat("batch_rates[", i, "].");
    if (from.batch() <= before) {
      return InvalidField(absl::StrCat("profile.", name, "batch"), absl::StrCat(from.batch(), " is out of order"),
                          absl::StrCat("above ", before, ", the one before"));
    }
    before = from.batch();
    planner::BatchRate rate = {.batch = from.batch()};
    DAK_RETURN_IF_ERROR(SetRate(absl::StrCat(name, "hbm_bytes_per_s"), from.hbm_bytes_per_s(), &rate.hbm_bytes_per_s));
    DAK_RETURN_IF_ERROR(SetRate(absl::StrCat(name, "flops_per_s"), from.flops_per_s(), &rate.flops_per_s));
    if (!(from.operation_s() >= 0 && from.operation_s() <= 1)) {
      return InvalidField(absl::StrCat("profile.", name, "operation_s"),
                          absl::StrCat(from.operation_s(), " is out of range"), "0 to 1");
    }
    rate.operation_s = from.operation_s();
    if (from.has_link_bytes_per_s()) {
      DAK_RETURN_IF_ERROR(
          SetRate(absl::StrCat(name, "link_bytes_per_s"), from.link_bytes_per_s(), &rate.link_bytes_per_s));
    }
    if (!(from.remote_s() >= 0 && from.remote_s() <= 1)) {
      return InvalidField(absl::StrCat("profile.", name, "remote_s"), absl::StrCat(from.remote_s(), " is out of range"),
                          "0 to 1");
    }
    rate.remote_s = from.remote_s();
    profile->batch_rates.push_back(rate);
  }
  return absl::OkStatus();
}

planner::RemoteTier* FindTier(planner::Profile* profile, const std::string& name) {
  for (planner::RemoteTier& tier : profile->remote_tiers) {
    if (tier.name == name) return &tier;
  }
  return nullptr;
}

absl::Status ApplyCxl(const config::Path& config, planner::Profile* profile) {
  const std::string name = TierName(Tier::kCxl);
  planner::RemoteTier* tier = FindTier(profile, name);
  if (tier == nullptr) {
    tier = &profile->remote_tiers.emplace_back();
    tier->name = name;
  }
  if (config.has_bytes_per_s())
    DAK_RETURN_IF_ERROR(SetRate("cxl.bytes_per_s", config.bytes_per_s(), &tier->bytes_per_s));
  if (config.has_round_trip_ns()) tier->round_trip_ns = config.round_trip_ns();
  if (config.has_knee_bytes()) tier->knee_bytes = config.knee_bytes();
  if (config.has_cliff_bytes()) tier->cliff_bytes = config.cliff_bytes();
  if (!config.has_round_trip_ns() || config.round_trip_ns() > 0) return absl::OkStatus();
  return InvalidField("profile.cxl.round_trip_ns", "is 0", "at least 1");
}

}  // namespace

bool HasValues(const config::Profile& config) {
  config::Profile values = config;
  values.clear_name();
  values.clear_source();
  values.clear_cache_dir();
  return values.ByteSizeLong() > 0;
}

absl::Status ApplyValues(const config::Profile& config, planner::Profile* profile) {
  const struct {
    const char* field;
    bool set;
    double value;
    double* target;
  } rates[] = {
      {"hbm_bytes_per_s", config.has_hbm_bytes_per_s(), config.hbm_bytes_per_s(), &profile->hbm_bytes_per_s},
      {"link_bytes_per_s", config.has_link_bytes_per_s(), config.link_bytes_per_s(), &profile->link_bytes_per_s},
      {"copy_engine_bytes_per_s", config.has_copy_engine_bytes_per_s(), config.copy_engine_bytes_per_s(),
       &profile->copy_engine_bytes_per_s},
      {"copy_to_host_bytes_per_s", config.has_copy_to_host_bytes_per_s(), config.copy_to_host_bytes_per_s(),
       &profile->copy_to_host_bytes_per_s},
      {"flops_per_s", config.has_flops_per_s(), config.flops_per_s(), &profile->flops_per_s},
  };
  for (const auto& rate : rates) {
    if (rate.set) DAK_RETURN_IF_ERROR(SetRate(rate.field, rate.value, rate.target));
  }
  DAK_RETURN_IF_ERROR(ApplyBatchRates(config, profile));
  if (config.has_round_trip_ns()) profile->round_trip_ns = config.round_trip_ns();
  if (config.has_knee_bytes()) profile->knee_bytes = config.knee_bytes();
  if (config.has_cliff_bytes()) profile->cliff_bytes = config.cliff_bytes();
  if (profile->round_trip_ns == 0) return InvalidField("profile.round_trip_ns", "is 0", "at least 1");
  return config.has_cxl() ? ApplyCxl(config.cxl(), profile) : absl::OkStatus();
}

config::Profile ValuesOf(const planner::Profile& profile) {
  config::Profile config;
  config.set_hbm_bytes_per_s(profile.hbm_bytes_per_s);
  config.set_link_bytes_per_s(profile.link_bytes_per_s);
  if (profile.copy_engine_bytes_per_s > 0) config.set_copy_engine_bytes_per_s(profile.copy_engine_bytes_per_s);
  if (profile.copy_to_host_bytes_per_s > 0) config.set_copy_to_host_bytes_per_s(profile.copy_to_host_bytes_per_s);
  config.set_flops_per_s(profile.flops_per_s);
  config.set_round_trip_ns(profile.round_trip_ns);
  config.set_knee_bytes(profile.knee_bytes);
  config.set_cliff_bytes(profile.cliff_bytes);
  for (const planner::BatchRate& rate : profile.batch_rates) {
    config::BatchRate* to = config.add_batch_rates();
    to->set_batch(rate.batch);
    to->set_hbm_bytes_per_s(rate.hbm_bytes_per_s);
    to->set_flops_per_s(rate.flops_per_s);
    to->set_operation_s(rate.operation_s);
    if (rate.link_bytes_per_s > 0) to->set_link_bytes_per_s(rate.link_bytes_per_s);
    to->set_remote_s(rate.remote_s);
  }
  for (const planner::RemoteTier& tier : profile.remote_tiers) {
    if (tier.name != TierName(Tier::kCxl)) continue;
    config::Path* path = config.mutable_cxl();
    if (tier.bytes_per_s > 0) path->set_bytes_per_s(tier.bytes_per_s);
    if (tier.round_trip_ns > 0) path->set_round_trip_ns(tier.round_trip_ns);
    if (tier.knee_bytes > 0) path->set_knee_bytes(tier.knee_bytes);
    if (tier.cliff_bytes > 0) path->set_cliff_bytes(tier.cliff_bytes);
  }
  return config;
}

}  // namespace dak::daemon

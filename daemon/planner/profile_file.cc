#include "daemon/planner/profile_file.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/planner/json_fields.h"

namespace dak::planner {
namespace {

using internal::JsonFields;

constexpr uint64_t kMostRoundTripNs = 1'000'000'000;

absl::StatusOr<double> Rate(const JsonFields& fields, const std::string& field, bool may_be_zero) {
  DAK_ASSIGN_OR_RETURN(const double rate, may_be_zero ? fields.NumberOr(field, 0) : fields.Number(field));
  if (may_be_zero ? rate >= 0 : rate > 0) return rate;
  return InvalidField(fields.NameOf(field), absl::StrCat(rate, " is out of range"),
                      may_be_zero ? "at least 0" : "above 0");
}

absl::StatusOr<RemoteTier> ParseTier(const nlohmann::json& value, size_t index) {
  const std::string name = absl::StrCat("remote_tiers[", index, "]");
  if (!value.is_object()) return InvalidField(name, "not an object", "an object with a name");
  const JsonFields fields(value, name + ".");
  DAK_RETURN_IF_ERROR(fields.CheckNoOthers(
      {"name", "bytes_per_s", "capacity_bytes", "round_trip_ns", "knee_bytes", "cliff_bytes", "own_link"}));
  RemoteTier tier;
  DAK_ASSIGN_OR_RETURN(tier.name, fields.Text("name"));
  DAK_ASSIGN_OR_RETURN(tier.bytes_per_s, Rate(fields, "bytes_per_s", true));
  DAK_ASSIGN_OR_RETURN(tier.capacity_bytes, fields.CountOr("capacity_bytes", 0, kMaxTotalBytes, kUnlimitedBytes));
  DAK_ASSIGN_OR_RETURN(tier.round_trip_ns, fields.CountOr("round_trip_ns", 0, kMostRoundTripNs, 0));
  DAK_ASSIGN_OR_RETURN(tier.knee_bytes, fields.CountOr("knee_bytes", 0, kMaxOperationBytes, 0));
  DAK_ASSIGN_OR_RETURN(tier.cliff_bytes, fields.CountOr("cliff_bytes", 0, kMaxOperationBytes, 0));
  DAK_ASSIGN_OR_RETURN(tier.own_link, fields.BoolOr("own_link", false));
  return tier;
}

absl::StatusOr<std::vector<RemoteTier>> ParseTiers(const nlohmann::json& object) {
  std::vector<RemoteTier> tiers;
  const auto found = object.find("remote_tiers");
  if (found == object.end()) {
    tiers.emplace_back();
    return tiers;
  }
  if (!found->is_array() || found->empty() || found->size() > kMaxRemoteTiers) {
    return InvalidField("remote_tiers", "not a list of tiers", absl::StrCat("1 to ", kMaxRemoteTiers, " tiers"));
  }
  for (const nlohmann::json& value : *found) {
    DAK_ASSIGN_OR_RETURN(RemoteTier tier, ParseTier(value, tiers.size()));
    tiers.push_back(std::move(tier));
  }
  return tiers;
}

absl::StatusOr<std::vector<BatchRate>> ParseBatchRates(const nlohmann::json& object) {
  std::vector<BatchRate> rates;
  const auto found = object.find("batch_rates");
  if (found == object.end()) return rates;
  if (!found->is_array() || found->size() > kMaxBatchRates) {
    return InvalidField("batch_rates", "not a list of rates", absl::StrCat("at most ", kMaxBatchRates, " objects"));
  }
  for (const nlohmann::json& value : *found) {
    const std::string name = absl::StrCat("batch_rates[", rates.size(), "]");
    if (!value.is_object()) return InvalidField(name, "not an object", "an object");
    const JsonFields fields(value, name + ".");
    DAK_RETURN_IF_ERROR(fields.CheckNoOthers(
        {"batch", "hbm_bytes_per_s", "flops_per_s", "operation_s", "link_bytes_per_s", "remote_s"}));
    BatchRate rate;
    const uint64_t least = rates.empty() ? 1 : rates.back().batch + 1;
    DAK_ASSIGN_OR_RETURN(rate.batch, fields.Count("batch", least, kMaxOperationBytes));
    DAK_ASSIGN_OR_RETURN(rate.hbm_bytes_per_s, Rate(fields, "hbm_bytes_per_s", false));
    DAK_ASSIGN_OR_RETURN(rate.flops_per_s, Rate(fields, "flops_per_s", false));
    DAK_ASSIGN_OR_RETURN(rate.operation_s, Rate(fields, "operation_s", true));
    DAK_ASSIGN_OR_RETURN(rate.link_bytes_per_s, Rate(fields, "link_bytes_per_s", true));
    DAK_ASSIGN_OR_RETURN(rate.remote_s, Rate(fields, "remote_s", true));
    rates.push_back(rate);
  }
  return rates;
}

}  // namespace

absl::StatusOr<Profile> ParseProfile(const std::string& json) {
  DAK_ASSIGN_OR_RETURN(const nlohmann::json object, internal::ParseJsonObject(json));
  const JsonFields fields(object);
  DAK_RETURN_IF_ERROR(fields.CheckNoOthers({"hbm_bytes_per_s", "link_bytes_per_s", "copy_engine_bytes_per_s",
                                            "flops_per_s", "round_trip_ns", "knee_bytes", "cliff_bytes", "remote_tiers",
                                            "source", "copy_to_host_bytes_per_s", "batch_rates"}));
  Profile profile;
  DAK_ASSIGN_OR_RETURN(profile.hbm_bytes_per_s, Rate(fields, "hbm_bytes_per_s", false));
  DAK_ASSIGN_OR_RETURN(profile.link_bytes_per_s, Rate(fields, "link_bytes_per_s", false));
  DAK_ASSIGN_OR_RETURN(profile.flops_per_s, Rate(fields, "flops_per_s", false));
  DAK_ASSIGN_OR_RETURN(profile.copy_engine_bytes_per_s, Rate(fields, "copy_engine_bytes_per_s", true));
  DAK_ASSIGN_OR_RETURN(profile.round_trip_ns, fields.CountOr("round_trip_ns", 0, kMostRoundTripNs, 0));
  DAK_ASSIGN_OR_RETURN(profile.knee_bytes, fields.CountOr("knee_bytes", 0, kMaxOperationBytes, 0));
  DAK_ASSIGN_OR_RETURN(profile.cliff_bytes, fields.CountOr("cliff_bytes", 0, kMaxOperationBytes, 0));
  DAK_ASSIGN_OR_RETURN(profile.copy_to_host_bytes_per_s, Rate(fields, "copy_to_host_bytes_per_s", true));
  DAK_ASSIGN_OR_RETURN(profile.remote_tiers, ParseTiers(object));
  DAK_ASSIGN_OR_RETURN(profile.batch_rates, ParseBatchRates(object));
  return profile;
}

std::string FormatProfile(const Profile& profile) {
  nlohmann::ordered_json object = {{"hbm_bytes_per_s", profile.hbm_bytes_per_s},
                                   {"link_bytes_per_s", profile.link_bytes_per_s},
                                   {"copy_engine_bytes_per_s", profile.copy_engine_bytes_per_s},
                                   {"copy_to_host_bytes_per_s", profile.copy_to_host_bytes_per_s},
                                   {"flops_per_s", profile.flops_per_s},
                                   {"round_trip_ns", profile.round_trip_ns},
                                   {"knee_bytes", profile.knee_bytes},
                                   {"cliff_bytes", profile.cliff_bytes}};
  for (const RemoteTier& tier : profile.remote_tiers) {
    nlohmann::ordered_json one = {{"name", tier.name}, {"bytes_per_s", tier.bytes_per_s}};
    if (tier.capacity_bytes != kUnlimitedBytes) one["capacity_bytes"] = tier.capacity_bytes;
    if (tier.round_trip_ns > 0) one["round_trip_ns"] = tier.round_trip_ns;
    if (tier.knee_bytes > 0) one["knee_bytes"] = tier.knee_bytes;
    if (tier.cliff_bytes > 0) one["cliff_bytes"] = tier.cliff_bytes;
    if (tier.own_link) one["own_link"] = true;
    object["remote_tiers"].push_back(one);
  }
  for (const BatchRate& rate : profile.batch_rates) {
    object["batch_rates"].push_back({{"batch", rate.batch},
                                     {"hbm_bytes_per_s", rate.hbm_bytes_per_s},
                                     {"flops_per_s", rate.flops_per_s},
                                     {"operation_s", rate.operation_s},
                                     {"link_bytes_per_s", rate.link_bytes_per_s},
                                     {"remote_s", rate.remote_s}});
  }
  return object.dump(2) + "\n";
}

absl::StatusOr<Profile> LoadProfile(const std::string& name_or_path) {
  const bool is_path = name_or_path.find('/') != std::string::npos || absl::EndsWith(name_or_path, ".json");
  if (!is_path) return NamedProfile(name_or_path);
  DAK_ASSIGN_OR_RETURN(const std::string text, internal::ReadSmallFile(name_or_path));
  absl::StatusOr<Profile> profile = ParseProfile(text);
  if (profile.ok()) return profile;
  return internal::WithPath(profile.status(), name_or_path);
}

}  // namespace dak::planner

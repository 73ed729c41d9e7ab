#include "daemon/profile/node_profile.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/planner/profile_file.h"
#include "daemon/profile/cache.h"
#include "daemon/profile/convert.h"
#include "daemon/profile/links.h"
#include "daemon/profile/measure.h"
#include "daemon/session/clock.h"

namespace dak::daemon {
namespace {

bool IsPath(const std::string& source) {
  return source.find('/') != std::string::npos || absl::EndsWith(source, ".json");
}

absl::Status InField(absl::string_view field, absl::string_view reason, const absl::Status& status) {
  return WithDetail(absl::InvalidArgumentError(absl::StrCat(field, ": ", status.message())),
                    {.field = std::string(field), .reason = std::string(reason)});
}

absl::Status CheckSource(const config::Profile& config) {
  const std::string& source = config.source();
  if (IsPath(source)) {
    if (!config.has_name()) return absl::OkStatus();
    return InvalidField("profile.name", "there is a file as well (source)", "one of them");
  }
  for (const char* known : {"auto", "measure", "once", "cached", "default"}) {
    if (source == known) return absl::OkStatus();
  }
  return InvalidField("profile.source", absl::StrCat("'", source, "' is no source"),
                      "auto, measure, once, cached, default or the path of a JSON file");
}

// What the configuration names, else the device's own model, else an H100.
absl::StatusOr<planner::Profile> BaseProfile(const config::Profile& config, const DeviceDescription& device) {
  DAK_RETURN_IF_ERROR(CheckSource(config));
  if (IsPath(config.source())) {
    absl::StatusOr<planner::Profile> loaded = planner::LoadProfile(config.source());
    return loaded.ok() ? std::move(loaded) : InField("profile.source", "BAD_FILE", loaded.status());
  }
  absl::StatusOr<planner::Profile> named = planner::NamedProfile(config.has_name() ? config.name() : "h100-pcie");
  if (!named.ok()) return InField("profile.name", "UNKNOWN_PROFILE", named.status());
  if (!config.has_name() && device.kind == "emulated") {
    named->hbm_bytes_per_s = static_cast<double>(device.link.local_bandwidth_bytes_per_s);
    named->link_bytes_per_s = static_cast<double>(device.link.bandwidth_bytes_per_s);
    named->round_trip_ns = device.link.round_trip_ns;
    named->cliff_bytes = device.link.cliff_bytes;
    named->knee_bytes =
        static_cast<uint64_t>(named->link_bytes_per_s * static_cast<double>(named->round_trip_ns) / 1e9);
  }
  return named;
}

double SecondsNow() { return static_cast<double>(MonotonicNs()) * 1e-9; }

void Note(const std::string& failure, NodeProfile* node) {
  spdlog::warn("profile: {}", failure);
  node->failures.push_back(failure);
}

// False if there is none that is good for this device.
bool TakeCached(const std::string& path, const DeviceDescription& device, NodeProfile* node) {
  const absl::StatusOr<config::MeasuredProfile> cached = LoadMeasured(path, device);
  planner::Profile profile = node->profile;
  const absl::Status status = cached.ok() ? ApplyValues(cached->profile(), &profile) : cached.status();
  if (!status.ok()) {
    // A first start has none: nothing to warn of.
    if (status.code() == absl::StatusCode::kNotFound) {
      spdlog::info("profile: {}", std::string(status.message()));
    } else {
      Note(absl::StrCat("cache: ", status.message()), node);
    }
    return false;
  }
  node->profile = std::move(profile);
  node->source = "measured";
  node->from_cache = true;
  node->measured_unix_s = cached->measured_unix_s();
  node->measuring_s = cached->measuring_s();
  spdlog::info("profile: as measured before, {}", path);
  return true;
}

void Measure(const std::string& path, const DeviceDescription& device, const Measurer& measure, NodeProfile* node) {
  const double begin_s = SecondsNow();
  spdlog::info("profile: measuring {}", device.name);
  const absl::StatusOr<Measurement> measured = measure(device, node->profile);
  if (!measured.ok()) {
    Note(absl::StrCat("measure: ", absl::StatusCodeToString(measured.status().code()), ": ",
                      measured.status().message()),
         node);
    return;
  }
  node->profile = measured->profile;
  node->source = "measured";
  node->measured_unix_s = static_cast<uint64_t>(std::time(nullptr));
  node->measuring_s = SecondsNow() - begin_s;
  spdlog::info("profile: measured in {:.2f} s", node->measuring_s);
  for (const std::string& left_out : measured->left_out) Note(absl::StrCat("measure: ", left_out), node);
  // What was left out is tried again at the next start.
  if (path.empty() || !measured->left_out.empty()) return;
  config::MeasuredProfile keep;
  keep.set_measured_unix_s(node->measured_unix_s);
  keep.set_measuring_s(node->measuring_s);
  *keep.mutable_profile() = ValuesOf(node->profile);
  const absl::Status stored = StoreMeasured(path, device, std::move(keep));
  if (!stored.ok()) Note(absl::StrCat("cache: ", stored.message()), node);
}

absl::Status MeasureCxl(const ProbeFactory& make_probe, const DeviceDescription& device, const MeasureOptions& options,
                        planner::Profile* profile) {
  DAK_ASSIGN_OR_RETURN(const std::unique_ptr<kernels::Probe> probe, make_probe(device.ordinal, device.cxl_numa_node));
  const std::string name = TierName(Tier::kCxl);
  DAK_ASSIGN_OR_RETURN(planner::RemoteTier measured, MeasurePath(*probe, name, options));
  std::vector<planner::RemoteTier>& tiers = profile->remote_tiers;
  tiers.erase(std::remove_if(tiers.begin(), tiers.end(), [&](const auto& tier) { return tier.name == name; }),
              tiers.end());
  tiers.push_back(std::move(measured));
  return absl::OkStatus();
}

}  // namespace

Measurer MeasureWith(ProbeFactory make_probe) {
  return [make_probe = std::move(make_probe)](const DeviceDescription& device,
                                              const planner::Profile& otherwise) -> absl::StatusOr<Measurement> {
    const double begin_s = SecondsNow();
    const auto options = [begin_s] {
      return MeasureOptions{.budget_s = kMeasuringBudgetS - (SecondsNow() - begin_s),
                            .seconds_now = SecondsNow,
                            .log = [](const std::string& line) { spdlog::info("profile: {}", line); }};
    };
    absl::StatusOr<Measurement> measured = absl::InternalError("not measured");
    {
      DAK_ASSIGN_OR_RETURN(const std::unique_ptr<kernels::Probe> probe, make_probe(device.ordinal, -1));
      measured = MeasureProfile(*probe, otherwise, options());
    }
    if (measured.ok() && device.cxl_numa_node >= 0) {
      const absl::Status status = MeasureCxl(make_probe, device, options(), &measured->profile);
      if (!status.ok()) measured->left_out.push_back(absl::StrCat("cxl: ", status.message()));
    }
    return measured;
  };
}

absl::Status CheckProfileConfig(const config::Profile& config) {
  DAK_RETURN_IF_ERROR(CheckSource(config));
  config::Profile without_file = config;
  if (IsPath(config.source())) without_file.clear_source();  // read at start, not by --check-config
  DAK_ASSIGN_OR_RETURN(planner::Profile profile, BaseProfile(without_file, DeviceDescription{}));
  return ApplyValues(config, &profile);
}

absl::StatusOr<NodeProfile> ObtainProfile(const config::Profile& config, const DeviceDescription& device,
                                          const Measurer& measure) {
  NodeProfile node;
  node.source = "default";
  DAK_ASSIGN_OR_RETURN(node.profile, BaseProfile(config, device));
  const bool given = config.has_name() || IsPath(config.source());
  if (!given && device.kind == "cuda" && config.source() != "default") {
    const bool keeps = !config.cache_dir().empty() && config.source() != "once";
    const std::string path = keeps ? ProfilePath(config.cache_dir(), device) : "";
    const bool found = config.source() != "measure" && keeps && TakeCached(path, device, &node);
    if (!found && config.source() != "cached") Measure(path, device, measure, &node);
  }
  DAK_RETURN_IF_ERROR(ApplyValues(config, &node.profile));
  MatchLinks(device, &node.profile);
  if (given || HasValues(config)) node.source = "configured";
  return node;
}

}  // namespace dak::daemon

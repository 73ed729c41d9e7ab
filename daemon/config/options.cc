#include "daemon/config/options.h"

#include <grp.h>

#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak::daemon {
namespace {

constexpr uint64_t kNsPerMs = 1'000'000;
constexpr uint64_t kMaxMs = 24ull * 3600 * 1000;
constexpr uint64_t kDefaultMaxMoveBytes = uint64_t{1} << 30;  // 20 ms of a PCIe 5 link

absl::StatusOr<Tier> TierNamed(const std::string& field, const std::string& name) {
  for (const Tier tier : kAllTiers) {
    if (name == TierName(tier)) return tier;
  }
  return InvalidField(field, absl::StrCat("'", name, "' is no tier"), "hbm, host or cxl");
}

absl::Status ReadPools(const config::Config& config, DaemonOptions* options) {
  std::array<bool, kTierCount> seen{};
  for (int i = 0; i < config.pools_size(); ++i) {
    const config::Pool& pool = config.pools(i);
    const std::string field = absl::StrCat("pools[", i, "]");
    DAK_ASSIGN_OR_RETURN(const Tier tier, TierNamed(absl::StrCat(field, ".tier"), pool.tier()));
    const size_t index = TierIndex(tier);
    if (std::exchange(seen[index], true)) {
      return InvalidField(absl::StrCat(field, ".tier"), "is named twice", "one pool a tier", "DUPLICATE");
    }
    if (pool.has_capacity()) {
      DAK_ASSIGN_OR_RETURN(options->capacity_bytes[index],
                           ParseSize(absl::StrCat(field, ".capacity"), pool.capacity()));
    }
    if (pool.has_default_quota()) {
      DAK_ASSIGN_OR_RETURN(options->default_quota_bytes[index],
                           ParseSize(absl::StrCat(field, ".default_quota"), pool.default_quota()));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadCxlLink(const config::EmulatedLink& config, EmulatedDeviceOptions* emulated) {
  if (emulated->tier_bytes[TierIndex(Tier::kCxl)] == 0) {
    return InvalidField("emulated.cxl_link", "there is no cxl pool", "a pool of tier cxl");
  }
  LinkModel link = emulated->link;
  if (config.has_bandwidth_bytes_per_s()) link.bandwidth_bytes_per_s = config.bandwidth_bytes_per_s();
  if (config.has_round_trip_ns()) link.round_trip_ns = config.round_trip_ns();
  if (config.has_cliff_bytes()) link.cliff_bytes = config.cliff_bytes();
  if (link.bandwidth_bytes_per_s == 0) {
    return InvalidField("emulated.cxl_link.bandwidth_bytes_per_s", "is 0", "at least 1");
  }
  if (link.round_trip_ns == 0) return InvalidField("emulated.cxl_link.round_trip_ns", "is 0", "at least 1");
  emulated->cxl_link = link;
  return absl::OkStatus();
}

absl::Status ReadDevice(const config::Config& config, DaemonOptions* options) {
  if (config.device() == "cuda") {
    options->device.kind = DeviceOptions::Kind::kCuda;
  } else if (config.device() == "emulated") {
    options->device.kind = DeviceOptions::Kind::kEmulated;
  } else if (config.device() != "auto") {
    return InvalidField("device", absl::StrCat("'", config.device(), "' is no kind of device"),
                        "auto, cuda or emulated");
  }
  if (config.gpu_ordinal() < 0) {
    return InvalidField("gpu_ordinal", absl::StrCat(config.gpu_ordinal(), " is out of range"), "0 or more");
  }
  options->device.ordinal = config.gpu_ordinal();
  options->device.uuid = config.gpu_uuid();
  options->device.cxl_numa_node = config.cxl_numa_node();
  for (size_t i = 0; i < kTierCount; ++i) {
    if (options->capacity_bytes[i].has_value()) options->device.emulated.tier_bytes[i] = *options->capacity_bytes[i];
  }
  const config::Emulated& emulated = config.emulated();
  LinkModel& link = options->device.emulated.link;
  if (emulated.has_bandwidth_bytes_per_s()) link.bandwidth_bytes_per_s = emulated.bandwidth_bytes_per_s();
  if (emulated.has_round_trip_ns()) link.round_trip_ns = emulated.round_trip_ns();
  if (emulated.has_cliff_bytes()) link.cliff_bytes = emulated.cliff_bytes();
  if (emulated.has_local_bandwidth_bytes_per_s()) {
    link.local_bandwidth_bytes_per_s = emulated.local_bandwidth_bytes_per_s();
  }
  if (emulated.has_cliff_floor()) link.cliff_floor = emulated.cliff_floor();
  if (link.bandwidth_bytes_per_s == 0) return InvalidField("emulated.bandwidth_bytes_per_s", "is 0", "at least 1");
  if (link.local_bandwidth_bytes_per_s == 0) {
    return InvalidField("emulated.local_bandwidth_bytes_per_s", "is 0", "at least 1");
  }
  if (link.round_trip_ns == 0) return InvalidField("emulated.round_trip_ns", "is 0", "at least 1");
  if (!(link.cliff_floor >= 0 && link.cliff_floor <= 1)) {
    return InvalidField("emulated.cliff_floor", absl::StrCat(link.cliff_floor, " is out of range"), "0 to 1");
  }
  return emulated.has_cxl_link() ? ReadCxlLink(emulated.cxl_link(), &options->device.emulated) : absl::OkStatus();
}

absl::Status ReadAccess(const config::Access& access, DaemonOptions* options) {
  const std::string& mode = access.socket_mode();
  uint32_t bits = 0;
  for (const char c : mode) {
    if (c < '0' || c > '7' || mode.size() > 4) bits = 01000;
    bits = bits * 8 + static_cast<uint32_t>(c - '0');
  }
  if (mode.empty() || bits > 0777 || (bits & 0600) != 0600) {
    return InvalidField("access.socket_mode", absl::StrCat("'", mode, "' is no mode"), "octal, 0600 to 0777");
  }
  options->socket.mode = bits;
  const std::string& group = access.socket_group();
  uint32_t gid = 0;
  if (absl::SimpleAtoi(group, &gid)) {
    options->socket.gid = gid;
  } else if (!group.empty()) {
    const struct group* entry = ::getgrnam(group.c_str());
    if (entry == nullptr)
      return InvalidField("access.socket_group", absl::StrCat("there is no group ", group), "a group");
    options->socket.gid = entry->gr_gid;
  }
  options->allowed_uids.assign(access.allowed_uids().begin(), access.allowed_uids().end());
  return absl::OkStatus();
}

absl::Status ReadLimits(const config::Limits& config, Limits* limits) {
  struct Bound {
    const char* field;
    bool set;
    uint64_t value;
    uint64_t most;
    uint64_t* target;
  };
  const Bound bounds[] = {
      {"max_sessions", config.has_max_sessions(), config.max_sessions(), 65'536, &limits->max_sessions},
      {"max_tensors_per_session", config.has_max_tensors_per_session(), config.max_tensors_per_session(), 100'000'000,
       &limits->max_tensors_per_session},
      {"max_groups_per_session", config.has_max_groups_per_session(), config.max_groups_per_session(), 1'000'000,
       &limits->max_groups_per_session},
      {"max_tickets_per_session", config.has_max_tickets_per_session(), config.max_tickets_per_session(), 65'536,
       &limits->max_tickets_per_session},
      {"max_publications", config.has_max_publications(), config.max_publications(), 1'000'000,
       &limits->max_publications},
      {"max_tensors_per_publication", config.has_max_tensors_per_publication(), config.max_tensors_per_publication(),
       65'536, &limits->max_tensors_per_publication},
      {"max_watchers", config.has_max_watchers(), config.max_watchers(), 4096, &limits->max_watchers},
      {"max_connections", config.has_max_connections(), config.max_connections(), 65'536, &limits->max_connections},
      {"max_move_bytes", config.has_max_move_bytes(), config.max_move_bytes(), uint64_t{1} << 50,
       &limits->max_move_bytes},
  };
  for (const Bound& bound : bounds) {
    if (!bound.set) continue;
    if (bound.value < 1 || bound.value > bound.most) {
      return InvalidField(absl::StrCat("limits.", bound.field), absl::StrCat(bound.value, " is out of range"),
                          absl::StrCat("1 to ", bound.most));
    }
    *bound.target = bound.value;
  }
  return absl::OkStatus();
}

absl::Status ReadCongestion(const config::Congestion& config, congestion::Parameters* parameters) {
  if (config.has_target_bdp()) parameters->target_bdp = config.target_bdp();
  if (config.has_min_window_bytes()) parameters->min_window_bytes = config.min_window_bytes();
  if (config.has_idle_after_us()) parameters->idle_after_ns = config.idle_after_us() * 1000;
  if (config.has_interval_us()) parameters->interval_ns = config.interval_us() * 1000;
  if (!(parameters->target_bdp > 0 && parameters->target_bdp <= 100)) {
    return InvalidField("congestion.target_bdp", absl::StrCat(parameters->target_bdp, " is out of range"),
                        "above 0, at most 100");
  }
  if (parameters->min_window_bytes < 1 || parameters->min_window_bytes > (uint64_t{1} << 30)) {
    return InvalidField("congestion.min_window_bytes", absl::StrCat(parameters->min_window_bytes, " is out of range"),
                        "1 to 2^30");
  }
  if (config.interval_us() > 1'000'000 || parameters->interval_ns < 100'000) {
    return InvalidField("congestion.interval_us", absl::StrCat(config.interval_us(), " is out of range"),
                        "100 to 1000000");
  }
  if (config.idle_after_us() > 3'600'000'000 || parameters->idle_after_ns < 1000) {
    return InvalidField("congestion.idle_after_us", absl::StrCat(config.idle_after_us(), " is out of range"),
                        "1 to 3600000000");
  }
  return absl::OkStatus();
}

absl::Status ReadReplanning(const config::Replanning& config, planner::ReplanPolicy* policy) {
  if (config.has_min_gain()) policy->min_gain = config.min_gain();
  if (config.has_payback_s()) policy->payback_s = config.payback_s();
  if (config.has_min_interval_s()) policy->min_interval_s = config.min_interval_s();
  policy->max_move_bytes = kDefaultMaxMoveBytes;
  if (config.has_max_move()) {
    DAK_ASSIGN_OR_RETURN(policy->max_move_bytes, ParseSize("replanning.max_move", config.max_move()));
  }
  const struct {
    const char* field;
    double value;
    double most;
  } bounds[] = {{"min_gain", policy->min_gain, 1},
                {"payback_s", policy->payback_s, 86'400},
                {"min_interval_s", policy->min_interval_s, 86'400}};
  for (const auto& bound : bounds) {
    if (bound.value >= 0 && bound.value <= bound.most) continue;
    return InvalidField(absl::StrCat("replanning.", bound.field), absl::StrCat(bound.value, " is out of range"),
                        absl::StrCat("0 to ", bound.most));
  }
  return absl::OkStatus();
}

absl::Status ReadTimesAndText(const config::Config& config, DaemonOptions* options) {
  if (config.runtime_dir().empty() || config.runtime_dir()[0] != '/') {
    return InvalidField("runtime_dir", absl::StrCat("'", config.runtime_dir(), "' isn't absolute"), "an absolute path");
  }
  options->runtime_dir = config.runtime_dir();
  if (config.lease_ms() > kMaxMs) {
    return InvalidField("lease_ms", absl::StrCat(config.lease_ms(), " is out of range"), absl::StrCat("0 to ", kMaxMs));
  }
  options->lease_ns = config.lease_ms() * kNsPerMs;
  if (config.shutdown_grace_ms() > kMaxMs) {
    return InvalidField("shutdown_grace_ms", absl::StrCat(config.shutdown_grace_ms(), " is out of range"),
                        absl::StrCat("0 to ", kMaxMs));
  }
  options->shutdown_grace_ns = config.shutdown_grace_ms() * kNsPerMs;
  if (config.metrics_address() != "off") {
    if (config.metrics_address().find(':') == std::string::npos) {
      return InvalidField("metrics_address", absl::StrCat("'", config.metrics_address(), "' has no port"),
                          "host:port, or off");
    }
    options->metrics_address = config.metrics_address();
  }
  const std::string& level = config.log_level();
  for (const char* known : {"trace", "debug", "info", "warn", "error", "off"}) {
    if (level == known) {
      options->log_level = level;
      return absl::OkStatus();
    }
  }
  return InvalidField("log_level", absl::StrCat("'", level, "' is no level"), "trace, debug, info, warn, error or off");
}

}  // namespace

absl::StatusOr<uint64_t> ParseSize(absl::string_view field, absl::string_view text) {
  constexpr absl::string_view kLimit = "a whole number and B, KiB, MiB, GiB or TiB";
  size_t digits = 0;
  while (digits < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[digits]))) ++digits;
  uint64_t number = 0;
  const absl::string_view unit = absl::StripLeadingAsciiWhitespace(text.substr(digits));
  int shift = -1;
  const std::pair<absl::string_view, int> units[] = {{"", 0},     {"B", 0},    {"KiB", 10},
                                                     {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
  for (const auto& [name, bits] : units) {
    if (unit == name) shift = bits;
  }
  if (shift < 0 || !absl::SimpleAtoi(text.substr(0, digits), &number)) {
    return InvalidField(field, absl::StrCat("'", text, "' is no size"), kLimit);
  }
  if (number > (std::numeric_limits<uint64_t>::max() >> shift)) {
    return InvalidField(field, absl::StrCat("'", text, "' is too large"), "less than 2^64 bytes");
  }
  return number << shift;
}

absl::StatusOr<DaemonOptions> OptionsFrom(const config::Config& config) {
  DaemonOptions options;
  DAK_RETURN_IF_ERROR(ReadTimesAndText(config, &options));
  DAK_RETURN_IF_ERROR(ReadPools(config, &options));
  DAK_RETURN_IF_ERROR(ReadDevice(config, &options));
  DAK_RETURN_IF_ERROR(ReadAccess(config.access(), &options));
  DAK_RETURN_IF_ERROR(ReadLimits(config.limits(), &options.limits));
  DAK_RETURN_IF_ERROR(ReadCongestion(config.congestion(), &options.congestion));
  DAK_RETURN_IF_ERROR(ReadReplanning(config.replanning(), &options.replan));
  options.profile = config.profile();
  DAK_RETURN_IF_ERROR(CheckProfileConfig(options.profile));
  return options;
}

uint64_t DefaultCapacity(const std::string& device_kind, Tier tier, uint64_t total_bytes) {
  if (device_kind == "emulated") return total_bytes;
  const uint64_t percent = tier == Tier::kHost ? 75 : 95;
  return total_bytes / 100 * percent;
}

}  // namespace dak::daemon

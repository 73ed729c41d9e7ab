// dakd's configuration, checked: what Daemon is started with.
//
// Thread safety: values and pure functions (LoadConfig reads a file).
// Errors: INVALID_ARGUMENT that names the field as the file writes it ("pools[1].capacity"), the problem and the limit;
// LoadConfig also NOT_FOUND for a file that isn't there, and for text that isn't a Config the line and column.
#ifndef DAK_DAEMON_CONFIG_OPTIONS_H_
#define DAK_DAEMON_CONFIG_OPTIONS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "allocator/device/device.h"
#include "allocator/ledger.h"
#include "daemon/config/config.pb.h"
#include "daemon/congestion/controller.h"
#include "daemon/ipc/unix_listener.h"
#include "daemon/planner/replan.h"
#include "daemon/profile/node_profile.h"
#include "daemon/session/limits.h"
#include "daemon/session/tensor.h"

namespace dak::daemon {

struct DaemonOptions {
  std::string runtime_dir = "/run/dak";
  DeviceOptions device;
  std::array<std::optional<uint64_t>, kTierCount> capacity_bytes;  // not set: DefaultCapacity of the device
  TierArray default_quota_bytes = {kNoLimit, kNoLimit, kNoLimit};
  SocketOptions socket;
  std::vector<uint32_t> allowed_uids;
  Limits limits;
  congestion::Parameters congestion;
  planner::ReplanPolicy replan;
  config::Profile profile;
  ProbeFactory make_probe = kernels::CreateCudaProbe;  // tests have others
  uint64_t lease_ns = 0;
  std::string metrics_address;  // empty: none
  std::string log_level = "info";
  uint64_t shutdown_grace_ns = 2'000'000'000;
};

absl::StatusOr<config::Config> LoadConfig(const std::string& path);
absl::StatusOr<config::Config> ParseConfig(const std::string& text);
// Lays `overrides` over `config`; a pool of an override takes the place of the fields of that tier's pool.
void MergeConfig(const config::Config& overrides, config::Config* config);

absl::StatusOr<DaemonOptions> OptionsFrom(const config::Config& config);

// "512MiB" is 536870912. Units: B, KiB, MiB, GiB, TiB, or none for bytes.
absl::StatusOr<uint64_t> ParseSize(absl::string_view field, absl::string_view text);

// What a pool has where the configuration doesn't say: all of an emulated tier; of a real one 95 % of HBM or CXL
// memory and 75 % of host memory, which others on the node need too.
uint64_t DefaultCapacity(const std::string& device_kind, Tier tier, uint64_t total_bytes);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_CONFIG_OPTIONS_H_

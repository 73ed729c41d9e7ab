// What the planner and the controller take for this machine, and where that comes from.
//
// In this order: a named machine or a file that the configuration gives; on a cuda device what was measured before and
// kept (profile.cache_dir), or what is measured now; else the default, which is the emulated device's own model, or on
// cuda an H100 on PCIe 5. Single values of the configuration override whatever came out.
// Which tier has a link of its own is the device's to say, whatever a file says.
// A measurement that fails never stops the daemon: it is logged, listed in `failures`, and the default is taken.
//
// Thread safety: one call at a time for a device. Errors: INVALID_ARGUMENT that names the field of the configuration.
#ifndef DAK_DAEMON_PROFILE_NODE_PROFILE_H_
#define DAK_DAEMON_PROFILE_NODE_PROFILE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocator/device/device.h"
#include "daemon/config/config.pb.h"
#include "daemon/planner/planner.h"
#include "daemon/profile/measure.h"
#include "kernels/probe.h"

namespace dak::daemon {

inline constexpr double kMeasuringBudgetS = 4;

struct NodeProfile {
  planner::Profile profile;
  std::string source;            // "measured", "configured" or "default"
  uint64_t measured_unix_s = 0;  // 0: not measured
  double measuring_s = 0;        // what the measurement took, whenever it was made
  bool from_cache = false;
  std::vector<std::string> failures;  // "measure: INTERNAL: HBM: ...", one a step that didn't work
};

// Measures a device; what it doesn't measure is `otherwise`'s.
using Measurer = std::function<absl::StatusOr<Measurement>(const DeviceDescription&, const planner::Profile&)>;
// With probes in this process, one after the other: of host memory, and of the cxl tier's where the device has one.
// `make_probe` takes the device's ordinal, and the NUMA node of the memory, -1 for whichever is nearest.
using ProbeFactory = std::function<absl::StatusOr<std::unique_ptr<kernels::Probe>>(int, int)>;
Measurer MeasureWith(ProbeFactory make_probe);

absl::StatusOr<NodeProfile> ObtainProfile(const config::Profile& config, const DeviceDescription& device,
                                          const Measurer& measure);

// Every field checked, for --check-config.
absl::Status CheckProfileConfig(const config::Profile& config);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_PROFILE_NODE_PROFILE_H_

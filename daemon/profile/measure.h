// What a machine's profile is made of, measured: which bytes in flight fill the link, from which on HBM suffers, what
// the kernels reach at each batch.
//
// The policy over kernels::Probe, which times one thing at a time. All or nothing for what the planner and the
// controller can't do without: the rates of HBM, link, copy engine and tensor cores, the round trip, and the knee. What
// is left out where it fails, or where the time is up: the cliff (the default's stays), the rates by batch (none), and
// what large batches' are under a load that lasts (they stay as they are without).
//
// Thread safety: pure but for the probe and the clock. Errors: those of the probe, with what was measured before them;
// INTERNAL for a figure that can't be true.
#ifndef DAK_DAEMON_PROFILE_MEASURE_H_
#define DAK_DAEMON_PROFILE_MEASURE_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/planner/planner.h"
#include "kernels/probe.h"

namespace dak::daemon {

inline constexpr double kKneeShare = 0.97;   // of the link's highest rate
inline constexpr double kCliffShare = 0.95;  // of HBM's rate beside a link that is just full

struct MeasureOptions {
  double budget_s = 4;                   // no measurement starts later
  std::function<double()> seconds_now;   // monotonic
  std::function<void(std::string)> log;  // one line a measurement
};

struct Measurement {
  planner::Profile profile;           // `otherwise`'s where something wasn't measured; its remote tiers
  double seconds = 0;                 // that it took
  std::vector<std::string> left_out;  // "cliff: INTERNAL: ..."
};

// What a path to remote memory does whose probe this is: its rate, round trip and knee, for a tier beside the host's.
// Not its cliff: HBM suffers from what all links bring.
absl::StatusOr<planner::RemoteTier> MeasurePath(kernels::Probe& probe, const std::string& name,
                                                const MeasureOptions& options);

absl::StatusOr<Measurement> MeasureProfile(kernels::Probe& probe, const planner::Profile& otherwise,
                                           const MeasureOptions& options);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_PROFILE_MEASURE_H_

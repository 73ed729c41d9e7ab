// Measuring in a process of its own: a driver that hangs or a kernel that faults there, which would spoil the CUDA
// context of this process for good, costs nothing but the measurement; and what CUDA keeps in HBM goes with it.
//
// Thread safety: any thread; blocks. Errors: UNAVAILABLE if the program can't be started or ends with a failure,
// DEADLINE_EXCEEDED if it was killed because it took too long, INTERNAL for output that is no profile.
#ifndef DAK_DAEMON_PROFILE_CHILD_H_
#define DAK_DAEMON_PROFILE_CHILD_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "allocator/device/device.h"
#include "daemon/profile/measure.h"

namespace dak::daemon {

// Exit code of `dakd --print-profile` where something didn't work; its log says what.
inline constexpr int kExitIncomplete = 3;

// Runs `command` (a path and its arguments), reads the profile that it writes to its standard output as
// `dakd --print-profile` does, and lets its standard error be this process's.
absl::StatusOr<Measurement> MeasureInChild(const std::vector<std::string>& command, double timeout_s);

// The command line with which `program`, a dakd, measures `device` and keeps nothing.
std::vector<std::string> MeasuringCommand(const std::string& program, const DeviceDescription& device);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_PROFILE_CHILD_H_

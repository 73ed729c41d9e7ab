// A measured profile, kept in a file: one a device, in protobuf's text format (config::MeasuredProfile).
//
// A file is good for one device, driver, NUMA node of the cxl tier, and format of the file; the format's number changes
// with what is measured and how. Files are replaced atomically: a reader sees the old one or the new one, whole.
//
// Thread safety: pure but for the file system. Errors: NOT_FOUND if there is no file; FAILED_PRECONDITION if it is
// another device's, driver's, node's or format's; INVALID_ARGUMENT if it isn't such a file at all; what the system says
// when one can't be written (UNAVAILABLE).
#ifndef DAK_DAEMON_PROFILE_CACHE_H_
#define DAK_DAEMON_PROFILE_CACHE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocator/device/device.h"
#include "daemon/config/config.pb.h"

namespace dak::daemon {

// 1 had no links but the host's, in 2 no operation stood between others, and in 3 no load lasted.
inline constexpr uint32_t kProfileFormat = 4;

// "<cache_dir>/profile-<uuid, or the name's letters and digits>.textproto".
std::string ProfilePath(const std::string& cache_dir, const DeviceDescription& device);

absl::StatusOr<config::MeasuredProfile> LoadMeasured(const std::string& path, const DeviceDescription& device);

// Makes the directory if its parent exists. Fills in format and device.
absl::Status StoreMeasured(const std::string& path, const DeviceDescription& device, config::MeasuredProfile measured);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_PROFILE_CACHE_H_

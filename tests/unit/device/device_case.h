// Which devices the conformance suite runs over in this program, and what is true of each.
#ifndef DAK_TESTS_UNIT_DEVICE_DEVICE_CASE_H_
#define DAK_TESTS_UNIT_DEVICE_DEVICE_CASE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "allocator/base/tier.h"
#include "allocator/device/device.h"

namespace dak {

struct DeviceCase {
  std::string name;  // letters, digits and _
  std::function<absl::StatusOr<std::unique_ptr<Device>>()> open;
  std::vector<Tier> tiers;         // that it has
  std::vector<Tier> absent_tiers;  // that it lacks
  // Tiers whose size may be asked for in one piece, to see it refused. Not the host's own memory.
  std::vector<Tier> bounded_tiers;
  // The kind of handle that host and cxl segments have; hbm's is kMemfd on the emulated device only.
  HandleKind remote_kind = HandleKind::kMemfd;
};

// Every program that links the suite defines this.
const std::vector<DeviceCase>& DeviceCases();
// Aborts if there is none of this name.
const DeviceCase& FindDeviceCase(const std::string& name);

}  // namespace dak

#endif  // DAK_TESTS_UNIT_DEVICE_DEVICE_CASE_H_

// Where the device layer reports what it can't return: failures of destructors, and fallbacks that were taken.
//
// Thread safety: all functions may be called from any thread; the hook may be too.
#ifndef DAK_ALLOCATOR_DEVICE_LOG_H_
#define DAK_ALLOCATOR_DEVICE_LOG_H_

#include <string>

namespace dak {

// Gets one line without a newline. Must not throw and must not call back into the device.
using DeviceLogHook = void (*)(const char* message);

// Replaces the hook; null restores the default, which writes to stderr. Returns the one before (null: the default).
DeviceLogHook SetDeviceLogHook(DeviceLogHook hook);

void LogFromDevice(const std::string& message) noexcept;

}  // namespace dak

#endif  // DAK_ALLOCATOR_DEVICE_LOG_H_

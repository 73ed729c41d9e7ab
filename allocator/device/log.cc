#include "allocator/device/log.h"

#include <atomic>
#include <cstdio>

namespace dak {
namespace {

std::atomic<DeviceLogHook> g_hook{nullptr};

}  // namespace

DeviceLogHook SetDeviceLogHook(DeviceLogHook hook) { return g_hook.exchange(hook); }

void LogFromDevice(const std::string& message) noexcept {
  if (DeviceLogHook hook = g_hook.load()) {
    hook(message.c_str());
  } else {
    std::fprintf(stderr, "dak device: %s\n", message.c_str());
  }
}

}  // namespace dak

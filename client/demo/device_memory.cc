#include "client/demo/device_memory.h"

#include <dlfcn.h>

#include <cinttypes>
#include <cstddef>
#include <cstdio>

namespace dak::demo {
namespace {

// The driver's ABI, so that the demo builds without a toolkit: results are ints, 0 is success.
using Init = int (*)(unsigned flags);
using DeviceGet = int (*)(int* device, int ordinal);
using Retain = int (*)(void** context, int device);
using SetCurrent = int (*)(void* context);
using GetInfo = int (*)(size_t* free_bytes, size_t* total_bytes);

template <typename Function>
Function Find(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

}  // namespace

std::optional<uint64_t> FreeDeviceBytes() {
  void* const library = dlopen("libcuda.so.1", RTLD_NOW);
  if (library == nullptr) return std::nullopt;
  const auto init = Find<Init>(library, "cuInit");
  const auto device_get = Find<DeviceGet>(library, "cuDeviceGet");
  const auto retain = Find<Retain>(library, "cuDevicePrimaryCtxRetain");
  const auto set_current = Find<SetCurrent>(library, "cuCtxSetCurrent");
  const auto get_info = Find<GetInfo>(library, "cuMemGetInfo_v2");
  if (init == nullptr || device_get == nullptr || retain == nullptr || set_current == nullptr || get_info == nullptr) {
    return std::nullopt;
  }
  int device = 0;
  void* context = nullptr;
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (init(0) != 0 || device_get(&device, 0) != 0 || retain(&context, device) != 0 || set_current(context) != 0 ||
      get_info(&free_bytes, &total_bytes) != 0) {
    return std::nullopt;
  }
  return free_bytes;
}

int RunMemory() {
  const auto free_bytes = FreeDeviceBytes();
  if (!free_bytes.has_value()) {
    std::printf("failed\n");
    return 1;
  }
  std::printf("free %" PRIu64 "\n", *free_bytes);
  return 0;
}

}  // namespace dak::demo

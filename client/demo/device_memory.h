// What the GPU's driver says is free, to set beside dakd's books.
//
// Asked for in a process of its own (dak-demo memory), because asking takes a context, which holds memory itself.
// Thread safety: none needed. Errors: nothing where there is no driver, or no GPU.
// Source: CUDA Driver API, "Memory Management" (cuMemGetInfo counts what all processes hold).
#ifndef DAK_CLIENT_DEMO_DEVICE_MEMORY_H_
#define DAK_CLIENT_DEMO_DEVICE_MEMORY_H_

#include <cstdint>
#include <optional>

namespace dak::demo {

// Of the first GPU. This process keeps a context on it from then on.
std::optional<uint64_t> FreeDeviceBytes();

// Says "free BYTES" or "failed", and returns the exit code.
int RunMemory();

}  // namespace dak::demo

#endif  // DAK_CLIENT_DEMO_DEVICE_MEMORY_H_

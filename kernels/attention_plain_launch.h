// Decode attention by plain loads: what attention_launch.h is for Hopper. Thread safety and errors are as there.
#ifndef DAK_KERNELS_ATTENTION_PLAIN_LAUNCH_H_
#define DAK_KERNELS_ATTENTION_PLAIN_LAUNCH_H_

#include "kernels/attention_launch.h"

namespace dak::kernels {

// Pages by their addresses instead of maps: local, remote.
struct PlainPools {
  const uint16_t* pools[2] = {};
  uint64_t pages[2] = {};
};

inline constexpr uint32_t kPlainCtasPerSm = 2;  // a plan for a device with so many times its SMs

// Sets the kernels' attributes on the current device. Call once.
cudaError_t PreparePlainAttention();

// Never starts before the launch before it has ended.
cudaError_t LaunchPlainAttention(const AttentionLaunch& launch, const PlainPools& pools, cudaStream_t stream);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_ATTENTION_PLAIN_LAUNCH_H_

// The GEMM for devices without TMA and warpgroup products: architecture 8.0 and up. Correct everywhere, fast nowhere:
// docs/kernels.md says what it gives up. Thread safety and errors as in gemm_launch.h.
#ifndef DAK_KERNELS_GEMM_PLAIN_LAUNCH_H_
#define DAK_KERNELS_GEMM_PLAIN_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/gemm_launch.h"

namespace dak::kernels {

struct PlainLaunch {
  uint32_t batch = 0;  // 1 to kMaxBatch
  uint64_t n = 0;
  uint64_t k = 0;
  uint64_t local_rows = 0;
  bool f16 = false;         // else bf16
  const void* x = nullptr;  // all three multiples of 16
  const void* w_local = nullptr;
  const void* w_remote = nullptr;
  void* y = nullptr;
  DecodeEpilogue epilogue;
  const v1::LinkControl* control = nullptr;  // device addresses, or null
  v1::LinkReport* report = nullptr;
  LinkCounters* link = nullptr;
  uint32_t multiprocessors = 0;
  float ns_per_clock = 1.0f;
};

// Sets the kernels' attributes on the current device. Call once.
cudaError_t PreparePlainGemm();

// Launches of one runner mustn't overlap: no programmatic dependency is made.
cudaError_t LaunchPlainGemm(const PlainLaunch& launch, cudaStream_t stream);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_GEMM_PLAIN_LAUNCH_H_

// The prefill GEMM's CUDA side, in CUDA's own types: gemm_runner.cc wraps it.
//
// Thread safety: LaunchPrefillGemm may be called from any thread; launches that share counters and workspace, decode
// launches among them, must be ordered among themselves on the device. Errors are CUDA's.
#ifndef DAK_KERNELS_PREFILL_LAUNCH_H_
#define DAK_KERNELS_PREFILL_LAUNCH_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/gemm_launch.h"
#include "kernels/prefill_plan.h"

namespace dak::kernels {

// In device memory, zeroed once; a launch leaves them zero.
struct PrefillCounters {
  uint32_t next_item;
  uint32_t finished;                      // clusters that take no more items, and fetchers that are done
  uint64_t fetched[kMaxPrefillFetchers];  // chunks that each has put into the ring, and
  uint64_t carried[kMaxPrefillFetchers];  // whose start and end LinkCounters has
};

// Scratch memory in HBM: the ring through which remote chunks come, kPrefillRingBytes, and a word for each of its slots
// (prefill_remote.cuh), zeroed once. Launches leave all words with nothing to be read.
struct PrefillWorkspace {
  LinkCounters* link = nullptr;
  PrefillCounters* counters = nullptr;
  uint8_t* ring = nullptr;
  uint64_t* slots = nullptr;
};

struct PrefillLaunch {
  uint32_t batch = 0;
  uint64_t n = 0;
  uint64_t k = 0;
  uint64_t local_rows = 0;
  bool f16 = false;           // else bf16
  CUtensorMap x_map{};        // [batch, k], box kPrefillBatchTile x 64
  CUtensorMap w_local_map{};  // box 64 x 64; ignored if the part is empty
  CUtensorMap w_remote_map{};
  CUtensorMap y_map{};     // of y, box 64 x 64, with SwiGLU 64 x 32; ignored without `has_y_map`
  bool has_y_map = false;  // y can only have one where its columns are a multiple of 8, and y of 16 bytes
  void* y = nullptr;
  DecodeEpilogue epilogue;
  const v1::LinkControl* control = nullptr;  // device addresses, or null
  v1::LinkReport* report = nullptr;
  PrefillWorkspace workspace;
  PrefillPlan plan;
  float ns_per_clock = 0.55f;  // of the SMs' clock, until the kernel has measured it
  bool overlap_previous = true;
};

// Sets the kernels' attributes on the current device. Call once.
cudaError_t PreparePrefillGemm();

cudaError_t LaunchPrefillGemm(const PrefillLaunch& launch, cudaStream_t stream);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_PREFILL_LAUNCH_H_

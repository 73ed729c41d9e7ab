// The decode GEMM's CUDA side, in CUDA's own types: gemm_runner.cc wraps it, the bench tunes it.
//
// Thread safety: LaunchDecodeGemm may be called from any thread; launches that share counters and workspace must be
// ordered among themselves on the device. Errors are CUDA's.
#ifndef DAK_KERNELS_GEMM_LAUNCH_H_
#define DAK_KERNELS_GEMM_LAUNCH_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "dak/v1/control_page.h"
#include "kernels/gemm_plan.h"

namespace dak::kernels {

// In device memory, zeroed once; cumulative over the runner's launches, but for the two words in use during one.
struct LinkCounters {
  uint64_t bytes;
  uint64_t round_trip_ns;
  uint64_t round_trips;
  uint64_t inflight_bytes;
  uint64_t inflight_peak_bytes;
  uint64_t passes;
  uint64_t finished_mask;  // remote CTAs of the running launch that are done
};

// Scratch memory in HBM, zeroed once; launches leave its counters zero.
struct DecodeWorkspace {
  LinkCounters* link = nullptr;
  uint32_t* arrivals = nullptr;  // DecodeArrivals(ctas) words
  float* partials = nullptr;     // DecodePartials(ctas) words
};

// Sizes for launches of up to `ctas` CTAs.
constexpr size_t DecodeArrivals(uint32_t ctas) { return size_t{ctas} * 2; }
constexpr size_t DecodePartials(uint32_t ctas) { return size_t{ctas} * 2 * 2 * kBoxRows * kMaxBatch; }

struct DecodeLaunch {
  uint32_t batch = 0;
  uint64_t n = 0;
  uint64_t k = 0;
  uint64_t local_rows = 0;
  bool f16 = false;           // else bf16
  CUtensorMap x_map{};        // [batch, k], box batch_tile / cluster x 64
  CUtensorMap w_local_map{};  // ignored if the part is empty
  CUtensorMap w_remote_map{};
  void* y = nullptr;
  const v1::LinkControl* control = nullptr;  // device addresses, or null
  v1::LinkReport* report = nullptr;
  DecodeWorkspace workspace;
  GemmPlan plan;
  float ns_per_clock = 0.55f;  // of the SMs' clock, until the kernel has measured it
  // Starts while the launch before it in the stream ends. Only W may be read before that one's writes are visible, so
  // false where it writes W.
  bool overlap_previous = true;
};

// Sets the kernels' attributes on the current device and counts the CTAs that clusters can have running. Call once.
cudaError_t PrepareDecodeGemm(DeviceTraits* traits);

cudaError_t LaunchDecodeGemm(const DecodeLaunch& launch, cudaStream_t stream);

// Encodes a row-major [rows, cols] matrix of 16-bit elements at `address` for boxes of box_rows x 64, 128-byte swizzle.
cudaError_t EncodeMatrix(CUtensorMap* map, const void* address, bool f16, uint64_t rows, uint64_t cols,
                         uint32_t box_rows, CUtensorMapL2promotion promotion = CU_TENSOR_MAP_L2_PROMOTION_NONE);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_GEMM_LAUNCH_H_

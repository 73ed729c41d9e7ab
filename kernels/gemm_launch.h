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

// In device memory, zeroed once; the first six are cumulative over the runner's launches.
struct LinkCounters {
  uint64_t bytes;
  uint64_t round_trip_ns;
  uint64_t round_trips;
  uint64_t inflight_bytes;
  uint64_t inflight_peak_bytes;
  uint64_t passes;
  uint64_t link_state;                  // of the last launch with a remote part: link_state.h
  uint64_t arrived_workers;             // the next one's remote CTAs that have seen it: decode_remote.cuh
  alignas(16) uint64_t seen_window[2];  // what a control page last said, for all CTAs: window_reader.cuh
  // Of a launch under way, and 0 between launches: units drawn, and CTAs that drew none any more, of launches with even
  // and odd numbers, since two may read at once; and for each tile that several units make, warps of each of its up
  // to eight parts (16 rows of a half of the columns) that have come to the end of one.
  uint64_t drawn_units[2];
  uint64_t idle_workers[2];
  uint32_t unit_arrivals[kMaxSharedUnits][8];
};

// Scratch memory in HBM. Launches leave it as they found it.
struct DecodeWorkspace {
  LinkCounters* link = nullptr;
  float* shares = nullptr;  // DecodeShares(ctas) words, whose bytes are all kAbsentByte at first
};

inline constexpr int kAbsentByte = 0xFF;

// For launches of up to `ctas` CTAs: 64 rows and the largest batch for each remote unit that has part of a tile, and
// for each of two warpgroups a local CTA.
constexpr size_t DecodeShares(uint32_t ctas) { return (kMaxSharedUnits + size_t{ctas} * 2) * kBoxRows * kMaxBatch; }

// As GemmEpilogue.
struct DecodeEpilogue {
  const void* bias = nullptr;
  const void* residual = nullptr;
  bool swiglu = false;
};

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
  DecodeEpilogue epilogue;
  const v1::LinkControl* control = nullptr;  // device addresses, or null
  v1::LinkReport* report = nullptr;
  DecodeWorkspace workspace;
  GemmPlan plan;
  float ns_per_clock = 0.55f;  // of the SMs' clock, until the kernel has measured it
  // Starts while the launch before it in the stream ends. Only W may be read before that one's writes are visible, so
  // false where it writes W.
  bool overlap_previous = true;
};

// Sets the kernels' attributes on the current device. Call once.
cudaError_t PrepareDecodeGemm();

// CTAs that the current device runs at once in clusters of kClusterCtas; to be called after PrepareDecodeGemm.
cudaError_t CountClusteredCtas(uint32_t* ctas);

cudaError_t LaunchDecodeGemm(const DecodeLaunch& launch, cudaStream_t stream);

// Encodes a row-major [rows, cols] matrix of 16-bit elements at `address` for boxes of box_rows x box_columns (64 with
// the 128-byte swizzle, or 32 with the 64-byte one).
cudaError_t EncodeMatrix(CUtensorMap* map, const void* address, bool f16, uint64_t rows, uint64_t cols,
                         uint32_t box_rows, CUtensorMapL2promotion promotion = CU_TENSOR_MAP_L2_PROMOTION_NONE,
                         uint32_t box_columns = kChunkColumns);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_GEMM_LAUNCH_H_

// What a GPU and its link do, one measurement at a time: what dakd's profile is made of (daemon/profile/).
//
// Needs a GPU that is otherwise idle for figures to mean anything. Every measurement takes some ten milliseconds (a
// GEMM's one and a half times its steady_s more) and returns when it is done. Memory: at most kMostProbeHbmBytes of HBM
// (less where less is free) and kProbeHostBytes of pinned host memory, allocated by CreateCudaProbe and freed with the
// probe.
//
// Rates are those of reads by SMs unless they say otherwise. Bytes in flight are asked for in pieces of
// kProbeChunkBytes, the size of a TMA box of the GEMM.
//
// Thread safety: one thread's at a time. Errors: INTERNAL with the CUDA error's name, after which other measurements
// may still succeed; INVALID_ARGUMENT for what no kernel does.
#ifndef DAK_KERNELS_PROBE_H_
#define DAK_KERNELS_PROBE_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace dak::kernels {

inline constexpr uint64_t kMostProbeHbmBytes = uint64_t{512} << 20;
inline constexpr uint64_t kLeastProbeHbmBytes = uint64_t{128} << 20;  // with less, L2 is a part of what is measured
inline constexpr uint64_t kProbeHostBytes = uint64_t{64} << 20;
inline constexpr uint64_t kProbeChunkBytes = 8192;
inline constexpr uint64_t kMostProbeInflightBytes = uint64_t{8} << 20;

struct ProbeGemm {
  uint32_t batch = 0;
  uint64_t n = 0;
  uint64_t k = 0;
  uint64_t remote_rows = 0;
  uint64_t window_bytes = 0;  // for remote rows
  // If above 0, every other GEMM has so many rows, all in HBM, as the operations of a pass follow others of other sizes
  // and with other kernels.
  uint64_t other_n = 0;
  // If above 0, it is timed, for half as long, after the same has run for so long: until then a GPU's clock may be
  // higher than what its power allows.
  double steady_s = 0;
};

class Probe {
 public:
  virtual ~Probe() = default;

  // HBM, the better of plain loads and bulk copies.
  virtual absl::StatusOr<double> HbmBytesPerS() = 0;
  // Host memory, with `inflight_bytes` (1 to kMostProbeInflightBytes) in flight in all, held by few CTAs, as the GEMM's
  // are; rounded up to whole chunks, equally many a CTA.
  virtual absl::StatusOr<double> LinkBytesPerS(uint64_t inflight_bytes) = 0;
  // HBM's rate left while others read host memory with `inflight_bytes` in flight.
  virtual absl::StatusOr<double> HbmBytesPerSBeside(uint64_t inflight_bytes) = 0;
  // Of one chunk from host memory, nothing else being under way.
  virtual absl::StatusOr<double> RoundTripSeconds() = 0;
  virtual absl::StatusOr<double> CopyEngineBytesPerS(bool to_hbm) = 0;
  // Dense bf16 products of random operands in shared memory: the bound that no GEMM reaches.
  virtual absl::StatusOr<double> FlopsPerS() = 0;
  // Mean time of one GEMM (kernels/gemm.h) of many in a row, bf16. INVALID_ARGUMENT if no kernel takes the batch, or
  // the parts of W don't fit in the probe's memory.
  virtual absl::StatusOr<double> GemmSeconds(const ProbeGemm& gemm) = 0;
};

// NOT_FOUND if this build has no CUDA code, FAILED_PRECONDITION if the device's architecture isn't supported,
// RESOURCE_EXHAUSTED if less than kLeastProbeHbmBytes of HBM is free. "Host memory" above is that of `numa_node`, which
// may be a CXL expander's, or where it is -1 whatever the driver takes; UNAVAILABLE if none can be had there.
absl::StatusOr<std::unique_ptr<Probe>> CreateCudaProbe(int device_ordinal, int numa_node);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_PROBE_H_

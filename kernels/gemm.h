// Direct-access GEMM: y = x W^T, with W split by rows between HBM and a remote tier.
//
// Shapes, row-major without padding:  x [batch, k], W [n, k], y [batch, n]; W's rows [0, local_rows) are in HBM, rows
// [local_rows, n) remote. Products are accumulated in fp32 and rounded once to the element type. Remote tiles go
// straight from the remote tier into shared memory. Up to batch 256 no staging copy is made in HBM; above, where many
// SMs need each tile, it then passes through a ring of 32 MiB, so that each remote byte crosses the link once. The
// bytes that reads have in flight never exceed the window that the control page gives, which may change while the
// kernel runs.
// Source: arXiv 2604.26074, section on direct access; the window is dak's own (docs/congestion.md).
//
// Supported: bf16 and f16; any n >= 1; k a multiple of 8, at least 8; batch 1 to 8192, above 256 with k at most 131,072
// where rows are remote; everything else is refused by CheckGemm, with the reason. Fast on architecture 9.0; on others
// from 8.0 on a plain kernel computes the same.
//
// Ownership: callers own all memory; it must stay valid until the stream has passed the launch.
// Thread safety: CheckGemm and GemmReference are pure; a GemmRunner is one thread's at a time.
// Errors: INVALID_ARGUMENT names the field; INTERNAL with the CUDA error's name.
#ifndef DAK_KERNELS_GEMM_H_
#define DAK_KERNELS_GEMM_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocator/device/device.h"
#include "dak/v1/control_page.h"

namespace dak::kernels {

struct GemmShape {
  uint32_t batch = 0;
  uint64_t n = 0;
  uint64_t k = 0;
  uint64_t local_rows = 0;  // 0 to n
  ElementType element = ElementType::kBf16;
};

// INVALID_ARGUMENT with the field ("k") and the limit ("a multiple of 8") if no kernel computes this shape.
absl::Status CheckGemm(const GemmShape& shape);

// What is done with the sums before they are rounded, once, and stored: y = activation(x W^T + bias) + residual.
//
// kSwiGlu takes gate and up projection from one W, whose rows come in blocks of kSwiGluRows: eight rows of the gate
// projection, then the same eight of the up projection, and so on. y is [batch, n / 2] then:
// y = silu(gate) * up, silu(v) = v / (1 + exp(-v)). Both n and local_rows must be multiples of 2 kSwiGluRows.
// Source: arXiv 2002.05202.
enum class GemmActivation : uint32_t { kNone = 0, kSwiGlu = 1 };
inline constexpr uint64_t kSwiGluRows = 8;

// Addresses of the element type's, multiples of 2; 0 where there is none.
struct GemmEpilogue {
  uint64_t bias = 0;      // [n], in the order of W's rows
  uint64_t residual = 0;  // of y's shape; may be y itself
  GemmActivation activation = GemmActivation::kNone;
};

// Columns of y.
inline uint64_t OutputColumns(uint64_t n, GemmActivation activation) {
  return activation == GemmActivation::kSwiGlu ? n / 2 : n;
}

// Addresses are the device's (on the emulated device, pointers). A part that is empty may have address 0 and no map.
struct GemmOperands {
  uint64_t x = 0;
  uint64_t w_local = 0;
  uint64_t w_remote = 0;
  uint64_t y = 0;
  const TensorMap* w_local_map = nullptr;   // encoded at w_local, box 64 x 128 bytes
  const TensorMap* w_remote_map = nullptr;  // encoded at w_remote, box 64 x 128 bytes
  GemmEpilogue epilogue{};
};

// Where the window comes from and where reads are reported. Both null: unlimited and unreported.
struct LinkView {
  const v1::LinkControl* control = nullptr;  // on CUDA a device address, elsewhere a pointer
  v1::LinkReport* report = nullptr;
};

// Runs GEMMs on one CUDA device's primary context. Holds the device's counters and the scratch memory that launches
// share, so launches allocate nothing and CUDA graphs may capture them.
class GemmRunner {
 public:
  virtual ~GemmRunner() = default;
  // Enqueues one GEMM on `stream` (a CUstream; null is the default stream) and returns at once. Launches of one runner
  // must be ordered among themselves: same stream, or events.
  virtual absl::Status Launch(const GemmShape& shape, const GemmOperands& operands, const LinkView& link,
                              void* stream) = 0;
  // The device address of the counters by which launches keep their windows apart and report; 0 if there are none.
  // Runners of a session's other operations are made with them, and must not outlive this one.
  virtual uint64_t link_counters() const { return 0; }
};

struct GemmRunnerOptions {
  // The plain kernel also where the device has a faster one: to test it. It needs addresses instead of maps.
  bool plain = false;
  // A file of measured choices (kernels/gemm_tuning.h) that go before the model's; empty: none. Read once; a file that
  // is missing or broken is an error. Not for the plain kernel, which has no choices.
  std::string tuning_path{};
};

// NOT_FOUND if this build has no CUDA code, FAILED_PRECONDITION if the device's architecture isn't supported.
absl::StatusOr<std::unique_ptr<GemmRunner>> CreateCudaGemmRunner(int device_ordinal,
                                                                 const GemmRunnerOptions& options = {});

// What the reference's remote reads took, by the link's model.
struct GemmReferenceStats {
  uint64_t remote_bytes = 0;
  uint64_t round_trips = 0;
  double round_trip_ns = 0;     // sum
  double modelled_seconds = 0;  // of the whole operation: the slower of the two sides
  uint64_t inflight_peak_bytes = 0;
};

// The same split on the CPU, in the same tiles, the remote ones through a window of the link's model; pointers are the
// caller's. With `link.control`, the window is read before every tile and neighbours' bytes in flight are counted;
// with `link.report`, reads are reported as they happen. Computes only: sleeps if `real_time`, until the modelled time
// has passed.
absl::StatusOr<GemmReferenceStats> GemmReference(const GemmShape& shape, const GemmOperands& operands,
                                                 const LinkView& link, const LinkModel& model, bool real_time);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_GEMM_H_

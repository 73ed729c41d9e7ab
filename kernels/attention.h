// Direct-access decode attention: out = softmax(scale q K^T) V for one new token a sequence, over a KV cache in pages
// of which each is in HBM or in a remote tier.
//
// Shapes, row-major without padding:  q, out [batch, heads, head_dim]; a pool of pages, one a tier,
// [pages, kv_heads, 2, page_tokens, head_dim], keys before values. So what one KV head has of a page is contiguous, and
// pages of 16 tokens are read 4 to 8 KiB at a time. Query head h belongs to KV head h / (heads / kv_heads):
// grouped-query and multi-query attention; multi-head where the two are equal.
//
// On the device, read anew by every launch, so that CUDA graphs may be replayed while contexts grow:
//   lengths        int32 [batch]             tokens of the sequence's context, the new one's included
//   remote_counts  int32 [batch]             how many of its pages are remote
//   block_table    int32 [batch, max_pages]  its pages, by their numbers in their pools: first the remote_counts[i]
//                                            remote ones, then those in HBM
// A sequence of n tokens has the first ceil(n / page_tokens) entries of its row; the last of them may be part full. A
// sequence without tokens gets zeros. Since a softmax doesn't ask for order, any full page may be remote: it only has
// to be listed among the first. Out of range, lengths and counts are clamped to what the row holds; a page that isn't
// in its pool reads as zeros.
//
// Each remote byte crosses the link once, whatever number of query heads share it. Remote blocks go straight from the
// remote tier into shared memory, and the bytes that they have in flight never exceed the window that the control page
// gives, which may change while the kernel runs. Scores, sums and outputs are fp32 and rounded once.
// Source: arXiv 2604.26074, section on direct access; the split over the context is that of arXiv 2311.01282.
//
// Supported: sm_90a, and with less speed every architecture from 8.0 on; bf16 and f16; heads of 64, 80, 96 and 128; up
// to 64 query heads a KV head; pages of 16 and 64 tokens; batch 1 to 512; contexts up to 131072. Everything else is
// refused by CheckAttention, with the reason.
//
// Ownership: callers own all memory; it must stay valid until the stream has passed the launch.
// Thread safety: CheckAttention and AttentionReference are pure; an AttentionRunner is one thread's at a time.
// Errors: INVALID_ARGUMENT names the field; INTERNAL with the CUDA error's name.
#ifndef DAK_KERNELS_ATTENTION_H_
#define DAK_KERNELS_ATTENTION_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "allocator/device/device.h"
#include "kernels/gemm.h"

namespace dak::kernels {

struct AttentionShape {
  uint32_t batch = 0;
  uint32_t heads = 0;     // of queries
  uint32_t kv_heads = 0;  // a divisor of `heads`
  uint32_t head_dim = 0;
  uint32_t page_tokens = 0;
  uint32_t max_pages = 0;     // a row of the block table
  uint64_t local_pages = 0;   // of the pool in HBM
  uint64_t remote_pages = 0;  // of the remote pool; with 0, remote_counts isn't read
  ElementType element = ElementType::kBf16;
  float scale = 0;  // of q k^T, as 1 / sqrt(head_dim)
};

// INVALID_ARGUMENT with the field ("head_dim") and the limit ("64, 80, 96 or 128") if no kernel computes this shape.
absl::Status CheckAttention(const AttentionShape& shape);

// Addresses are the device's (on the emulated device, pointers). A pool without pages may have address 0.
struct AttentionOperands {
  uint64_t q = 0;
  uint64_t kv_local = 0;
  uint64_t kv_remote = 0;
  uint64_t out = 0;
  uint64_t block_table = 0;
  uint64_t lengths = 0;
  uint64_t remote_counts = 0;
  // A promise that the launch before this one in the stream writes nothing of the lists and of the pools but every
  // sequence's last token: they are then read while that launch ends, which takes microseconds off a short context.
  // What a decode step gives: its lists are made before the first layer, and a layer's launch before appends a token.
  bool context_ready = false;
};

struct AttentionRunnerOptions {
  // What its scratch memory is made for.
  uint32_t max_batch = 512;
  uint32_t max_heads = 64;  // of queries
  // GemmRunner's: both then share the window and the report page of one LinkView, and launches of both must be ordered
  // among themselves. 0: counters of its own.
  uint64_t link_counters = 0;
  // The plain kernel also where the device has a faster one.
  bool plain = false;
};

// Runs attention on one CUDA device's primary context. Holds the device's counters and the scratch memory that launches
// share (2 x max_batch x max_heads rows of 130 floats, and some), so launches allocate nothing and CUDA graphs may
// capture them.
class AttentionRunner {
 public:
  virtual ~AttentionRunner() = default;
  // Enqueues one attention on `stream` (a CUstream; null is the default stream) and returns at once. Launches of one
  // runner must be ordered among themselves: same stream, or events.
  virtual absl::Status Launch(const AttentionShape& shape, const AttentionOperands& operands, const LinkView& link,
                              void* stream) = 0;
};

// NOT_FOUND if this build has no CUDA code, FAILED_PRECONDITION if the device's architecture isn't supported.
absl::StatusOr<std::unique_ptr<AttentionRunner>> CreateCudaAttentionRunner(int device_ordinal,
                                                                           const AttentionRunnerOptions& options);

// What the reference's remote reads took, by the link's model.
using AttentionReferenceStats = GemmReferenceStats;

// The same split on the CPU, in the same blocks of 16 tokens, the remote ones through a window of the link's model;
// pointers are the caller's. Window, report and `real_time` as for GemmReference.
absl::StatusOr<AttentionReferenceStats> AttentionReference(const AttentionShape& shape,
                                                           const AttentionOperands& operands, const LinkView& link,
                                                           const LinkModel& model, bool real_time);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_ATTENTION_H_

// One attention in the bench's memory: pages all over two pools of random elements, and the kernel with any plan.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_ATTENTION_OPERATION_H_
#define DAK_TESTS_BENCH_DAK_BENCH_ATTENTION_OPERATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/attention_launch.h"
#include "tests/bench/dak_bench/operation.h"

namespace dak::bench {

struct AttentionConfig {
  std::string model;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t batch = 0;
  uint32_t context = 0;  // tokens of every sequence, whole pages
  uint32_t page_tokens = 16;
  double ratio = 0;       // of the pages that are remote
  bool in_order = false;  // pages follow one another in their pools, else they lie all over them

  uint64_t page_bytes() const { return uint64_t{kv_heads} * 2 * page_tokens * head_dim * kElementBytes; }
  uint64_t pages() const { return uint64_t{batch} * context / page_tokens; }
  uint64_t remote_pages() const;
  uint64_t bytes() const { return pages() * page_bytes(); }
  uint64_t remote_bytes() const { return remote_pages() * page_bytes(); }
};

// The kernel's workspace, window and report page, and the tables of one configuration: as many copies of different
// pages as there are in `context`'s memory, so that a copy isn't in L2 any more when it comes again.
class AttentionOperation {
 public:
  AttentionOperation(Context& context, const AttentionConfig& config);
  ~AttentionOperation();
  AttentionOperation(const AttentionOperation&) = delete;
  AttentionOperation& operator=(const AttentionOperation&) = delete;

  size_t copies() const { return copies_; }
  kernels::AttentionPlan plan() const { return plan_; }
  void Launch(size_t copy, const kernels::AttentionPlan& plan);
  void SetWindow(uint64_t bytes) { control_->window_bytes = bytes; }
  uint64_t window() const { return control_->window_bytes; }
  // Encodes the pools' maps. Whether L2 fetches 256 bytes where HBM is asked for 128; at first it does.
  void SetPromotion(bool promote_local);
  void SetContextReady(bool ready) { launch_.context_ready = ready; }
  v1::LinkReport report() const { return *report_; }
  // Of copy 0, poisoned before, against float64 on the device.
  double RelativeError(const kernels::AttentionPlan& plan);

 private:
  void MakeTables();

  Context& context_;
  AttentionConfig config_;
  size_t copies_ = 0;
  kernels::AttentionLaunch launch_;
  kernels::AttentionPlan plan_;
  uint8_t* pages_ = nullptr;
  v1::LinkControl* control_ = nullptr;
  v1::LinkReport* report_ = nullptr;
  int32_t* tables_ = nullptr;  // [copies, batch, max_pages]
  int32_t* lengths_ = nullptr;
  int32_t* counts_ = nullptr;
};

// ||out - reference|| / ||reference|| of an attention whose pools are `local` and `remote`, computed in float64 on the
// device; NaN where out is. Waits.
double AttentionError(const kernels::AttentionLaunch& launch, const void* local, const void* remote,
                      cudaStream_t stream);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_ATTENTION_OPERATION_H_

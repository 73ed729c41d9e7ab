// The window that the control page gives, in boxes. The page lies in host memory, so one CTA reads it for all, the
// first that hasn't ended, and leaves in LinkCounters what it saw, and when; others read where that is too old.
// NOTE: reads of the page stand in the way of those of rows. When all CTAs read it every eight pauses, those of the
// next launch as well, which wait on the same SMs, an H100's link gave 14 % less; when one did, 4 %.
#ifndef DAK_KERNELS_WINDOW_READER_CUH_
#define DAK_KERNELS_WINDOW_READER_CUH_

#include <cstdint>

#include "dak/v1/control_page.h"
#include "kernels/gemm_plan.h"
#include "kernels/ptx/memory.h"

namespace dak::kernels {

class WindowReader {
 public:
  static constexpr uint32_t kUnlimited = 0xFFFF;

  template <class Params>
  explicit __device__ WindowReader(const Params& p)
      : control_(p.control),
        seen_(reinterpret_cast<uint4*>(p.workspace.link->seen_window)),
        page_(reinterpret_cast<uint64_t>(p.control) << kBoxesBits >> kBoxesBits) {
    if (control_ != nullptr) Look();
  }

  // Before the first use.
  __device__ void Begin() {
    if (control_ == nullptr || Use()) return;
    const uint64_t ns = ptx::GlobalTimerNs();
    boxes_ = BoxesOf(ptx::LoadRelaxedSys(&control_->window_bytes));
    Leave(boxes_, ns);
  }

  __device__ uint32_t boxes() const { return boxes_; }

  // To be called once a pause. `rank`: how many CTAs read the page before this one does.
  __device__ void Update(uint32_t rank) {
    if (control_ == nullptr) return;
    if (asked_ns_ > 0) {
      if (ptx::GlobalTimerNs() - asked_ns_ < kReadNs) return;
      boxes_ = BoxesOf(asked_);
      Leave(boxes_, asked_ns_);
      asked_ns_ = 0;
    } else {
      Use();
    }
    Look();
    if (Age() < kPatienceNs + min(rank, kMostRank) * kRankNs) return;
    asked_ns_ = ptx::GlobalTimerNs();
    asked_ = ptx::LoadRelaxedSys(&control_->window_bytes);  // and not looked at before kReadNs later
  }

 private:
  static constexpr int kBoxesBits = 16;
  static constexpr uint64_t kReadNs = 7'000;       // of host memory takes less on a link that is held at its window
  static constexpr uint64_t kPatienceNs = 40'000;  // dakd's controller changes windows in milliseconds
  static constexpr uint64_t kRankNs = 20'000;      // those before would have read the page, and left it
  static constexpr uint32_t kMostRank = 2;
  static constexpr uint64_t kOldNs = 100'000;  // no launch begins with a window that is older

  __device__ static uint32_t BoxesOf(uint64_t bytes) {
    const uint64_t boxes = bytes / kBoxBytes;
    return boxes > kUnlimited ? kUnlimited : static_cast<uint32_t>(boxes);
  }

  // Asks for what others have left, to be used in the next pause.
  __device__ void Look() { left_ = ptx::LoadRelaxedGpu(seen_); }

  // Whether others have left a window of this page lately; then it is this CTA's too.
  __device__ bool Use() {
    const uint64_t what = uint64_t{left_.y} << 32 | left_.x;
    if ((what << kBoxesBits >> kBoxesBits) != page_) return false;
    const uint64_t ns = uint64_t{left_.w} << 32 | left_.z;
    if (ns > used_ns_) {
      used_ns_ = ns;
      boxes_ = static_cast<uint32_t>(what >> (64 - kBoxesBits));
    }
    return Age() < kOldNs;
  }

  __device__ uint64_t Age() const {
    const uint64_t now_ns = ptx::GlobalTimerNs();
    return now_ns > used_ns_ ? now_ns - used_ns_ : 0;
  }

  __device__ void Leave(uint32_t boxes, uint64_t ns) {
    used_ns_ = ns;
    const uint64_t what = uint64_t{boxes} << (64 - kBoxesBits) | page_;
    ptx::StoreRelaxedGpu(seen_, make_uint4(static_cast<uint32_t>(what), static_cast<uint32_t>(what >> 32),
                                           static_cast<uint32_t>(ns), static_cast<uint32_t>(ns >> 32)));
  }

  const v1::LinkControl* control_;
  uint4* seen_;
  uint64_t page_;  // its address, which fits in 48 bits
  uint4 left_ = {};
  uint64_t used_ns_ = 0;  // when the page said `boxes_`
  uint64_t asked_ = 0;
  uint64_t asked_ns_ = 0;  // 0: nothing is
  uint32_t boxes_ = kUnlimited;
};

}  // namespace dak::kernels

#endif  // DAK_KERNELS_WINDOW_READER_CUH_

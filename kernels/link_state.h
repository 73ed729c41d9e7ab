// Who may read from the link, and how much of the window: one word that the CTAs of two launches share, and arithmetic
// on it. Pure, so that tests can run it on a CPU; decode_remote.cuh has the kernels' side.
//
// Of `boxes` boxes that the window holds, the i-th of a launch's w workers (its remote CTAs) has boxes / w, and one
// more if i < boxes % w. What a worker gives up at its end goes to the next launch, box by box as its last reads come
// back: that launch reads while this one still does, and the link doesn't idle between them. A word holds, of the
// launch that the link belongs to,
//   bits 0 to 31   the workers that issue no more reads
//   bits 32 to 43  what those have in flight, in boxes, as far as they have said
//   bits 44 to 49  how many workers there are
//   bit 50         whether it hands the link over whole: see below
//   bits 51 to 63  its number, which tells a launch's own state from that of the one before
// It is complete when all issue no more and nothing is in flight. The next launch's workers have what the ended ones
// held and don't any more, cut among them as a window is; that is all of it once the state is complete, and stays so
// when the state becomes theirs. So for one window a worker's share grows only by others' ends, and CTAs that see the
// word at different times never hold more than the window together.
//
// A window of fewer boxes than workers goes, a box each, to the first ones that haven't ended, and the next launch gets
// nothing before the state is complete. A window of 0 is a box, so that an operation ends in it too.
//
// Of a launch that hands the link over whole, workers end when they have nothing in flight, what they held goes to the
// others of that launch, and the next one's workers have nothing until the state is complete.
#ifndef DAK_KERNELS_LINK_STATE_H_
#define DAK_KERNELS_LINK_STATE_H_

#include <cstdint>

#include "kernels/gemm_plan.h"
#include "kernels/host_device.h"

namespace dak::kernels {

class LinkState {
 public:
  // 0 is complete.
  explicit DAK_HOST_DEVICE LinkState(uint64_t word) : word_(word) {}

  // What an atomic addition to the word says: that a worker issues no more, with `boxes` in flight; and that `boxes` of
  // those have come back.
  static DAK_HOST_DEVICE uint64_t End(uint32_t worker, uint32_t boxes) {
    return (uint64_t{1} << worker) + (uint64_t{boxes} << kDrainingShift);
  }
  static DAK_HOST_DEVICE uint64_t Return(uint32_t boxes) { return 0 - (uint64_t{boxes} << kDrainingShift); }

  // A complete state of the launch before launch `launch`.
  static DAK_HOST_DEVICE uint64_t CompleteBefore(uint32_t launch) {
    return uint64_t{(launch - 1) & kLaunchMask} << kLaunchShift;
  }

  // The word of the launch after this state's.
  DAK_HOST_DEVICE uint64_t NextWord(uint32_t workers, bool whole) const {
    return uint64_t{NextLaunch()} << kLaunchShift | (whole ? kWholeBit : 0) | uint64_t{workers} << kWorkersShift;
  }
  DAK_HOST_DEVICE uint32_t NextLaunch() const { return (launch() + 1) & kLaunchMask; }

  DAK_HOST_DEVICE uint64_t word() const { return word_; }
  DAK_HOST_DEVICE uint32_t launch() const { return static_cast<uint32_t>(word_ >> kLaunchShift); }
  DAK_HOST_DEVICE uint32_t workers() const { return static_cast<uint32_t>(word_ >> kWorkersShift) & kWorkersMask; }
  DAK_HOST_DEVICE bool IsComplete() const { return draining() == 0 && Count(ended()) == workers(); }

  // Workers before `worker` that haven't ended.
  DAK_HOST_DEVICE uint32_t UnfinishedBefore(uint32_t worker) const { return Count(~ended() & First(worker)); }

  DAK_HOST_DEVICE bool IsWhole() const { return (word_ & kWholeBit) != 0; }

  // Boxes that worker `worker` of `workers` of launch `launch`, which hasn't ended, may have in flight, of `boxes`, at
  // least 1, of the window. The state is that launch's or the one's before it.
  DAK_HOST_DEVICE uint32_t ShareOf(uint32_t launch, uint32_t worker, uint32_t workers, uint32_t boxes) const {
    if (this->launch() != launch) return Part(IsComplete() ? boxes : GivenUp(boxes), workers, worker);
    const uint32_t before = UnfinishedBefore(worker);
    if (IsWhole()) return Part(boxes, workers - Count(ended()), before);
    if (boxes >= workers) return Part(boxes, workers, worker);
    return before + draining() < boxes ? 1 : 0;
  }

 private:
  static constexpr int kDrainingShift = 32;
  static constexpr int kWorkersShift = 44;
  static constexpr uint64_t kWholeBit = uint64_t{1} << 50;
  static constexpr int kLaunchShift = 51;
  static constexpr uint32_t kDrainingMask = 0xFFF;
  static constexpr uint32_t kWorkersMask = 0x3F;
  static constexpr uint32_t kLaunchMask = 0x1FFF;
  static_assert(kMaxRemoteCtas <= 32);

  static DAK_HOST_DEVICE uint32_t Count(uint32_t mask) {
#if defined(__CUDA_ARCH__)
    return static_cast<uint32_t>(__popc(mask));
#else
    return static_cast<uint32_t>(__builtin_popcount(mask));
#endif
  }
  // The first `count`, below 32, workers.
  static DAK_HOST_DEVICE uint32_t First(uint32_t count) { return (1u << count) - 1; }
  static DAK_HOST_DEVICE uint32_t Part(uint32_t boxes, uint32_t workers, uint32_t worker) {
    return boxes / workers + (worker < boxes % workers ? 1 : 0);
  }

  DAK_HOST_DEVICE uint32_t ended() const { return static_cast<uint32_t>(word_); }
  DAK_HOST_DEVICE uint32_t draining() const { return static_cast<uint32_t>(word_ >> kDrainingShift) & kDrainingMask; }

  // What the ended ones held and don't any more.
  DAK_HOST_DEVICE uint32_t GivenUp(uint32_t boxes) const {
    if (IsWhole() || boxes < workers()) return 0;
    const uint32_t held = Count(ended()) * (boxes / workers()) + Count(ended() & First(boxes % workers()));
    return held > draining() ? held - draining() : 0;
  }

  uint64_t word_;
};

}  // namespace dak::kernels

#endif  // DAK_KERNELS_LINK_STATE_H_

// The remote side of the CPU references: what each read takes by the link's model, with the window full, and when it
// would have ended. Internal to dak_kernels. Thread safety: one thread's; pages are shared by atomics.
#ifndef DAK_KERNELS_REMOTE_READER_H_
#define DAK_KERNELS_REMOTE_READER_H_

#include <chrono>
#include <cstdint>

#include "allocator/device/link_model.h"
#include "kernels/gemm.h"

namespace dak::kernels {

class RemoteReader {
 public:
  // Of `remote_bytes` in all, read `piece_bytes` or less at once: what of a window isn't a whole piece stays unused.
  RemoteReader(const LinkView& link, const LinkModel& model, uint64_t piece_bytes, uint64_t remote_bytes)
      : link_(link), model_(model), piece_bytes_(piece_bytes), left_bytes_(remote_bytes) {}

  // One read of `bytes`, at most a piece.
  void Read(uint64_t bytes);
  // To be called with the local side's bytes, once.
  GemmReferenceStats Finish(uint64_t local_bytes);
  double seconds() const { return seconds_; }

 private:
  const LinkView link_;
  const LinkModel model_;
  const uint64_t piece_bytes_;
  uint64_t left_bytes_;
  LinkResponse response_;
  double seconds_ = 0;
  GemmReferenceStats stats_;
};

// Seconds since it was made.
class ModelClock {
 public:
  explicit ModelClock(bool real_time) : real_time_(real_time), start_(std::chrono::steady_clock::now()) {}
  // Returns at that time; at once unless `real_time`, or where it isn't worth a system call.
  void SleepTo(double seconds) const;

 private:
  const bool real_time_;
  const std::chrono::steady_clock::time_point start_;
};

}  // namespace dak::kernels

#endif  // DAK_KERNELS_REMOTE_READER_H_

// Counts unary calls under way, so that a stop can wait for them and for nothing else: gRPC's own shutdown also waits
// for idle connections, which a client may not close for seconds.
//
// Thread safety: all methods may be called from any thread.
#ifndef DAK_DAEMON_RPC_CALL_GATE_H_
#define DAK_DAEMON_RPC_CALL_GATE_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace dak::daemon {

class CallGate {
 public:
  // False once Drain was called: the call must be refused, and Leave isn't owed.
  bool Enter() {
    absl::MutexLock lock(&mutex_);
    if (draining_) return false;
    ++under_way_;
    return true;
  }
  void Leave() {
    absl::MutexLock lock(&mutex_);
    --under_way_;
  }
  // Lets nobody in any more, and waits until all have left, or for `patience`. False if some haven't.
  bool Drain(absl::Duration patience) {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
    return mutex_.AwaitWithTimeout(absl::Condition(
                                       +[](uint64_t* count) { return *count == 0; }, &under_way_),
                                   patience);
  }

 private:
  absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t under_way_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_CALL_GATE_H_

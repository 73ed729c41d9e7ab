// Shows ThreadSanitizer what Abseil's mutexes order. Linked into every program of a tsan build, and into no other.
//
// The distribution's Abseil isn't instrumented: ThreadSanitizer sees neither its atomics nor its futexes, so everything
// guarded by an absl::Mutex would be reported as a race. These definitions stand before Abseil's own, for our code and
// for the libraries that use it (gRPC locks with absl::Mutex too); each calls the one behind it and says which memory
// it acquires or releases. A real lack of locking is still found: nothing is suppressed.
//
// Order of locks isn't checked here; Abseil does that itself in debug builds.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

#pragma GCC diagnostic ignored "-Wpmf-conversions"

namespace {

// The definition that `self`, one of this file, stands before. Its name is asked for rather than written down: Abseil's
// namespace differs from one distribution to the next.
void* Behind(void* self) {
  Dl_info info;
  if (dladdr(self, &info) == 0 || info.dli_saddr != self) {
    std::fprintf(stderr, "tsan_absl: a wrapper isn't exported: link with -rdynamic\n");
    std::abort();
  }
  void* behind = dlsym(RTLD_NEXT, info.dli_sname);
  if (behind == nullptr) {
    std::fprintf(stderr, "tsan_absl: no %s in a shared library\n", info.dli_sname);
    std::abort();
  }
  return behind;
}

// Methods are called through plain functions that take `this` first, as the ABI has it.
template <typename Result, typename... Args>
using Function = Result (*)(Args...);

// A condition is evaluated by whoever holds the mutex at the time, which needn't be the thread that waits.
struct GuardedCondition {
  absl::Mutex* mutex;
  const absl::Condition* condition;

  static bool Eval(GuardedCondition* self) {
    __tsan_acquire(self->mutex);
    const bool result = self->condition->Eval();
    __tsan_release(self->mutex);
    return result;
  }
};

}  // namespace

#define DAK_BEHIND(method, Result, ...)               \
  static const Function<Result, __VA_ARGS__> behind = \
      reinterpret_cast<Function<Result, __VA_ARGS__>>(Behind(reinterpret_cast<void*>(&method)))

#define DAK_LOCK(Name)                     \
  void Mutex::Name() {                     \
    DAK_BEHIND(Mutex::Name, void, Mutex*); \
    behind(this);                          \
    __tsan_acquire(this);                  \
  }

#define DAK_UNLOCK(Name)                   \
  void Mutex::Name() {                     \
    DAK_BEHIND(Mutex::Name, void, Mutex*); \
    __tsan_release(this);                  \
    behind(this);                          \
  }

#define DAK_TRY_LOCK(Name)                 \
  bool Mutex::Name() {                     \
    DAK_BEHIND(Mutex::Name, bool, Mutex*); \
    const bool locked = behind(this);      \
    if (locked) __tsan_acquire(this);      \
    return locked;                         \
  }

// `held`: whether the wait begins with the mutex held, and so releases it first.
#define DAK_WAIT(Name, held)                                  \
  void Mutex::Name(const Condition& condition) {              \
    DAK_BEHIND(Mutex::Name, void, Mutex*, const Condition&);  \
    GuardedCondition guarded{this, &condition};               \
    const Condition shown(&GuardedCondition::Eval, &guarded); \
    __tsan_release(const_cast<Condition*>(&shown));           \
    if (held) __tsan_release(this);                           \
    behind(this, shown);                                      \
    __tsan_acquire(this);                                     \
  }

#define DAK_WAIT_UNTIL(Name, held, Limit)                           \
  bool Mutex::Name(const Condition& condition, Limit limit) {       \
    DAK_BEHIND(Mutex::Name, bool, Mutex*, const Condition&, Limit); \
    GuardedCondition guarded{this, &condition};                     \
    const Condition shown(&GuardedCondition::Eval, &guarded);       \
    __tsan_release(const_cast<Condition*>(&shown));                 \
    if (held) __tsan_release(this);                                 \
    const bool met = behind(this, shown, limit);                    \
    __tsan_acquire(this);                                           \
    return met;                                                     \
  }

namespace absl {
ABSL_NAMESPACE_BEGIN

DAK_LOCK(Lock)
DAK_LOCK(ReaderLock)
DAK_UNLOCK(Unlock)
DAK_UNLOCK(ReaderUnlock)
DAK_TRY_LOCK(TryLock)
DAK_TRY_LOCK(ReaderTryLock)
DAK_WAIT(Await, true)
DAK_WAIT(LockWhen, false)
DAK_WAIT(ReaderLockWhen, false)
DAK_WAIT_UNTIL(AwaitWithTimeout, true, Duration)
DAK_WAIT_UNTIL(AwaitWithDeadline, true, Time)
DAK_WAIT_UNTIL(LockWhenWithTimeout, false, Duration)
DAK_WAIT_UNTIL(LockWhenWithDeadline, false, Time)
DAK_WAIT_UNTIL(ReaderLockWhenWithTimeout, false, Duration)
DAK_WAIT_UNTIL(ReaderLockWhenWithDeadline, false, Time)

bool Condition::Eval() const {
  DAK_BEHIND(Condition::Eval, bool, const Condition*);
  __tsan_acquire(const_cast<Condition*>(this));
  return behind(this);
}

void CondVar::Wait(Mutex* mutex) {
  DAK_BEHIND(CondVar::Wait, void, CondVar*, Mutex*);
  __tsan_release(mutex);
  behind(this, mutex);
  __tsan_acquire(mutex);
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration timeout) {
  DAK_BEHIND(CondVar::WaitWithTimeout, bool, CondVar*, Mutex*, Duration);
  __tsan_release(mutex);
  const bool timed_out = behind(this, mutex, timeout);
  __tsan_acquire(mutex);
  return timed_out;
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time deadline) {
  DAK_BEHIND(CondVar::WaitWithDeadline, bool, CondVar*, Mutex*, Time);
  __tsan_release(mutex);
  const bool timed_out = behind(this, mutex, deadline);
  __tsan_acquire(mutex);
  return timed_out;
}

// HasBeenNotified is inline, so instrumented: it loads the flag, whose store happens in the library.
void Notification::Notify() {
  DAK_BEHIND(Notification::Notify, void, Notification*);
  __tsan_release(&notified_yet_);
  behind(this);
}

void Notification::WaitForNotification() const {
  DAK_BEHIND(Notification::WaitForNotification, void, const Notification*);
  behind(this);
  __tsan_acquire(const_cast<std::atomic<bool>*>(&notified_yet_));
}

bool Notification::WaitForNotificationWithTimeout(Duration timeout) const {
  DAK_BEHIND(Notification::WaitForNotificationWithTimeout, bool, const Notification*, Duration);
  const bool notified = behind(this, timeout);
  if (notified) __tsan_acquire(const_cast<std::atomic<bool>*>(&notified_yet_));
  return notified;
}

bool Notification::WaitForNotificationWithDeadline(Time deadline) const {
  DAK_BEHIND(Notification::WaitForNotificationWithDeadline, bool, const Notification*, Time);
  const bool notified = behind(this, deadline);
  if (notified) __tsan_acquire(const_cast<std::atomic<bool>*>(&notified_yet_));
  return notified;
}

ABSL_NAMESPACE_END
}  // namespace absl

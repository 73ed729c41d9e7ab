// The time that this thread has been on a core: what a bench of plain computation should count where other work shares
// the machine. Reading it is a system call: time batches, not single operations.
#ifndef DAK_TESTS_BENCH_CPU_CLOCK_H_
#define DAK_TESTS_BENCH_CPU_CLOCK_H_

#include <time.h>

namespace dak::bench {

inline double ThreadSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_CPU_CLOCK_H_

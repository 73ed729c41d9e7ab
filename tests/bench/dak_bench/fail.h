// A bench ends at the first error: there is nothing to measure after one.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_FAIL_H_
#define DAK_TESTS_BENCH_DAK_BENCH_FAIL_H_

#include <cstdio>
#include <cstdlib>

namespace dak::bench {

[[noreturn]] inline void Fail(const char* what, const char* why) {
  std::fprintf(stderr, "dak-bench: %s: %s\n", what, why);
  std::exit(1);
}

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_FAIL_H_

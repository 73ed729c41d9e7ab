// One process of `dak-bench neighbours`, driven over its standard input and output, one line each way:
//
//   (start)        ready MULTIPROCESSORS         operands made, one batch's numbers checked
//   run SECONDS    began NS ... ended NS         works until then, or until the next line comes
//   dump           samples T BYTES WINDOW ...    since the last dump, a sample a millisecond while it worked
//   quit           (ends with code 0)            the last batch's numbers checked again
//
// Anything that fails is said as "failed TEXT", and ends it with code 1.
#ifndef DAK_TESTS_BENCH_NEIGHBOURS_WORKER_H_
#define DAK_TESTS_BENCH_NEIGHBOURS_WORKER_H_

#include "tests/bench/neighbours/options.h"

namespace dak::bench {

// The exit code.
int RunWorker(const NeighboursOptions& options);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_NEIGHBOURS_WORKER_H_

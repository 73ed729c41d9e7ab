// What a process of `dak-bench neighbours` keeps the device busy with.
//
//   remote  GEMMs through libdak whose weights are all remote, within the window of the session's control page
//   hbm     GEMMs through libdak whose weights are all in HBM
//   stream  bulk copies from HBM into shared memory, in a process that dakd knows nothing of: as dakd's profile
//           measures HBM's rate; CUDA only
//   crowd   nothing, in many sessions that are open
//   idle    CTAs that hold an SM each and read nothing (on the emulated device: nothing at all)
//   flood   dak's remote reads in as many CTAs as asked for, under a window of the process's own or none, in a process
//           that dakd knows nothing of; CUDA only
//
// Ownership: a load owns its session or memory. Thread safety: Now may be called from another thread while RunBatch
// runs. Errors: as text for people; empty is success.
#ifndef DAK_TESTS_BENCH_NEIGHBOURS_LOAD_H_
#define DAK_TESTS_BENCH_NEIGHBOURS_LOAD_H_

#include <memory>
#include <string>

#include "tests/bench/neighbours/options.h"
#include "tests/bench/neighbours/series.h"

namespace dak::bench {

inline constexpr int kCrowd = 60;  // sessions of a crowd

class Load {
 public:
  virtual ~Load() = default;
  // Makes and fills the operands.
  virtual std::string Prepare() = 0;
  // Some milliseconds of work, waited for.
  virtual std::string RunBatch() = 0;
  // Compares the last result with a reference; what is wrong about it.
  virtual std::string Check() = 0;
  // Bytes read so far.
  virtual Sample Now() = 0;
};

std::unique_ptr<Load> CreateSessionLoad(const NeighboursOptions& options);
// Null where this build has no CUDA code.
std::unique_ptr<Load> CreateGpuLoad(const NeighboursOptions& options);
// SMs that this process may use, which MPS limits; 0 where there is no CUDA device.
uint32_t VisibleMultiprocessors();

int64_t NowNs();

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_NEIGHBOURS_LOAD_H_

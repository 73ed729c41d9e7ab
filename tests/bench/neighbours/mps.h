// NVIDIA's Multi-Process Service, started for one bench and stopped after it, in directories of its own.
//
// Thread safety: none. Errors: as text; a machine without MPS has none.
#ifndef DAK_TESTS_BENCH_NEIGHBOURS_MPS_H_
#define DAK_TESTS_BENCH_NEIGHBOURS_MPS_H_

#include <string>

#include "client/demo/child_process.h"

namespace dak::bench {

class Mps {
 public:
  // Below `directory`, which must be short: MPS puts sockets there.
  explicit Mps(std::string directory) : directory_(std::move(directory)) {}
  ~Mps() { Stop(); }
  Mps(const Mps&) = delete;
  Mps& operator=(const Mps&) = delete;

  // Empty, or why it doesn't run.
  std::string Start();
  void Stop();
  bool running() const { return running_; }
  // What makes a process a client of it; `sm_percent` of the SMs at most, 0: all.
  demo::ChildProcess::Environment ClientEnvironment(int sm_percent) const;

 private:
  const std::string directory_;
  std::string control_;
  bool running_ = false;
};

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_NEIGHBOURS_MPS_H_

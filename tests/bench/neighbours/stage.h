// What the experiments of `dak-bench neighbours` are played on: a dakd, perhaps MPS, and processes that start and stop.
//
// Every process says what it read, a sample a millisecond; the stage itself asks dakd what its controller sees.
// Thread safety: none; one thread's. Errors: a process that fails, or a daemon that doesn't start, ends the program
// with a message and code 1, and everything that was started with it.
#ifndef DAK_TESTS_BENCH_NEIGHBOURS_STAGE_H_
#define DAK_TESTS_BENCH_NEIGHBOURS_STAGE_H_

#include <memory>
#include <string>
#include <vector>

#include "client/demo/child_process.h"
#include "dak/v1/node.grpc.pb.h"
#include "tests/bench/neighbours/mps.h"
#include "tests/bench/neighbours/options.h"
#include "tests/bench/neighbours/series.h"

namespace dak::bench {

[[noreturn]] void Die(const std::string& text);

struct Part {
  std::string role;
  std::string name;
  uint32_t weight = 100;
  uint32_t ctas = 0;
  uint64_t window_bytes = 0;
  int sm_percent = 0;  // under MPS
};

struct Player {
  Part part;
  std::unique_ptr<demo::ChildProcess> process;
  int multiprocessors = 0;
  Series series;
};

// One look at the controller.
struct Observation {
  int64_t time_ns = 0;
  uint64_t target_bytes = 0;
  int64_t loop_cpu_ns = 0;  // that dakd's congestion loop has had of a core so far; 0 where that can't be read
  struct Session {
    std::string name;
    uint64_t window_bytes = 0;
    uint64_t round_trip_ns = 0;
    bool violating = false;
  };
  std::vector<Session> sessions;
};

class Stage {
 public:
  explicit Stage(NeighboursOptions options);
  ~Stage();
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  // Empty, or why there is no MPS here.
  std::string StartMps() { return mps_.Start(); }
  void StopMps() { mps_.Stop(); }
  bool under_mps() const { return mps_.running(); }

  // `controlled`: with the controller's windows, whose target is SetTarget's; else with such that bind nothing.
  void StartDaemon(bool controlled);
  // In bandwidth-delay products; 0: dakd's own.
  void SetTarget(double target_bdp) { target_bdp_ = target_bdp; }
  double target_bdp() const { return target_bdp_; }
  void StopDaemon();
  const std::string& device_kind() const { return device_kind_; }
  const std::string& device_name() const { return device_name_; }

  // Starts processes and returns when all are ready.
  std::vector<std::unique_ptr<Player>> Cast(const std::vector<Part>& parts);
  // The time at which it began or ended to work.
  int64_t Start(Player& player);
  int64_t Stop(Player& player);
  // Takes what it read so far.
  void Collect(Player& player);
  // Ends them, which checks their numbers once more.
  void Dismiss(const std::vector<std::unique_ptr<Player>>& players);

  // Lets time pass, watching. `ask`: dakd, too; else only what its loop takes of a core, which asking would add to.
  void Hold(double seconds, bool ask = true);
  const std::vector<Observation>& observations() const { return observations_; }
  void Forget() { observations_.clear(); }

 private:
  std::string DaemonConfig(bool controlled) const;
  std::string Await(Player& player, const std::string& word);
  void Observe(bool ask);
  int64_t LoopCpuNs() const;

  const NeighboursOptions options_;
  std::string directory_;
  Mps mps_;
  std::unique_ptr<demo::ChildProcess> daemon_;
  std::string loop_thread_;
  std::unique_ptr<v1::NodeService::Stub> node_;
  std::string device_kind_;
  std::string device_name_;
  double target_bdp_ = 0;
  std::vector<Observation> observations_;
};

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_NEIGHBOURS_STAGE_H_

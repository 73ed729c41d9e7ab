// The demo's course: start dakd and two workers, watch, kill one, scrape, stop, sum up.
//
// Every step that shows something also checks it; a check that fails doesn't end the demo, but its exit code is 1.
// Thread safety: none; one demo a process.
#ifndef DAK_CLIENT_DEMO_DEMO_H_
#define DAK_CLIENT_DEMO_DEMO_H_

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/demo/child_process.h"
#include "client/demo/node_client.h"
#include "client/demo/options.h"
#include "client/demo/table.h"

namespace dak::demo {

class Demo {
 public:
  explicit Demo(Options options);
  ~Demo();
  Demo(const Demo&) = delete;
  Demo& operator=(const Demo&) = delete;

  // The program's exit code.
  int Run();

 private:
  struct Worker {
    std::string name;
    uint32_t weight = 0;
    std::unique_ptr<ChildProcess> process;
    double hbm_share = 0;
    uint64_t passes = 0;
    uint64_t checked = 0;
    double worst_error = 0;
    std::string failure;
    // At the last row of the table.
    uint64_t passes_before = 0;
    uint64_t remote_before = 0;
  };
  struct Check {
    std::string what;
    bool passed = false;
    std::string detail;
  };

  bool StartDaemon();
  bool StartWorkers();
  void ShowPools();  // by dakctl
  void Watch(double seconds);
  void ShowTable();
  void KillOne();
  // SIGKILL, and a check that all sessions together then hold `left_bytes`.
  void Kill(Worker& victim, uint64_t left_bytes);
  void Scrape();
  void StopOther();
  void KillOther();
  void CheckPoolsEmpty();
  void StopDaemon();
  int SumUp();

  void Expect(bool passed, const std::string& what, const std::string& detail);
  void ReadStats();
  void ReadLine(Worker& worker, const std::string& line);
  // Whether every worker has had a pass checked, or never will.
  bool AllChecked() const;
  // Bytes that sessions hold, all tiers; the most that there is if dakd doesn't answer.
  uint64_t HeldBytes();
  // What the driver says is free; nothing on the emulated device, which has none.
  std::optional<uint64_t> AskDriver() const;
  std::string OwnPath() const;
  std::string DaemonConfig() const;
  double Elapsed() const;

  Options options_;
  std::string runtime_dir_;
  std::unique_ptr<ChildProcess> daemon_;
  std::unique_ptr<NodeClient> node_;
  std::string device_kind_;
  std::string metrics_address_;
  std::optional<uint64_t> free_before_bytes_;  // before the first client, by the driver
  std::vector<std::unique_ptr<Worker>> workers_;
  Table table_;
  std::vector<Check> checks_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_row_;
};

}  // namespace dak::demo

#endif  // DAK_CLIENT_DEMO_DEMO_H_

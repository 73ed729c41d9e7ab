// A daemon in this process, on a directory of its own, over an emulated device that can be told to fail.
#ifndef DAK_TESTS_UNIT_DAEMON_TEST_DAEMON_H_
#define DAK_TESTS_UNIT_DAEMON_TEST_DAEMON_H_

#include <functional>
#include <memory>
#include <string>

#include "allocator/device/emulated_device.h"
#include "allocator/device/testing/faulting_device.h"
#include "daemon/daemon.h"
#include "tests/unit/daemon/gate_device.h"

namespace dak::daemon {

// A directory that is removed with everything in it.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

constexpr uint64_t kMiB = uint64_t{1} << 20;

class TestDaemon {
 public:
  // hbm 64 MiB, host 128 MiB, no cxl, metrics off; `adjust` may change that.
  explicit TestDaemon(const std::function<void(DaemonOptions*)>& adjust = [](DaemonOptions*) {});

  Daemon& operator*() { return *daemon_; }
  Daemon* operator->() { return daemon_.get(); }
  const DaemonOptions& options() const { return options_; }
  FaultingDevice& device() { return *device_; }
  Gate& gate() { return gate_; }
  // Bytes that live segments hold, by the device's own count.
  TierArray DeviceUsage() const;
  // Bytes that sessions or publications hold, by the ledger's.
  TierArray LedgerUsage() const;
  void Stop() { daemon_->Stop(); }

 private:
  TempDir directory_;
  Gate gate_;
  DaemonOptions options_;
  FaultingDevice* device_ = nullptr;    // the daemon's
  EmulatedDevice* emulated_ = nullptr;  // the same
  std::unique_ptr<Daemon> daemon_;
};

// Polls until `condition` holds; false after 5 s.
bool WaitUntil(const std::function<bool()>& condition);

}  // namespace dak::daemon

#endif  // DAK_TESTS_UNIT_DAEMON_TEST_DAEMON_H_

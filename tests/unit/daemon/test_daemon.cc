#include "tests/unit/daemon/test_daemon.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <thread>
#include <utility>

namespace dak::daemon {

TempDir::TempDir() {
  std::string path = (std::filesystem::temp_directory_path() / "dak-test-XXXXXX").string();
  if (::mkdtemp(path.data()) == nullptr) ADD_FAILURE() << "mkdtemp failed";
  // Other users' processes, as some tests fork them, must get through to the sockets.
  std::filesystem::permissions(path, std::filesystem::perms(0755));
  path_ = path;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

TestDaemon::TestDaemon(const std::function<void(DaemonOptions*)>& adjust) {
  options_.runtime_dir = directory_.path();
  options_.device.kind = DeviceOptions::Kind::kEmulated;
  options_.device.emulated.tier_bytes = {64 * kMiB, 128 * kMiB, 0};
  adjust(&options_);
  auto emulated = std::make_unique<EmulatedDevice>(options_.device.emulated);
  emulated_ = emulated.get();
  auto device = std::make_unique<FaultingDevice>(std::make_unique<GateDevice>(std::move(emulated), &gate_));
  device_ = device.get();
  auto daemon = Daemon::Start(options_, std::move(device));
  if (!daemon.ok()) {
    ADD_FAILURE() << daemon.status();
    ::abort();
  }
  daemon_ = *std::move(daemon);
}

TierArray TestDaemon::DeviceUsage() const {
  TierArray usage{};
  for (const Tier tier : kAllTiers) usage[TierIndex(tier)] = emulated_->used_bytes(tier);
  return usage;
}

TierArray TestDaemon::LedgerUsage() const {
  TierArray usage{};
  for (const Ledger::PoolUsage& pool : daemon_->ledger().Pools()) {
    usage[TierIndex(pool.tier)] = pool.session_bytes + pool.published_bytes;
  }
  return usage;
}

bool WaitUntil(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace dak::daemon

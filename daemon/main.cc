// dakd: see daemon/daemon.h for what it does, daemon/config for its flags.
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "daemon/config/command_line.h"
#include "daemon/daemon.h"
#include "daemon/notify.h"
#include "daemon/planner/profile_file.h"

namespace {

using dak::daemon::CommandLine;

absl::StatusOr<dak::daemon::DaemonOptions> OptionsOf(const CommandLine& line) {
  dak::config::Config config;
  if (!line.config_path.empty()) {
    DAK_ASSIGN_OR_RETURN(config, dak::daemon::LoadConfig(line.config_path));
  }
  dak::daemon::MergeConfig(line.overrides, &config);
  return dak::daemon::OptionsFrom(config);
}

// Blocked before any thread exists, so that every thread inherits the mask and only the wait below sees them.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigset_t blocked = signals;
  sigaddset(&blocked, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  return signals;
}

int WaitForSignal(const sigset_t& signals) {
  const uint64_t interval_ns = dak::daemon::WatchdogIntervalNs();
  const timespec interval = {.tv_sec = static_cast<time_t>(interval_ns / 1'000'000'000),
                             .tv_nsec = static_cast<long>(interval_ns % 1'000'000'000)};
  while (true) {
    const int signal = interval_ns == 0 ? sigwaitinfo(&signals, nullptr) : sigtimedwait(&signals, nullptr, &interval);
    if (signal > 0) return signal;
    if (errno == EAGAIN) dak::daemon::NotifyWatchdog();
  }
}

absl::Status Run(const dak::daemon::DaemonOptions& options, const sigset_t& signals) {
  DAK_ASSIGN_OR_RETURN(std::unique_ptr<dak::Device> device, dak::OpenDevice(options.device));
  const std::string name = device->description().name;
  DAK_ASSIGN_OR_RETURN(auto daemon, dak::daemon::Daemon::Start(options, std::move(device)));
  for (const dak::Ledger::PoolUsage& pool : daemon->ledger().Pools()) {
    spdlog::info("pool {}: {} MiB", dak::TierName(pool.tier), pool.capacity_bytes >> 20);
  }
  const std::string metrics = daemon->metrics_address();
  spdlog::info("dakd {} serves {} in {}, metrics {}", dak::daemon::Version(), name, options.runtime_dir,
               metrics.empty() ? "off" : "at " + metrics);
  dak::daemon::NotifyReady();
  const int signal = WaitForSignal(signals);
  dak::daemon::NotifyStopping();
  spdlog::info("stopping on signal {}", signal);
  daemon->Stop();
  return absl::OkStatus();
}

absl::Status PrintProfile(const dak::daemon::DaemonOptions& options) {
  DAK_ASSIGN_OR_RETURN(const std::unique_ptr<dak::Device> device, dak::OpenDevice(options.device));
  DAK_ASSIGN_OR_RETURN(const dak::daemon::NodeProfile node,
                       dak::daemon::ObtainProfile(options.profile, device->description(), options.make_probe));
  spdlog::info("profile: {}", node.source);
  std::fputs(dak::planner::FormatProfile(node.profile).c_str(), stdout);
  return absl::OkStatus();
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "dakd: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

}  // namespace

int main(int argc, char** argv) {
#ifdef NDEBUG
  // NOTE: Debian builds Abseil without NDEBUG, so every lock of this process, gRPC's too, would look for cycles, and
  // end it where it finds one (seen with 20220623).
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  const sigset_t signals = BlockSignals();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const absl::StatusOr<CommandLine> line = dak::daemon::ParseCommandLine(arguments);
  if (!line.ok()) return Fail(line.status());
  if (line->mode == CommandLine::Mode::kHelp) {
    std::fputs(dak::daemon::HelpText().c_str(), stdout);
    return 0;
  }
  if (line->mode == CommandLine::Mode::kVersion) {
    std::printf("dakd %s\n", dak::daemon::Version());
    return 0;
  }
  const auto options = OptionsOf(*line);
  if (!options.ok()) return Fail(options.status());
  if (line->mode == CommandLine::Mode::kCheckConfig) {
    std::puts("dakd: the configuration is good");
    return 0;
  }
  const bool print = line->mode == CommandLine::Mode::kPrintProfile;
  // Standard output is for the profile alone then.
  if (print) spdlog::set_default_logger(spdlog::stderr_logger_mt("dakd"));
  spdlog::set_level(spdlog::level::from_str(options->log_level));
  const absl::Status status = print ? PrintProfile(*options) : Run(*options, signals);
  return status.ok() ? 0 : Fail(status);
}

#include "client/demo/demo.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "client/demo/daemon_launcher.h"
#include "client/demo/model.h"

namespace dak::demo {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kDaemonPatience = std::chrono::seconds(60);
constexpr auto kLoadPatience = std::chrono::seconds(120);
constexpr auto kRowInterval = std::chrono::seconds(1);
constexpr double kAloneSeconds = 2;           // that the surviving worker is watched
constexpr double kCheckPatienceSeconds = 60;  // on top, for a first checked pass on a machine that is busy
// Long enough to tell "late" from "never"; the aim is 100 ms. A GPU's driver takes its time to end a process.
constexpr double kReclaimMs = 250;
constexpr double kReclaimCudaMs = 5000;

std::atomic<bool> g_interrupted{false};

void OnInterrupt(int) { g_interrupted = true; }

const char* TierText(v1::Tier tier) { return tier == v1::TIER_HBM ? "hbm" : tier == v1::TIER_HOST ? "host" : "cxl"; }

// Rounds as a person would write it: "3.1 ms".
std::string Number(double value, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.3g %s", value, unit);
  return text;
}

}  // namespace

Demo::Demo(Options options)
    : options_(std::move(options)), table_(isatty(STDOUT_FILENO) != 0), start_(Clock::now()), last_row_(start_) {
  const std::string beside = OwnDirectory() + "/";
  if (options_.dakd.empty()) options_.dakd = beside + "dakd";
  if (options_.dakctl.empty()) options_.dakctl = beside + "dakctl";
}

Demo::~Demo() {
  workers_.clear();
  daemon_.reset();
  std::error_code ignored;
  if (!runtime_dir_.empty()) std::filesystem::remove_all(runtime_dir_, ignored);
}

int Demo::Run() {
  signal(SIGINT, OnInterrupt);
  signal(SIGPIPE, SIG_IGN);
  if (!StartDaemon() || !StartWorkers()) return SumUp();
  ShowPools();
  std::printf("\nBoth sessions at work:\n");
  Watch(options_.seconds);
  KillOne();
  Watch(kAloneSeconds);
  Scrape();
  if (options_.kill_both) {
    KillOther();
  } else {
    StopOther();
  }
  StopDaemon();
  return SumUp();
}

double Demo::Elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

void Demo::Expect(bool passed, const std::string& what, const std::string& detail) {
  checks_.push_back({.what = what, .passed = passed, .detail = detail});
}

// An emulated link slow enough that its sharing shows beside the time that the processor takes for a pass.
std::string Demo::DaemonConfig() const {
  return "emulated {\n"
         "  bandwidth_bytes_per_s: 120000000\n"
         "  round_trip_ns: 200000\n"
         "  local_bandwidth_bytes_per_s: 4000000000\n"
         "}\n";
}

bool Demo::StartDaemon() {
  std::string pattern = std::filesystem::temp_directory_path() / "dak-demo-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) {
    Expect(false, "a runtime directory", "mkdtemp failed");
    return false;
  }
  runtime_dir_ = pattern;
  const std::string config = runtime_dir_ + "/dakd.textproto";
  std::ofstream(config) << DaemonConfig();
  LaunchedDaemon launched = LaunchDaemon({options_.dakd, "--config=" + config, "--device=" + options_.device,
                                          "--log-level=warn", "--metrics-address=127.0.0.1:0"},
                                         runtime_dir_, kDaemonPatience);
  Expect(launched.process != nullptr, "dakd starts",
         launched.error.empty() ? Number(launched.start_seconds, "s") : launched.error);
  if (launched.process == nullptr) return false;
  daemon_ = std::move(launched.process);
  node_ = std::make_unique<NodeClient>(runtime_dir_);
  const auto node = node_->GetNode();
  Expect(node.has_value(), "dakd answers over gRPC", node.has_value() ? "version " + node->daemon_version() : "no");
  if (!node.has_value()) return false;
  device_kind_ = node->device().kind();
  metrics_address_ = node->metrics_address();
  const bool large = device_kind_ == "cuda";
  if (options_.hbm_share == 0) options_.hbm_share = large ? 0.95 : 0.7;
  if (options_.reclaim_ms == 0) options_.reclaim_ms = large ? kReclaimCudaMs : kReclaimMs;
  std::printf("dakd %s on %s (%s), started in %.2f s, metrics at %s\n", node->daemon_version().c_str(),
              node->device().name().c_str(), device_kind_.c_str(), launched.start_seconds, metrics_address_.c_str());
  return true;
}

std::string Demo::OwnPath() const {
  return OwnDirectory() + "/" + std::filesystem::read_symlink("/proc/self/exe").filename().string();
}

bool Demo::StartWorkers() {
  free_before_bytes_ = AskDriver();
  const Model model = MakeModel(device_kind_, options_.layers, options_.batch);
  std::printf("Two clients, each with %u layers (%s of bf16 weights), at most %.0f %% of them in HBM, batch %u\n",
              options_.layers, SizeText(model.bytes()).c_str(), 100 * options_.hbm_share, model.batch);
  for (const auto& [name, weight] : {std::pair<const char*, uint32_t>{"engine-a", 200}, {"engine-b", 100}}) {
    auto worker = std::make_unique<Worker>();
    worker->name = name;
    worker->weight = weight;
    worker->process = std::make_unique<ChildProcess>(std::vector<std::string>{
        OwnPath(), "worker", "--runtime-dir=" + runtime_dir_, "--name=" + worker->name,
        "--weight=" + std::to_string(weight), "--layers=" + std::to_string(options_.layers),
        "--batch=" + std::to_string(model.batch), "--hbm-share=" + std::to_string(options_.hbm_share)});
    workers_.push_back(std::move(worker));
  }
  bool all = true;
  for (auto& worker : workers_) {
    if (const auto line = worker->process->ReadLineWithin(kLoadPatience)) ReadLine(*worker, *line);
    const bool ready = worker->hbm_share > 0;
    Expect(ready, worker->name + " loads its model",
           ready ? Number(100 * worker->hbm_share, "% in HBM") : "failed " + worker->failure);
    all = all && ready;
  }
  return all;
}

void Demo::ShowPools() {
  if (access(options_.dakctl.c_str(), X_OK) != 0) {
    std::printf("\n(no dakctl at %s)\n", options_.dakctl.c_str());
    return;
  }
  std::printf("\n$ dakctl pools\n");
  ChildProcess dakctl({options_.dakctl, "--runtime-dir=" + runtime_dir_, "pools"});
  while (const auto line = dakctl.ReadLine()) std::printf("%s\n", line->c_str());
  const int code = dakctl.Wait();
  Expect(code == 0, "dakctl pools", "exit code " + std::to_string(code));
}

void Demo::ReadLine(Worker& worker, const std::string& line) {
  std::istringstream words(line);
  std::string kind;
  words >> kind;
  if (kind == "ready") {
    words >> worker.hbm_share;
  } else if (kind == "stat") {
    words >> worker.passes >> worker.checked >> worker.worst_error;
    // A worst error of "inf" ends up here: it isn't read as a number.
    if (words.fail()) worker.failure = line;
  } else {
    worker.failure = line;
  }
}

void Demo::ReadStats() {
  for (auto& worker : workers_) {
    while (const auto line = worker->process->ReadLineWithin(std::chrono::milliseconds(0))) ReadLine(*worker, *line);
  }
}

void Demo::Watch(double seconds) {
  const Clock::time_point begin = Clock::now();
  last_row_ = begin;
  ReadStats();
  ShowTable();
  const auto done = [&] {
    if (g_interrupted) return true;
    if (options_.keep_going && workers_.size() == 2) return false;
    const double late = std::chrono::duration<double>(Clock::now() - begin).count() - seconds;
    return late >= kCheckPatienceSeconds || (late >= 0 && AllChecked());
  };
  while (!done()) {
    // The workers' lines are what there is to wait for.
    const auto line = workers_.front()->process->ReadLineWithin(std::chrono::milliseconds(250));
    if (line.has_value()) ReadLine(*workers_.front(), *line);
    if (!line.has_value() && !workers_.front()->process->alive()) break;
    if (Clock::now() - last_row_ < kRowInterval) continue;
    ReadStats();
    ShowTable();
  }
  table_.Leave();
  for (auto& worker : workers_) {
    Expect(worker->failure.empty() && worker->checked > 0 && worker->worst_error <= kTolerance,
           worker->name + "'s results equal the reference",
           worker->failure.empty() ? std::to_string(worker->checked) + " of " + std::to_string(worker->passes) +
                                         " passes checked, worst error " + Number(worker->worst_error, "")
                                   : worker->failure);
  }
}

void Demo::ShowTable() {
  const auto pools = node_->Pools();
  const auto sessions = node_->SessionsByName();
  const auto windows = node_->WindowsByName();
  if (!pools || !sessions || !windows) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - last_row_).count();
  last_row_ = Clock::now();
  std::vector<PoolRow> pool_rows;
  for (const auto& [tier, pool] : *pools) {
    pool_rows.push_back({.tier = TierText(tier),
                         .used_bytes = pool.session_bytes() + pool.published_bytes(),
                         .capacity_bytes = pool.capacity_bytes()});
  }
  std::vector<SessionRow> rows;
  for (auto& worker : workers_) {
    const auto session = sessions->find(worker->name);
    if (session == sessions->end()) continue;
    const auto window = windows->find(worker->name);
    SessionRow row{.name = worker->name, .weight = worker->weight};
    for (const v1::TierBytes& used : session->second.used()) {
      (used.tier() == v1::TIER_HBM ? row.hbm_bytes : row.host_bytes) += used.bytes();
    }
    row.ratio = 1 - worker->hbm_share;
    const uint64_t remote = session->second.remote_bytes();
    if (seconds > 0.1) {
      row.passes_per_s = static_cast<double>(worker->passes - worker->passes_before) / seconds;
      row.remote_bytes_per_s = static_cast<double>(remote - worker->remote_before) / seconds;
    }
    worker->passes_before = worker->passes;
    worker->remote_before = remote;
    row.window_bytes = window != windows->end() ? window->second.window_bytes() : session->second.window_bytes();
    row.checked = worker->checked;
    row.worst_error = worker->worst_error;
    rows.push_back(row);
  }
  table_.Show(Elapsed(), pool_rows, rows);
}

std::optional<uint64_t> Demo::AskDriver() const {
  if (device_kind_ != "cuda") return std::nullopt;
  ChildProcess driver({OwnPath(), "memory"});
  const auto line = driver.ReadLineWithin(kDaemonPatience);
  uint64_t free_bytes = 0;
  if (!line.has_value() || std::sscanf(line->c_str(), "free %" SCNu64, &free_bytes) != 1) return std::nullopt;
  return free_bytes;
}

bool Demo::AllChecked() const {
  return std::all_of(workers_.begin(), workers_.end(), [](const auto& worker) {
    return worker->checked > 0 || !worker->failure.empty() || !worker->process->alive();
  });
}

uint64_t Demo::HeldBytes() {
  const auto pools = node_->Pools();
  if (!pools.has_value()) return ~uint64_t{0};
  uint64_t held = 0;
  for (const auto& [tier, pool] : *pools) held += pool.session_bytes();
  return held;
}

}  // namespace dak::demo

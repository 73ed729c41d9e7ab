#include "tests/bench/neighbours/stage.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "client/demo/daemon_launcher.h"
#include "client/demo/options.h"

namespace dak::bench {
namespace {

constexpr auto kPatience = std::chrono::seconds(60);
constexpr auto kThreadPatience = std::chrono::seconds(1);
constexpr auto kObserveInterval = std::chrono::milliseconds(5);
constexpr double kLongerThanAny = 3600;  // seconds that a process works if nobody stops it

std::string MakeDirectory() {
  std::string pattern = std::filesystem::temp_directory_path() / "dak-nb-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) Die("mkdtemp failed");
  return pattern;
}

// Beside this program in a build tree, in the bundle's bin from libexec/dak/tests.
std::string FindDakd() {
  const std::string own = demo::OwnDirectory();
  for (const std::string& path : {own + "/dakd", own + "/../../../bin/dakd"}) {
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return own + "/dakd";
}

// Its directory below /proc; empty if there is none of that name.
std::string FindThread(pid_t pid, const std::string& name) {
  std::error_code error;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", error)) {
    std::string found;
    std::ifstream(thread.path() / "comm") >> found;
    if (found == name) return thread.path();
  }
  return "";
}

// An emulated link whose product is some tiles, and slow enough for processes that share few processors.
constexpr char kEmulated[] =
    "emulated {\n"
    "  bandwidth_bytes_per_s: 60000000\n"
    "  round_trip_ns: 1000000\n"
    "  cliff_bytes: 400000\n"
    "  local_bandwidth_bytes_per_s: 400000000\n"
    "}\n";
// Windows that bind nothing: the most that is allowed, and a cliff that they are always under.
constexpr char kUncontrolled[] =
    "congestion { target_bdp: 100 }\n"
    "profile { cliff_bytes: 1000000000000 }\n";

}  // namespace

void Die(const std::string& text) {
  std::fflush(stdout);
  std::fprintf(stderr, "dak-bench-neighbours: %s\n", text.c_str());
  std::exit(1);
}

Stage::Stage(NeighboursOptions options)
    : options_(std::move(options)), directory_(MakeDirectory()), mps_(directory_ + "/mps") {
  signal(SIGPIPE, SIG_IGN);
}

Stage::~Stage() {
  daemon_.reset();
  mps_.Stop();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

std::string Stage::DaemonConfig(bool controlled) const {
  if (!controlled) return std::string(kEmulated) + kUncontrolled;
  if (target_bdp_ == 0) return kEmulated;
  return std::string(kEmulated) + "congestion { target_bdp: " + std::to_string(target_bdp_) + " }\n";
}

void Stage::StartDaemon(bool controlled) {
  const std::string config = directory_ + "/dakd.textproto";
  std::ofstream(config) << DaemonConfig(controlled);
  std::vector<std::string> argv = {options_.dakd.empty() ? FindDakd() : options_.dakd, "--config=" + config,
                                   "--device=" + options_.device, "--log-level=warn", "--metrics-address=off"};
  // By way of env: the launcher gives dakd this process's environment.
  if (under_mps() && options_.dakd_under_mps) {
    std::vector<std::string> wrapped = {"/usr/bin/env"};
    for (const auto& [name, value] : mps_.ClientEnvironment(0)) wrapped.push_back(name + "=" + value);
    argv.insert(argv.begin(), wrapped.begin(), wrapped.end());
  }
  demo::LaunchedDaemon launched = demo::LaunchDaemon(argv, directory_, kPatience);
  if (launched.process == nullptr) Die("dakd: " + launched.error);
  daemon_ = std::move(launched.process);
  node_ = v1::NodeService::NewStub(
      grpc::CreateChannel("unix:" + directory_ + "/control.sock", grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::GetNodeResponse node;
  const grpc::Status status = node_->GetNode(&context, {}, &node);
  if (!status.ok()) Die("dakd: " + status.error_message());
  // It names itself, when it is first on a core.
  const auto deadline = std::chrono::steady_clock::now() + kThreadPatience;
  do {
    loop_thread_ = FindThread(daemon_->pid(), "dak-congestion");
  } while (loop_thread_.empty() && std::chrono::steady_clock::now() < deadline);
  device_kind_ = node.device().kind();
  device_name_ = node.device().name();
}

void Stage::StopDaemon() {
  node_.reset();
  if (daemon_ == nullptr) return;
  daemon_->Signal(SIGTERM);
  const int code = daemon_->Wait();
  daemon_.reset();
  if (code != 0) Die("dakd ended with code " + std::to_string(code));
}

std::vector<std::unique_ptr<Player>> Stage::Cast(const std::vector<Part>& parts) {
  std::vector<std::unique_ptr<Player>> players;
  const auto begin = std::chrono::steady_clock::now();
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  for (const Part& part : parts) {
    auto player = std::make_unique<Player>();
    player->part = part;
    std::vector<std::string> argv = {program,
                                     "worker",
                                     "--device=" + device_kind_,
                                     "--runtime-dir=" + directory_,
                                     "--role=" + part.role,
                                     "--name=" + part.name,
                                     "--weight=" + std::to_string(part.weight),
                                     "--window=" + std::to_string(part.window_bytes)};
    if (part.ctas > 0) argv.push_back("--ctas=" + std::to_string(part.ctas));
    player->process = std::make_unique<demo::ChildProcess>(
        argv, under_mps() ? mps_.ClientEnvironment(part.sm_percent) : demo::ChildProcess::Environment());
    players.push_back(std::move(player));
  }
  for (auto& player : players) player->multiprocessors = std::stoi(Await(*player, "ready"));
  std::printf("\n%zu processes ready after %.1f s;", players.size(),
              std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  for (const auto& player : players) {
    std::printf(" %s", player->part.name.c_str());
    if (player->multiprocessors > 0) std::printf(" (%d SMs)", player->multiprocessors);
  }
  std::printf("\n");
  std::fflush(stdout);
  return players;
}

// What follows `word` in the process's next line.
std::string Stage::Await(Player& player, const std::string& word) {
  const auto line = player.process->ReadLineWithin(kPatience);
  const std::string who = player.part.role + " process " + player.part.name;
  if (!line.has_value()) Die(who + " says nothing any more");
  if (!line->starts_with(word)) Die(who + ": " + *line);
  return line->substr(std::min(line->size(), word.size() + 1));
}

int64_t Stage::Start(Player& player) {
  player.process->WriteLine("run " + std::to_string(kLongerThanAny));
  return std::stoll(Await(player, "began"));
}

int64_t Stage::Stop(Player& player) {
  player.process->WriteLine("stop");
  return std::stoll(Await(player, "ended"));
}

void Stage::Collect(Player& player) {
  player.process->WriteLine("dump");
  std::istringstream words(Await(player, "samples"));
  for (Sample sample; words >> sample.time_ns >> sample.bytes >> sample.window_bytes;) player.series.Add(sample);
}

void Stage::Dismiss(const std::vector<std::unique_ptr<Player>>& players) {
  for (const auto& player : players) player->process->WriteLine("quit");
  for (const auto& player : players) {
    const auto line = player->process->ReadLineWithin(kPatience);
    const int code = player->process->Wait();
    if (code != 0) Die(player->part.name + " ended with code " + std::to_string(code) + ": " + line.value_or(""));
  }
}

// What the kernel says of the thread's time on a processor.
int64_t Stage::LoopCpuNs() const {
  std::ifstream file(loop_thread_ + "/schedstat");
  int64_t ns = 0;
  return file >> ns ? ns : 0;
}

void Stage::Observe(bool ask) {
  if (!ask) {
    observations_.push_back({.time_ns = std::chrono::steady_clock::now().time_since_epoch().count(),
                             .target_bytes = 0,
                             .loop_cpu_ns = LoopCpuNs(),
                             .sessions = {}});
    return;
  }
  grpc::ClientContext context;
  v1::GetCongestionResponse response;
  if (!node_->GetCongestion(&context, {}, &response).ok() || response.links().empty()) return;
  const v1::LinkState& link = response.links(0);
  Observation observation{.time_ns = std::chrono::steady_clock::now().time_since_epoch().count(),
                          .target_bytes = link.target_bytes(),
                          .loop_cpu_ns = LoopCpuNs(),
                          .sessions = {}};
  for (const v1::SessionWindow& window : link.sessions()) {
    observation.sessions.push_back({.name = window.name(),
                                    .window_bytes = window.window_bytes(),
                                    .round_trip_ns = window.round_trip_ns(),
                                    .violating = window.violating()});
  }
  observations_.push_back(std::move(observation));
}

void Stage::Hold(double seconds, bool ask) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < end) {
    Observe(ask);
    std::this_thread::sleep_for(kObserveInterval);  // tidy: sleep, because it samples
  }
}

}  // namespace dak::bench

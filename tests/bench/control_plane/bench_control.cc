// What the control plane costs: dak-bench-control [--dakd=PATH] [--device=KIND] [--seconds=N] [--json=FILE].
//
//   allocate+map   dak_tensors_allocate of one split tensor: RPC, driver, descriptors, mapping
//   free           dak_tensors_free of it: unmapping, RPC, driver
//   requests/s     by 1, 8 and 64 clients at once, each with its own session: allocate and free in turn (two RPCs and
//                  one exchange on handles.sock a pair), and ListPools alone
//   empty call     ListPools of one client, and beside it the floor: a call of the same messages to a server that is
//                  nothing but gRPC, in a process of its own
//   reclaim        from SIGKILL to a client process that holds 128 MiB of each tier until the pools say that all is
//   back start          from dakd's start to its readiness
// Before anything is timed, an allocated tensor is written, read back and compared. Clients are threads of this
// process, which shares the processors with dakd.
#include <grpcpp/create_channel.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <sstream>
#include <thread>
#include <vector>

#include "dak/dak.hpp"
#include "tests/bench/dak_bench/report_file.h"
#include "tests/integration/harness/daemon_process.h"

namespace dak::testing {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kWarmUps = 50;
constexpr int kStarts = 5;
constexpr int kKills = 10;
constexpr uint64_t kRows = 1024;
constexpr uint64_t kVictimRows = 128 * kRows;
constexpr uint64_t kCols = 1024;  // 2 MiB of bf16: one granule of each tier at ratio 0.5

struct Options {
  std::string dakd;
  std::string device = "emulated";
  std::string json;
  double seconds = 2;  // of each figure
  std::string victim;  // the runtime directory, in the process that is killed
  std::string bare;    // the directory of its socket, in the process of the bare server
};

struct Figure {
  std::string name;
  double value = 0;
  std::string unit;
};

[[noreturn]] void Die(const std::string& text) {
  std::fprintf(stderr, "dak-bench-control: %s\n", text.c_str());
  std::exit(1);
}

// Printed, and written to the file, as they come: a run that is killed leaves what it had.
class Figures {
 public:
  explicit Figures(const Options& options) : options_(options) {
    std::printf("control plane, %s device, %u processors\n", options.device.c_str(),
                std::thread::hardware_concurrency());
  }
  void Add(const Figure& figure) {
    std::printf("  %-28s %12.1f %s\n", figure.name.c_str(), figure.value, figure.unit.c_str());
    figures_.push_back(figure);
    if (!options_.json.empty() && !bench::WriteWhole(options_.json, Json())) Die("can't write " + options_.json);
  }

 private:
  std::string Json() const {
    std::ostringstream json;
    json << "{\n  \"bench\": \"control_plane\",\n  \"device\": \"" << options_.device
         << "\",\n  \"processors\": " << std::thread::hardware_concurrency();
    for (const Figure& figure : figures_) {
      json << ",\n  \"" << figure.name << "\": {\"value\": " << figure.value << ", \"unit\": \"" << figure.unit
           << "\"}";
    }
    json << "\n}\n";
    return json.str();
  }

  const Options& options_;
  std::vector<Figure> figures_;
};

template <typename T>
T Must(dak::Result<T> result) {
  if (!result.ok()) Die(result.status().ToString());
  return *std::move(result);
}

void Must(const dak::Status& status) {
  if (!status.ok()) Die(status.ToString());
}

dak::TensorSpec Spec(uint64_t rows = kRows) {
  return {.name = "w",
          .data_type = DAK_BF16,
          .rows = rows,
          .cols = kCols,
          .offload_ratio = 0.5,
          .remote_tier = DAK_TIER_HOST,
          .tile_rows = 0};
}

dak::Session OpenSession(const std::string& runtime_dir) {
  return Must(dak::Session::Open({.runtime_dir = runtime_dir,
                                  .name = "bench",
                                  .weight = 0,
                                  .hbm_quota_bytes = 0,
                                  .host_quota_bytes = 0,
                                  .cxl_quota_bytes = 0,
                                  .timeout = {}}));
}

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

double Quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

void CheckMemory(dak::Session& session) {
  const dak::Tensor w = Must(session.Allocate(Spec()));
  std::vector<uint16_t> written(kRows * kCols);
  for (size_t i = 0; i < written.size(); ++i) written[i] = static_cast<uint16_t>(i * 40503u);
  std::vector<uint16_t> read(written.size());
  Must(w.Upload(std::span(written)));
  Must(w.Download(std::span(read)));
  if (read != written) Die("what was uploaded isn't what was downloaded");
  Must(session.Free(w));
}

void MeasureLatency(const DaemonProcess& daemon, double seconds, Figures* figures) {
  dak::Session session = OpenSession(daemon.runtime_dir());
  CheckMemory(session);
  std::vector<double> allocate_us;
  std::vector<double> free_us;
  Clock::time_point end;
  for (int i = -kWarmUps; i <= 0 || Clock::now() < end; ++i) {
    const Clock::time_point begin = Clock::now();
    if (i == 0) end = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    const dak::Tensor w = Must(session.Allocate(Spec()));
    const Clock::time_point allocated = Clock::now();
    Must(session.Free(w));
    if (i < 0) continue;
    allocate_us.push_back(Seconds(allocated - begin) * 1e6);
    free_us.push_back(Seconds(Clock::now() - allocated) * 1e6);
  }
  figures->Add({"allocate_map_p50", Quantile(allocate_us, 0.5), "us"});
  figures->Add({"allocate_map_p99", Quantile(allocate_us, 0.99), "us"});
  figures->Add({"free_p50", Quantile(free_us, 0.5), "us"});
  figures->Add({"free_p99", Quantile(free_us, 0.99), "us"});
  figures->Add({"latency_samples", static_cast<double>(free_us.size()), "pairs"});
}

// Runs `request` in `clients` threads and returns how often a second it was done in all. `make` is called once a thread
// and returns the request.
template <typename Make>
double Rate(int clients, double seconds, const Make& make) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> done{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < clients; ++i) {
    threads.emplace_back([&] {
      auto request = make();
      request();
      ++ready;
      go.wait(false);
      uint64_t own = 0;
      while (!stop.load(std::memory_order_relaxed)) {
        request();
        ++own;
      }
      done += own;
    });
  }
  while (ready.load() < clients) std::this_thread::yield();
  const Clock::time_point begin = Clock::now();
  go = true;
  go.notify_all();
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));  // tidy: sleep, the time that is measured over
  stop = true;
  for (std::thread& thread : threads) thread.join();
  return static_cast<double>(done.load()) / Seconds(Clock::now() - begin);
}

class BareService final : public v1::NodeService::Service {
 public:
  grpc::Status ListPools(grpc::ServerContext*, const v1::ListPoolsRequest*, v1::ListPoolsResponse*) override {
    return grpc::Status::OK;
  }
};

std::string BareAddress(const std::string& directory) { return "unix:" + directory + "/bare.sock"; }

int RunBareServer(const std::string& directory) {
  BareService service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(BareAddress(directory), grpc::InsecureServerCredentials());
  builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::NUM_CQS, 1);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) Die("gRPC refused to start a server");
  std::printf("ready\n");
  std::fflush(stdout);
  while (std::getchar() != EOF) continue;
  return 0;
}

double EmptyCallUs(v1::NodeService::Stub& node, double seconds) {
  std::vector<double> call_us;
  Clock::time_point end;
  for (int i = -kWarmUps; i <= 0 || Clock::now() < end; ++i) {
    const Clock::time_point begin = Clock::now();
    if (i == 0) end = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    Ask(node, &v1::NodeService::Stub::ListPools, v1::ListPoolsRequest());
    if (i >= 0) call_us.push_back(Seconds(Clock::now() - begin) * 1e6);
  }
  return Quantile(call_us, 0.5);
}

void MeasureEmptyCalls(const DaemonProcess& daemon, double seconds, Figures* figures) {
  figures->Add({"empty_call_p50", EmptyCallUs(*daemon.NewNodeStub(), seconds), "us"});
  ChildProcess bare({"/proc/self/exe", "--bare=" + daemon.runtime_dir()});
  if (bare.ReadLine() != "ready") Die("the bare server didn't get ready");
  const auto channel = grpc::CreateChannel(BareAddress(daemon.runtime_dir()), grpc::InsecureChannelCredentials());
  figures->Add({"bare_grpc_call_p50", EmptyCallUs(*v1::NodeService::NewStub(channel), seconds), "us"});
  bare.Kill();
}

void MeasureRates(DaemonProcess& daemon, double seconds, Figures* figures) {
  for (const int clients : {1, 8, 64}) {
    const double pairs = Rate(clients, seconds, [&] {
      auto session = std::make_shared<dak::Session>(OpenSession(daemon.runtime_dir()));
      return [session] { Must(session->Free(Must(session->Allocate(Spec())))); };
    });
    figures->Add({"allocate_free_clients_" + std::to_string(clients), 2 * pairs, "requests/s"});
  }
  for (const int clients : {1, 8, 64}) {
    const double requests = Rate(clients, seconds, [&] {
      std::shared_ptr<v1::NodeService::Stub> node = daemon.NewNodeStub();
      return [node] { Ask(*node, &v1::NodeService::Stub::ListPools, v1::ListPoolsRequest()); };
    });
    figures->Add({"list_pools_clients_" + std::to_string(clients), requests, "requests/s"});
  }
}

// The process that is killed: holds memory that it has written, and waits.
int RunVictim(const std::string& runtime_dir) {
  dak::Session session = OpenSession(runtime_dir);
  const dak::Tensor w = Must(session.Allocate(Spec(kVictimRows)));
  // Block by block: the kernel frees a dead process's own memory before it closes its sockets.
  const std::vector<uint16_t> block(kRows * kCols, 1);
  for (uint64_t row = 0; row < kVictimRows; row += kRows) Must(w.Upload(std::span(block), row * kCols * 2));
  std::printf("ready\n");
  std::fflush(stdout);
  while (std::getchar() != EOF) continue;
  return 0;
}

void MeasureReclaim(DaemonProcess& daemon, Figures* figures) {
  std::vector<double> reclaim_ms;
  for (int i = 0; i < kKills; ++i) {
    ChildProcess victim({"/proc/self/exe", "--victim=" + daemon.runtime_dir()});
    if (victim.ReadLine() != "ready") Die("the client that is to be killed didn't get ready");
    if (daemon.SessionBytes() != kVictimRows * kCols * 2) Die("the client that is to be killed holds something else");
    const Clock::time_point begin = Clock::now();
    victim.Signal(SIGKILL);
    if (!daemon.WaitUntil([&] { return daemon.SessionBytes() == 0; })) Die("a killed client's memory didn't come back");
    reclaim_ms.push_back(Seconds(Clock::now() - begin) * 1e3);
    victim.Wait();
  }
  figures->Add({"reclaim_p50", Quantile(reclaim_ms, 0.5), "ms"});
  figures->Add({"reclaim_max", Quantile(reclaim_ms, 1), "ms"});
}

void MeasureStart(const Options& options, Figures* figures) {
  std::vector<double> starts;
  for (int i = 0; i < kStarts; ++i) {
    DaemonOptions daemon_options;
    daemon_options.device = options.device;
    daemon_options.dakd = options.dakd;
    starts.push_back(DaemonProcess(daemon_options).start_seconds());
  }
  figures->Add({"daemon_start_p50", Quantile(starts, 0.5) * 1e3, "ms"});
  figures->Add({"daemon_start_max", Quantile(starts, 1) * 1e3, "ms"});
}

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
    if (name == "--dakd") {
      options.dakd = value;
    } else if (name == "--device") {
      options.device = value;
    } else if (name == "--json") {
      options.json = value;
    } else if (name == "--victim") {
      options.victim = value;
    } else if (name == "--bare") {
      options.bare = value;
    } else if (name == "--seconds") {
      options.seconds = std::stod(value);
    } else {
      Die("usage: dak-bench-control [--dakd=PATH] [--device=KIND] [--seconds=N] [--json=FILE]");
    }
  }
  return options;
}

}  // namespace
}  // namespace dak::testing

int main(int argc, char** argv) {
  using namespace dak::testing;
  dak::bench::FlushEveryLine();
  const Options options = Parse(argc, argv);
  if (!options.victim.empty()) return RunVictim(options.victim);
  if (!options.bare.empty()) return RunBareServer(options.bare);
  Figures figures(options);
  MeasureStart(options, &figures);
  DaemonOptions daemon_options;
  daemon_options.device = options.device;
  daemon_options.dakd = options.dakd;
  DaemonProcess daemon(daemon_options);
  MeasureLatency(daemon, options.seconds, &figures);
  MeasureEmptyCalls(daemon, options.seconds, &figures);
  MeasureReclaim(daemon, &figures);
  MeasureRates(daemon, options.seconds, &figures);
  return 0;
}

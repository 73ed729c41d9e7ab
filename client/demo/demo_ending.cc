// The demo's second half: what happens when things end.
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>

#include "client/demo/demo.h"
#include "client/demo/scrape.h"

namespace dak::demo {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kAimMs = 100;
// What dakd's own context may have grown by since it started.
constexpr uint64_t kDriverSlackBytes = uint64_t{32} << 20;

double MillisecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

std::string Text(const char* format, double value) {
  char text[128];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

}  // namespace

void Demo::Kill(Worker& victim, uint64_t left_bytes) {
  const uint64_t before = HeldBytes();
  std::printf("\nSIGKILL to %s, which holds %s:\n", victim.name.c_str(), SizeText(before - left_bytes).c_str());
  const Clock::time_point begin = Clock::now();
  victim.process->Signal(SIGKILL);
  uint64_t held = before;
  while (held != left_bytes && MillisecondsSince(begin) < options_.reclaim_ms) held = HeldBytes();
  const double took_ms = MillisecondsSince(begin);
  victim.process->Wait();
  const bool back = held == left_bytes && before > left_bytes;
  Expect(back, victim.name + "'s memory comes back",
         back ? SizeText(before - held) + Text(" in %.1f ms", took_ms) +
                    (took_ms > kAimMs ? Text(" (later than the aim, %.0f ms)", kAimMs) : "")
              : Text("not within %.0f ms", options_.reclaim_ms));
  std::printf("%s\n", checks_.back().detail.c_str());
}

void Demo::KillOne() {
  auto sessions = node_->SessionsByName();
  uint64_t left_bytes = ~uint64_t{0};
  if (sessions.has_value()) {
    left_bytes = 0;
    for (const v1::TierBytes& used : (*sessions)[workers_.front()->name].used()) left_bytes += used.bytes();
  }
  Kill(*workers_.back(), left_bytes);
  std::printf("\n%s alone:\n", workers_.front()->name.c_str());
  workers_.pop_back();
}

void Demo::KillOther() {
  const auto with_client_bytes = AskDriver();
  Kill(*workers_.front(), 0);
  ShowPools();
  CheckPoolsEmpty();
  if (device_kind_ != "cuda") return;
  if (!free_before_bytes_.has_value() || !with_client_bytes.has_value()) {
    Expect(false, "the driver has all HBM back", "it didn't say what is free");
    return;
  }
  // The driver counts until the dead process is wholly gone.
  const Clock::time_point begin = Clock::now();
  uint64_t free_bytes = 0;
  do {
    free_bytes = AskDriver().value_or(0);
  } while (free_bytes + kDriverSlackBytes < *free_before_bytes_ && MillisecondsSince(begin) < options_.reclaim_ms);
  const std::string detail = SizeText(free_bytes) + " free; " + SizeText(*free_before_bytes_) +
                             " before the clients, " + SizeText(*with_client_bytes) + " with one";
  std::printf("\nThe driver: %s\n", detail.c_str());
  Expect(free_bytes + kDriverSlackBytes >= *free_before_bytes_, "the driver has all HBM back", detail);
}

void Demo::Scrape() {
  std::printf("\n$ GET http://%s/metrics\n", metrics_address_.c_str());
  const auto text = HttpGet(metrics_address_, "/metrics");
  Expect(text.has_value(), "/metrics is served", text.has_value() ? std::to_string(text->size()) + " bytes" : "no");
  if (!text.has_value()) return;
  const std::string survivor = "name=\"" + workers_.front()->name + "\"";
  struct Expected {
    const char* name;
    std::vector<std::string> labels;
    double least;
    double most;
  };
  constexpr double kAny = 1e300;
  const std::vector<Expected> all = {{"dak_pool_capacity_bytes", {"tier=\"hbm\""}, 1, kAny},
                                     {"dak_pool_bytes", {"tier=\"hbm\"", "state=\"session\""}, 1, kAny},
                                     {"dak_pool_bytes", {"tier=\"host\"", "state=\"session\""}, 1, kAny},
                                     {"dak_sessions", {}, 1, 1},
                                     {"dak_session_tensors", {survivor}, 1, kAny},
                                     {"dak_session_used_bytes", {survivor, "tier=\"hbm\""}, 1, kAny},
                                     {"dak_session_remote_bytes_total", {survivor}, 1, kAny},
                                     {"dak_session_window_bytes", {survivor}, 1, kAny},
                                     {"dak_session_plan_version", {survivor}, 1, kAny},
                                     {"dak_sessions_reclaimed_total", {"reason=\"connection\""}, 1, 1},
                                     {"dak_reclaimed_bytes_total", {"reason=\"connection\"", "tier=\"hbm\""}, 1, kAny},
                                     {"dak_rpc_duration_seconds_count", {"AllocateTensors", "code=\"OK\""}, 4, kAny}};
  std::string missing;
  for (const Expected& expected : all) {
    const auto value = FindSeries(*text, expected.name, expected.labels);
    const bool good = value.has_value() && *value >= expected.least && *value <= expected.most;
    if (!good) missing += std::string(missing.empty() ? "" : ", ") + expected.name;
    std::printf("%-34s %s\n", expected.name, value.has_value() ? Text("%.6g", *value).c_str() : "(missing)");
  }
  Expect(missing.empty(), "the metrics tell the same story",
         missing.empty() ? std::to_string(all.size()) + " series as expected" : "wrong or missing: " + missing);
}

void Demo::StopOther() {
  Worker& worker = *workers_.front();
  const bool was_alive = worker.process->alive();
  if (was_alive) worker.process->WriteLine("quit");
  const int code = worker.process->Wait();
  Expect(was_alive && code == 0, worker.name + " ends in order", "exit code " + std::to_string(code));
  CheckPoolsEmpty();
}

void Demo::CheckPoolsEmpty() {
  const uint64_t held = HeldBytes();
  Expect(held == 0, "the pools are empty", held == 0 ? "0 bytes held" : SizeText(held) + " held");
}

void Demo::StopDaemon() {
  // An idle connection that nobody polls answers no farewell, and dakd would wait for one.
  node_.reset();
  const Clock::time_point begin = Clock::now();
  daemon_->Signal(SIGTERM);
  const int code = daemon_->Wait();
  Expect(code == 0, "dakd stops on SIGTERM",
         "exit code " + std::to_string(code) + Text(" after %.0f ms", MillisecondsSince(begin)));
  struct stat info;
  const bool removed = stat((runtime_dir_ + "/control.sock").c_str(), &info) != 0 &&
                       stat((runtime_dir_ + "/handles.sock").c_str(), &info) != 0;
  Expect(removed, "its sockets are gone", removed ? "both" : "left behind");
}

int Demo::SumUp() {
  std::printf("\nSummary after %.1f s\n", Elapsed());
  for (const Check& check : checks_) {
    std::printf("  %-4s  %-42s %s\n", check.passed ? "ok" : "FAIL", check.what.c_str(), check.detail.c_str());
  }
  const auto failed = std::count_if(checks_.begin(), checks_.end(), [](const Check& check) { return !check.passed; });
  std::printf("%s: %zu checks, %zu failed\n", failed == 0 ? "PASSED" : "FAILED", checks_.size(),
              static_cast<size_t>(failed));
  return failed == 0 ? 0 : 1;
}

}  // namespace dak::demo

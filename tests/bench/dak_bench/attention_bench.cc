// `dak-bench attention`: one decode attention at a time, back to back over pages that don't fit in L2.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <tuple>

#include "tests/bench/dak_bench/attention_operation.h"
#include "tests/bench/dak_bench/check.h"
#include "tests/bench/dak_bench/device_tools.h"
#include "tests/bench/dak_bench/table.h"
#include "tests/bench/dak_bench/timing.h"

namespace dak::bench {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kGraphSeconds = 2e-3;  // at least, so that its launch doesn't show

struct Model {
  const char* name;
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t head_dim;
};
constexpr Model kModels[] = {
    {"llama8b", 32, 8, 128}, {"llama70b", 64, 8, 128}, {"opt6.7b", 32, 32, 128}, {"opt30b", 56, 56, 128}};

// What attention_peer.py measured, by model, batch and context; one line of its JSON each.
using PeerKey = std::tuple<std::string, uint32_t, uint32_t>;
std::map<PeerKey, double> ReadPeer(const std::string& path) {
  std::map<PeerKey, double> peers;
  if (path.empty()) return peers;
  std::ifstream file(path);
  if (!file) Fail(path.c_str(), "can't be read");
  for (std::string line; std::getline(file, line);) {
    char model[32];
    unsigned int batch = 0;
    unsigned int context = 0;
    double microseconds = 0;
    const char* start = std::strstr(line.c_str(), "{\"model\":");
    if (start != nullptr && std::sscanf(start, "{\"model\": \"%31[^\"]\", \"batch\": %u, \"context\": %u, \"us\": %lf",
                                        model, &batch, &context, &microseconds) == 4) {
      peers[{model, batch, context}] = microseconds * 1e-6;
    }
  }
  if (peers.empty()) Fail(path.c_str(), "has no line of attention_peer.py");
  return peers;
}

struct Timing {
  double seconds = 0;  // of one launch, when many follow each other
  double link_bytes_per_s = kNan;
};

// With `link`, the link's rate too, by streams of host memory in turn with the launches: it differs from second to
// second.
Timing Time(Context& context, AttentionOperation& operation, const kernels::AttentionPlan& plan, double limit_s,
            bool link) {
  const auto launches = std::max<size_t>(operation.copies(), static_cast<size_t>(kGraphSeconds / limit_s) + 1);
  const int repeats = limit_s > 5e-3 ? 5 : 11;
  const auto enqueue = [&] {
    for (size_t i = 0; i < launches; ++i) operation.Launch(i, plan);
  };
  if (!link) return {.seconds = TimeGraph(context.stream, enqueue, repeats, 1) / static_cast<double>(launches)};
  constexpr uint64_t kStreamedBytes = uint64_t{64} << 20;
  const auto stream = [&] { StreamBulk(context.host, kStreamedBytes, 16, 2, 8192, context.stream); };
  const auto [seconds, stream_seconds] = TimeGraphsInTurn(context.stream, enqueue, stream, repeats);
  return {seconds / static_cast<double>(launches), static_cast<double>(kStreamedBytes) / stream_seconds};
}

void CheckNumbers(AttentionOperation& operation, const kernels::AttentionPlan& plan, const AttentionConfig& config) {
  const double error = operation.RelativeError(plan);
  if (error < kMaxRelativeError) return;
  std::fprintf(stderr, "%s batch %u context %u ratio %g: relative error %g\n", config.model.c_str(), config.batch,
               config.context, config.ratio, error);
  Fail("attention", "wrong numbers");
}

// Times what wasn't chosen, one line each, and checks its numbers too. What differs from the plan is in the name.
class Tuner {
 public:
  Tuner(Context& context, AttentionOperation& operation, double limit_s)
      : context_(context), operation_(operation), limit_s_(limit_s) {}

  template <class Change>
  void Try(const std::string& name, const Change& change) {
    kernels::AttentionPlan plan = operation_.plan();
    change(plan);
    std::printf("  tune %-28s", name.c_str());
    std::fflush(stdout);  // a launch that doesn't end is known by its name
    const double error = operation_.RelativeError(plan);
    const double seconds = Time(context_, operation_, plan, limit_s_, false).seconds;
    std::printf(" %9.2f us %7.4f of the limit", seconds * 1e6, limit_s_ / seconds);
    // The others are still to be seen: nobody runs what isn't planned.
    if (error < kMaxRelativeError) {
      std::printf("\n");
    } else {
      std::printf(", wrong numbers: relative error %g\n", error);
    }
  }

  void TryAsPlanned(const std::string& name) {
    Try(name, [](kernels::AttentionPlan&) {});
  }

 private:
  Context& context_;
  AttentionOperation& operation_;
  double limit_s_;
};

void TuneRemote(Tuner& tuner, uint32_t full_ctas) {
  using kernels::AttentionPlan;
  for (const uint32_t ctas : {3u, 6u, 8u, 12u, 16u, 24u}) {
    if (ctas == full_ctas) continue;
    tuner.Try("remote CTAs " + std::to_string(ctas), [=](AttentionPlan& p) {
      p.full_remote_ctas = ctas;
      p.piece_by_local_time = 0;  // else many short pieces ask for a number of their own
    });
  }
  tuner.Try("pieces for nothing", [](AttentionPlan& p) { p.piece_by_local_time = 0; });
  tuner.Try("pieces at half", [](AttentionPlan& p) { p.piece_by_local_time /= 2; });
  tuner.Try("pieces at double", [](AttentionPlan& p) { p.piece_by_local_time *= 2; });
}

void Tune(Context& context, AttentionOperation& operation, const AttentionConfig& config, double limit_s) {
  using kernels::AttentionPlan;
  std::printf("  tune %s batch %u context %u ratio %g, limit %.1f us\n", config.model.c_str(), config.batch,
              config.context, config.ratio, limit_s * 1e6);
  Tuner tuner(context, operation, limit_s);
  tuner.TryAsPlanned("as planned");
  for (const uint32_t blocks : {4u, 6u, 12u, 16u, 24u}) {
    tuner.Try("blocks in flight " + std::to_string(blocks), [=](AttentionPlan& p) { p.inflight_blocks = blocks; });
  }
  operation.SetPromotion(false);
  tuner.TryAsPlanned("no promotion");
  operation.SetPromotion(true);
  operation.SetContextReady(false);
  tuner.TryAsPlanned("context not ready");
  operation.SetContextReady(true);
  {
    AttentionConfig in_order = config;
    in_order.in_order = true;
    AttentionOperation ordered(context, in_order);
    ordered.SetWindow(operation.window());
    Tuner(context, ordered, limit_s).TryAsPlanned("pages in order");
  }
  if (config.remote_pages() > 0) TuneRemote(tuner, operation.plan().full_remote_ctas);
  tuner.TryAsPlanned("as planned, again");
}

void Measure(Context& context, const Options& options, const AttentionConfig& config, double peer_s, Table& table) {
  AttentionOperation operation(context, config);
  operation.SetWindow(static_cast<uint64_t>(options.window_bytes));
  CheckNumbers(operation, operation.plan(), config);
  const double local = static_cast<double>(config.bytes() - config.remote_bytes());
  const double remote = static_cast<double>(config.remote_bytes());
  const Timing timing = Time(context, operation, operation.plan(), context.Limit(local, remote, 0), remote > 0);
  const double seconds = timing.seconds;
  const double link_s = remote > 0 ? remote / timing.link_bytes_per_s : 0;
  const double limit_s = std::max(local / context.ceilings.hbm_bytes_per_s, link_s);
  const v1::LinkReport report = operation.report();
  Table::Row row;
  row.Text("model", config.model).Number("batch", config.batch).Number("context", config.context);
  row.Number("page", config.page_tokens).Number("ratio", config.ratio).Number("MB", (local + remote) * 1e-6);
  row.Number("us", seconds * 1e6).Number("limit_us", limit_s * 1e6).Number("of_limit", limit_s / seconds);
  row.Number("hbm_gbps", local / seconds * 1e-9).Number("of_hbm", local / seconds / context.ceilings.hbm_bytes_per_s);
  row.Number("link_gbps", remote / seconds * 1e-9).Number("link_alone", timing.link_bytes_per_s * 1e-9);
  row.Number("rtt_us", report.round_trips > 0
                           ? 1e-3 * static_cast<double>(report.round_trip_ns) / static_cast<double>(report.round_trips)
                           : kNan);
  row.Number("peak_kb", static_cast<double>(report.inflight_peak_bytes) / 1024);
  row.Number("sdpa_us", peer_s * 1e6).Number("sdpa_by_dak", peer_s / seconds);
  table.Add(row);
  if (options.tune) Tune(context, operation, config, limit_s);
}

// The ratio that takes least, near the one at which both sides would end together at their rates alone: beside each
// other they are a little slower.
double FindBestRatio(Context& context, const Options& options, AttentionConfig config) {
  const double link = context.ceilings.link_bytes_per_s;
  const double ideal = link / (link + context.ceilings.hbm_bytes_per_s);
  double best = 0;
  double best_s = std::numeric_limits<double>::infinity();
  for (const double share : {0.85, 0.9, 0.95, 1.0}) {
    config.ratio = share * ideal;
    AttentionOperation operation(context, config);
    operation.SetWindow(static_cast<uint64_t>(options.window_bytes));
    const double limit_s = context.Limit(static_cast<double>(config.bytes() - config.remote_bytes()),
                                         static_cast<double>(config.remote_bytes()), 0);
    const double seconds = Time(context, operation, operation.plan(), limit_s, false).seconds;
    if (seconds >= best_s) continue;
    best = config.ratio;
    best_s = seconds;
  }
  return best;
}

}  // namespace

void RunAttention(Context& context, const Options& options) {
  Table table("attention: decode over paged KV, " + context.device_name, &context.report);
  const std::map<PeerKey, double> peers = ReadPeer(options.peer_path);
  bool found = false;
  for (const Model& model : kModels) {
    if (options.model != model.name && options.model != "all") continue;
    found = true;
    for (const uint64_t tokens : options.contexts) {
      for (const uint64_t batch : options.batches) {
        for (const double ratio : options.ratios) {
          AttentionConfig config{.model = model.name,
                                 .heads = model.heads,
                                 .kv_heads = model.kv_heads,
                                 .head_dim = model.head_dim,
                                 .batch = static_cast<uint32_t>(batch),
                                 .context = static_cast<uint32_t>(tokens),
                                 .page_tokens = options.page_tokens,
                                 .ratio = std::max(0.0, ratio)};
          if (config.bytes() - config.remote_bytes() > context.hbm_bytes ||
              config.remote_bytes() > context.host_bytes) {
            continue;  // docs/kernels-attention.md: what fits in the bench's memory
          }
          if (ratio < 0) config.ratio = FindBestRatio(context, options, config);
          const auto peer = peers.find({config.model, config.batch, config.context});
          Measure(context, options, config, peer == peers.end() ? kNan : peer->second, table);
        }
      }
    }
  }
  if (!found) Fail("--model", "llama8b, llama70b, opt6.7b, opt30b or all");
}

}  // namespace dak::bench

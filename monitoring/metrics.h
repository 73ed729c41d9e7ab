// What dakd tells Prometheus.
//
// State (pools, sessions, links, publications) is pulled: at each scrape the snapshot function is asked once, so series
// of what is gone are gone too, and all figures of one scrape belong together. What happens (requests, refusals, lost
// leases) is counted as it happens. Names, labels and units are in docs/metrics.md, which a test compares with this
// registry.
//
// Thread safety: all methods may be called from any thread. The snapshot function is called from the HTTP server's
// threads and must lock for itself.
// Errors: Serve is UNAVAILABLE if the address can't be bound (the message names it), INVALID_ARGUMENT if it is no
// host:port, FAILED_PRECONDITION if it serves already.
//
// Cardinality: label values from outside are cut to 128 printable characters; at most 1024 sessions have series of
// their own; each counted family admits a fixed number of label sets and counts the rest under "other".
#ifndef DAK_MONITORING_METRICS_H_
#define DAK_MONITORING_METRICS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "allocator/base/tier.h"

namespace dak::monitoring {

struct PoolSample {
  Tier tier = Tier::kHbm;
  uint64_t capacity_bytes = 0;
  uint64_t free_bytes = 0;
  uint64_t session_bytes = 0;
  uint64_t published_bytes = 0;
  uint64_t segment_count = 0;
  uint64_t unplaced_bytes = 0;
};

struct SessionSample {
  uint64_t session_id = 0;
  std::string name;
  std::array<uint64_t, kTierCount> used_bytes{};
  std::array<uint64_t, kTierCount> limit_bytes{};  // kNoLimit: no series
  uint64_t tensor_count = 0;
  uint64_t remote_bytes = 0;  // counter
  double remote_bytes_per_s = 0;
  uint64_t window_bytes = 0;
  uint64_t inflight_peak_bytes = 0;
  uint64_t round_trip_ns_sum = 0;  // counter
  uint64_t round_trips = 0;        // counter
  bool violating = false;
  uint64_t plan_version = 0;
  double plan_predicted_s = 0;
};

struct LinkSample {
  uint32_t link = 0;
  uint64_t target_bytes = 0;
  uint64_t bandwidth_bytes_per_s = 0;
  uint64_t migration_bytes_per_s = 0;
};

struct Snapshot {
  std::string version;
  std::string device_kind;
  std::string device_name;
  std::vector<PoolSample> pools;
  std::vector<SessionSample> sessions;
  std::vector<LinkSample> links;
  uint64_t publication_count = 0;
};

class Metrics {
 public:
  explicit Metrics(std::function<Snapshot()> snapshot);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Serves GET /metrics and GET /healthz at "host:port"; port 0 picks one.
  absl::Status Serve(const std::string& address);
  // "host:port" as bound; empty if not serving.
  std::string address() const;

  // One finished RPC: "dak.v1.TensorService/AllocateTensors", "OK".
  void ObserveRpc(const std::string& method, const std::string& code, double seconds);
  // A session whose connection ended or whose lease ran out: reason "connection" or "lease".
  void CountReclaimedSession(const std::string& reason, const std::array<uint64_t, kTierCount>& bytes);
  // An allocation that was refused: reason "QUOTA_EXCEEDED", "POOL_EXHAUSTED", "DRIVER_ERROR", ...
  void CountRefusedAllocation(const std::string& reason);
  void CountEvent(const std::string& type);
  // A step of a migration that ended: kind "move", "demote", "promote"; result "prepared" (moves only), "done",
  // "aborted", "failed".
  void CountMigration(const std::string& kind, const std::string& result, uint64_t copy_ns);
  // What was copied, [from][to] by TierIndex.
  void CountMigratedBytes(const std::array<std::array<uint64_t, kTierCount>, kTierCount>& bytes);
  // Mean round trip of one session's remote reads over a controller interval.
  void ObserveRoundTrip(uint32_t link, double seconds);
  // One controller interval in which the session read past its window.
  void CountWindowViolation(uint64_t session_id, const std::string& name);

  // The text that a scrape would return now.
  std::string Render() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dak::monitoring

#endif  // DAK_MONITORING_METRICS_H_

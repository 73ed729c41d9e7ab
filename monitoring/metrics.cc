#include "monitoring/metrics.h"

#include <array>
#include <atomic>
#include <sstream>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "allocator/base/status_macros.h"
#include "monitoring/counted_family.h"
#include "monitoring/families.h"
#include "monitoring/http_server.h"
#include "monitoring/snapshot_collector.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"

namespace dak::monitoring {
namespace {

using prometheus::Counter;
using prometheus::Histogram;

// Most label sets of a family; the API has 20 methods and 17 codes, of which few meet.
constexpr size_t kMaxRpcSeries = 256;
constexpr size_t kMaxSeries = 64;

// From a local call's tens of microseconds to seconds of making host memory.
const Histogram::BucketBoundaries& RpcBuckets() {
  static const Histogram::BucketBoundaries buckets = {50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3,
                                                      20e-3, 50e-3,  0.1,    0.2,    0.5,  1,    2,    5};
  return buckets;
}
// From an unloaded PCIe round trip (about 1.8 us) to that of a link with megabytes in flight (339 us).
const Histogram::BucketBoundaries& RoundTripBuckets() {
  static const Histogram::BucketBoundaries buckets = {0.5e-6, 1e-6,  1.5e-6, 2e-6,  3e-6,   4e-6,   6e-6,   8e-6,
                                                      12e-6,  16e-6, 32e-6,  64e-6, 128e-6, 256e-6, 512e-6, 1e-3};
  return buckets;
}

}  // namespace

class Metrics::Impl {
 public:
  explicit Impl(std::function<Snapshot()> snapshot)
      : state(std::make_shared<SnapshotCollector>(std::move(snapshot))),
        registry(std::make_shared<prometheus::Registry>()),
        rpc(*registry, kRpcDuration, {"method", "code"}, kMaxRpcSeries, RpcBuckets()),
        round_trip(*registry, kLinkRoundTrip, {"link"}, kMaxSeries, RoundTripBuckets()),
        sessions_reclaimed(*registry, kSessionsReclaimed, {"reason"}, kMaxSeries),
        bytes_reclaimed(*registry, kReclaimedBytes, {"reason", "tier"}, kMaxSeries),
        refused(*registry, kAllocationsRefused, {"reason"}, kMaxSeries),
        migrations(*registry, kMigrations, {"kind", "result"}, kMaxSeries),
        migration_bytes(*registry, kMigrationBytes, {"from", "to"}, kMaxSeries),
        migration_seconds(*registry, kMigrationSeconds, {"kind"}, kMaxSeries),
        events(*registry, kEvents, {"type"}, kMaxSeries),
        replans(*registry, kReplans, {"outcome"}, kMaxSeries),
        plan_moved_bytes(*registry, kPlanMovedBytes, {}, 1),
        violations(*registry, kWindowViolations, {}, 1) {
    // A counter that exists from the start shows its first increment as a rise; one that appears with it doesn't.
    for (const char* reason : {"connection", "lease"}) {
      sessions_reclaimed.Get({reason});
      for (Tier tier : kAllTiers) bytes_reclaimed.Get({reason, TierName(tier)});
    }
    for (const char* reason : {"QUOTA_EXCEEDED", "POOL_EXHAUSTED", "DRIVER_ERROR"}) refused.Get({reason});
    for (const char* kind : {"move", "demote", "promote"}) {
      for (const char* result : {"done", "failed"}) migrations.Get({kind, result});
      migration_seconds.Get({kind});
    }
    for (Tier remote : {Tier::kHost, Tier::kCxl}) {
      migration_bytes.Get({TierName(Tier::kHbm), TierName(remote)});
      migration_bytes.Get({TierName(remote), TierName(Tier::kHbm)});
    }
    for (const char* outcome : {"changed", "unchanged", "failed"}) replans.Get({outcome});
    plan_moved_bytes.Get({});
    violations.Get({});
  }

  const std::shared_ptr<SnapshotCollector> state;
  const std::shared_ptr<prometheus::Registry> registry;
  CountedFamily<Histogram> rpc;
  CountedFamily<Histogram> round_trip;
  // Of the links that there are: to find them by label costs more than to observe, and it is done at every round of the
  // congestion loop.
  std::array<std::atomic<Histogram*>, 16> round_trip_of_link{};
  CountedFamily<Counter> sessions_reclaimed;
  CountedFamily<Counter> bytes_reclaimed;
  CountedFamily<Counter> refused;
  CountedFamily<Counter> migrations;
  CountedFamily<Counter> migration_bytes;
  CountedFamily<Counter> migration_seconds;
  CountedFamily<Counter> events;
  CountedFamily<Counter> replans;
  CountedFamily<Counter> plan_moved_bytes;
  CountedFamily<Counter> violations;

  mutable absl::Mutex server_mutex;
  std::unique_ptr<HttpServer> server ABSL_GUARDED_BY(server_mutex);
};

Metrics::Metrics(std::function<Snapshot()> snapshot) : impl_(std::make_unique<Impl>(std::move(snapshot))) {}

Metrics::~Metrics() = default;

absl::Status Metrics::Serve(const std::string& address) {
  absl::MutexLock lock(&impl_->server_mutex);
  if (impl_->server != nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("metrics are served at ", impl_->server->address(), " already"));
  }
  DAK_ASSIGN_OR_RETURN(impl_->server, HttpServer::Start(address));
  impl_->server->Expose(impl_->state);
  impl_->server->Expose(impl_->registry);
  return absl::OkStatus();
}

std::string Metrics::address() const {
  absl::MutexLock lock(&impl_->server_mutex);
  return impl_->server == nullptr ? "" : impl_->server->address();
}

void Metrics::ObserveRpc(const std::string& method, const std::string& code, double seconds) {
  impl_->rpc.Get({method, code}).Observe(seconds);
}

void Metrics::CountReclaimedSession(const std::string& reason, const std::array<uint64_t, kTierCount>& bytes) {
  impl_->sessions_reclaimed.Get({reason}).Increment();
  for (Tier tier : kAllTiers) {
    impl_->bytes_reclaimed.Get({reason, TierName(tier)}).Increment(static_cast<double>(bytes[TierIndex(tier)]));
  }
}

void Metrics::CountRefusedAllocation(const std::string& reason) { impl_->refused.Get({reason}).Increment(); }

void Metrics::CountEvent(const std::string& type) { impl_->events.Get({type}).Increment(); }

void Metrics::CountMigration(const std::string& kind, const std::string& result, uint64_t copy_ns) {
  impl_->migrations.Get({kind, result}).Increment();
  impl_->migration_seconds.Get({kind}).Increment(static_cast<double>(copy_ns) / 1e9);
}

void Metrics::CountMigratedBytes(const std::array<std::array<uint64_t, kTierCount>, kTierCount>& bytes) {
  for (Tier from : kAllTiers) {
    for (Tier to : kAllTiers) {
      const uint64_t count = bytes[TierIndex(from)][TierIndex(to)];
      if (count == 0) continue;
      impl_->migration_bytes.Get({TierName(from), TierName(to)}).Increment(static_cast<double>(count));
    }
  }
}

void Metrics::CountReplan(const std::string& outcome, uint64_t moved_bytes) {
  impl_->replans.Get({outcome}).Increment();
  impl_->plan_moved_bytes.Get({}).Increment(static_cast<double>(moved_bytes));
}

void Metrics::ObserveRoundTrip(uint32_t link, double seconds) {
  Histogram* series = link < impl_->round_trip_of_link.size() ? impl_->round_trip_of_link[link].load() : nullptr;
  if (series == nullptr) {
    series = &impl_->round_trip.Get({absl::StrCat(link)});
    if (link < impl_->round_trip_of_link.size()) impl_->round_trip_of_link[link] = series;
  }
  series->Observe(seconds);
}

void Metrics::CountWindowViolation(uint64_t session_id, const std::string&) {
  impl_->violations.Get({}).Increment();
  impl_->state->CountViolation(session_id);
}

std::string Metrics::Render() const {
  std::vector<prometheus::MetricFamily> families = impl_->state->Collect();
  std::vector<prometheus::MetricFamily> counted = impl_->registry->Collect();
  families.insert(families.end(), std::make_move_iterator(counted.begin()), std::make_move_iterator(counted.end()));
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return out.str();
}

}  // namespace dak::monitoring

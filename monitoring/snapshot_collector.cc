#include "monitoring/snapshot_collector.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "allocator/ledger.h"
#include "monitoring/families.h"
#include "monitoring/labels.h"

namespace dak::monitoring {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using Labels = std::vector<ClientMetric::Label>;

constexpr double kNsPerSecond = 1e9;

// Appends samples to one family; leaves none out, so that a family without samples isn't exposed at all.
class FamilyWriter {
 public:
  explicit FamilyWriter(const FamilySpec& spec) {
    family_.name = spec.name;
    family_.help = spec.help;
    family_.type = spec.type;
  }
  void Add(Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    if (family_.type == prometheus::MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    family_.metric.push_back(std::move(metric));
  }
  void FlushTo(std::vector<MetricFamily>& out) {
    if (!family_.metric.empty()) out.push_back(std::move(family_));
  }

 private:
  MetricFamily family_;
};

Labels TierLabels(Labels labels, Tier tier) {
  labels.push_back({"tier", TierName(tier)});
  return labels;
}

Labels SessionLabels(const SessionSample& session) {
  return {{"session", absl::StrCat(session.session_id)}, {"name", LabelValue(session.name)}};
}

void CollectNode(const Snapshot& snapshot, std::vector<MetricFamily>& out) {
  FamilyWriter build(kBuildInfo), device(kDeviceInfo), publications(kPublications);
  build.Add({{"version", LabelValue(snapshot.version)}}, 1);
  device.Add({{"kind", LabelValue(snapshot.device_kind)}, {"name", LabelValue(snapshot.device_name)}}, 1);
  publications.Add({}, snapshot.publication_count);
  for (FamilyWriter* family : {&build, &device, &publications}) family->FlushTo(out);
}

void CollectPools(const Snapshot& snapshot, std::vector<MetricFamily>& out) {
  FamilyWriter capacity(kPoolCapacity), bytes(kPoolBytes), segments(kPoolSegments), unplaced(kPoolUnplaced);
  for (const PoolSample& pool : snapshot.pools) {
    const Labels labels = TierLabels({}, pool.tier);
    capacity.Add(labels, pool.capacity_bytes);
    for (const auto& [state, value] : {std::pair<const char*, uint64_t>{"free", pool.free_bytes},
                                       {"session", pool.session_bytes},
                                       {"published", pool.published_bytes}}) {
      Labels with_state = labels;
      with_state.push_back({"state", state});
      bytes.Add(std::move(with_state), value);
    }
    segments.Add(labels, pool.segment_count);
    unplaced.Add(labels, pool.unplaced_bytes);
  }
  for (FamilyWriter* family : {&capacity, &bytes, &segments, &unplaced}) family->FlushTo(out);
}

void CollectLinks(const Snapshot& snapshot, std::vector<MetricFamily>& out) {
  FamilyWriter target(kLinkTarget), bandwidth(kLinkBandwidth), migration(kLinkMigrationRate);
  for (const LinkSample& link : snapshot.links) {
    const Labels labels = {{"link", absl::StrCat(link.link)}};
    target.Add(labels, link.target_bytes);
    bandwidth.Add(labels, link.bandwidth_bytes_per_s);
    migration.Add(labels, link.migration_bytes_per_s);
  }
  for (FamilyWriter* family : {&target, &bandwidth, &migration}) family->FlushTo(out);
}

absl::Span<const SessionSample> Listed(const Snapshot& snapshot) {
  return absl::MakeConstSpan(snapshot.sessions).subspan(0, kMaxListedSessions);
}

void CollectHoldings(const Snapshot& snapshot, std::vector<MetricFamily>& out) {
  FamilyWriter count(kSessions), unlisted(kSessionsUnlisted), tensors(kSessionTensors), used(kSessionUsed),
      limit(kSessionLimit), version(kSessionPlanVersion), predicted(kSessionPlanPredicted);
  const auto listed = Listed(snapshot);
  count.Add({}, snapshot.sessions.size());
  unlisted.Add({}, snapshot.sessions.size() - listed.size());
  for (const SessionSample& session : listed) {
    const Labels labels = SessionLabels(session);
    tensors.Add(labels, session.tensor_count);
    for (const PoolSample& pool : snapshot.pools) {
      const size_t i = TierIndex(pool.tier);
      used.Add(TierLabels(labels, pool.tier), session.used_bytes[i]);
      if (session.limit_bytes[i] != kNoLimit) limit.Add(TierLabels(labels, pool.tier), session.limit_bytes[i]);
    }
    version.Add(labels, session.plan_version);
    if (session.plan_version != 0) predicted.Add(labels, session.plan_predicted_s);
  }
  for (FamilyWriter* family : {&count, &unlisted, &tensors, &used, &limit, &version, &predicted}) family->FlushTo(out);
}

void CollectTraffic(const Snapshot& snapshot, const absl::btree_map<uint64_t, uint64_t>& violations,
                    std::vector<MetricFamily>& out) {
  FamilyWriter bytes(kSessionRemoteBytes), rate(kSessionRemoteRate), window(kSessionWindow), peak(kSessionInFlightPeak),
      seconds(kSessionRoundTripSeconds), trips(kSessionRoundTrips), violating(kSessionViolating),
      violated(kSessionViolations);
  for (const SessionSample& session : Listed(snapshot)) {
    const Labels labels = SessionLabels(session);
    bytes.Add(labels, session.remote_bytes);
    rate.Add(labels, session.remote_bytes_per_s);
    window.Add(labels, session.window_bytes);
    peak.Add(labels, session.inflight_peak_bytes);
    seconds.Add(labels, session.round_trip_ns_sum / kNsPerSecond);
    trips.Add(labels, session.round_trips);
    violating.Add(labels, session.violating ? 1 : 0);
    if (auto it = violations.find(session.session_id); it != violations.end()) violated.Add(labels, it->second);
  }
  for (FamilyWriter* family : {&bytes, &rate, &window, &peak, &seconds, &trips, &violating, &violated}) {
    family->FlushTo(out);
  }
}

}  // namespace

SnapshotCollector::SnapshotCollector(std::function<Snapshot()> snapshot) : snapshot_(std::move(snapshot)) {}

std::vector<MetricFamily> SnapshotCollector::Collect() const {
  uint64_t scrape = 0;
  {
    absl::MutexLock lock(&mutex_);
    scrape = ++scrapes_;
  }
  const Snapshot snapshot = snapshot_();
  std::vector<MetricFamily> out;
  CollectNode(snapshot, out);
  CollectPools(snapshot, out);
  CollectHoldings(snapshot, out);
  CollectTraffic(snapshot, TakeViolations(snapshot, scrape), out);
  CollectLinks(snapshot, out);
  return out;
}

void SnapshotCollector::CountViolation(uint64_t session_id) {
  absl::MutexLock lock(&mutex_);
  Violations& entry = violations_[session_id];
  ++entry.count;
  entry.last_scrape = scrapes_;
  if (violations_.size() > 2 * kMaxListedSessions) {
    // Session ids grow, so the smallest is the oldest.
    auto oldest = violations_.begin();
    if (oldest->first == session_id) ++oldest;
    violations_.erase(oldest);
  }
}

absl::btree_map<uint64_t, uint64_t> SnapshotCollector::TakeViolations(const Snapshot& snapshot, uint64_t scrape) const {
  absl::flat_hash_set<uint64_t> present;
  for (const SessionSample& session : snapshot.sessions) present.insert(session.session_id);
  absl::btree_map<uint64_t, uint64_t> counts;
  absl::MutexLock lock(&mutex_);
  for (auto it = violations_.begin(); it != violations_.end();) {
    if (present.contains(it->first)) {
      counts[it->first] = it->second.count;
    } else if (it->second.last_scrape < scrape) {
      // Counted before this scrape asked for the snapshot: the session isn't a newer one that the snapshot missed.
      it = violations_.erase(it);
      continue;
    }
    ++it;
  }
  return counts;
}

}  // namespace dak::monitoring

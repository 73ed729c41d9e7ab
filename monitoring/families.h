// Every metric family of dakd, in one table: what docs/metrics.md documents and the dashboards and alerts may name.
//
// Names follow Prometheus: prefix dak_, base units (bytes, seconds), counters end in _total. Thread safety: constants.
#ifndef DAK_MONITORING_FAMILIES_H_
#define DAK_MONITORING_FAMILIES_H_

#include <string>

#include "prometheus/metric_type.h"

namespace dak::monitoring {

struct FamilySpec {
  const char* name;
  prometheus::MetricType type;
  const char* help;
};

// The node.
inline constexpr FamilySpec kBuildInfo = {"dak_build_info", prometheus::MetricType::Gauge,
                                          "Always 1; the labels say which version of dakd runs."};
inline constexpr FamilySpec kDeviceInfo = {"dak_device_info", prometheus::MetricType::Gauge,
                                           "Always 1; the labels say which device dakd manages."};

// Pools.
inline constexpr FamilySpec kPoolCapacity = {"dak_pool_capacity_bytes", prometheus::MetricType::Gauge,
                                             "Size of the tier's pool."};
inline constexpr FamilySpec kPoolBytes = {"dak_pool_bytes", prometheus::MetricType::Gauge,
                                          "Bytes of the tier's pool by state; the states sum up to the capacity."};
inline constexpr FamilySpec kPoolSegments = {"dak_pool_segments", prometheus::MetricType::Gauge,
                                             "Physical segments that exist in the tier's pool."};
inline constexpr FamilySpec kPoolUnplaced = {"dak_pool_unplaced_bytes", prometheus::MetricType::Gauge,
                                             "Bytes inside segments that no tensor covers."};

// Sessions and publications.
inline constexpr FamilySpec kSessions = {"dak_sessions", prometheus::MetricType::Gauge, "Open sessions."};
inline constexpr FamilySpec kSessionsUnlisted = {
    "dak_sessions_unlisted", prometheus::MetricType::Gauge,
    "Open sessions without series of their own, because there are more than the exporter lists."};
inline constexpr FamilySpec kPublications = {"dak_publications", prometheus::MetricType::Gauge,
                                             "Publications whose memory exists."};
inline constexpr FamilySpec kSessionTensors = {"dak_session_tensors", prometheus::MetricType::Gauge,
                                               "Tensors that the session holds."};
inline constexpr FamilySpec kSessionUsed = {"dak_session_used_bytes", prometheus::MetricType::Gauge,
                                            "Physical bytes of the tier that count against the session's quota."};
inline constexpr FamilySpec kSessionLimit = {
    "dak_session_quota_limit_bytes", prometheus::MetricType::Gauge,
    "Most bytes of the tier that the session may hold; absent where there is no limit."};
inline constexpr FamilySpec kSessionPlanVersion = {"dak_session_plan_version", prometheus::MetricType::Gauge,
                                                   "Version of the session's plan in force; 0 means none."};
inline constexpr FamilySpec kSessionPlanPredicted = {
    "dak_session_plan_predicted_seconds", prometheus::MetricType::Gauge,
    "Time of one pass that the plan in force predicts; absent without a plan."};

// Links, by session.
inline constexpr FamilySpec kSessionRemoteBytes = {"dak_session_remote_bytes_total", prometheus::MetricType::Counter,
                                                   "Bytes that the session's kernels read from remote tiers."};
inline constexpr FamilySpec kSessionRemoteRate = {
    "dak_session_remote_bytes_per_second", prometheus::MetricType::Gauge,
    "Rate of the session's remote reads over the controller's last interval."};
inline constexpr FamilySpec kSessionWindow = {"dak_session_window_bytes", prometheus::MetricType::Gauge,
                                              "Most bytes that the session may have in flight now."};
inline constexpr FamilySpec kSessionInFlightPeak = {
    "dak_session_in_flight_peak_bytes", prometheus::MetricType::Gauge,
    "Most bytes that the session had in flight since it opened, as its kernels report."};
inline constexpr FamilySpec kSessionRoundTripSeconds = {
    "dak_session_round_trip_seconds_total", prometheus::MetricType::Counter,
    "Sum of the sampled round trips of the session's remote reads."};
inline constexpr FamilySpec kSessionRoundTrips = {"dak_session_round_trips_total", prometheus::MetricType::Counter,
                                                  "Sampled round trips of the session's remote reads."};
inline constexpr FamilySpec kSessionViolating = {
    "dak_session_window_violating", prometheus::MetricType::Gauge,
    "1 if the session read past its window in the controller's last interval, else 0."};
inline constexpr FamilySpec kSessionViolations = {
    "dak_session_window_violations_total", prometheus::MetricType::Counter,
    "Intervals in which the session read past its window; absent until the first."};

// Links.
inline constexpr FamilySpec kLinkTarget = {"dak_link_window_target_bytes", prometheus::MetricType::Gauge,
                                           "The sum that the windows of the link's sessions are held at."};
inline constexpr FamilySpec kLinkBandwidth = {"dak_link_bandwidth_bytes_per_second", prometheus::MetricType::Gauge,
                                              "Bandwidth of the link, as profiled or configured."};
inline constexpr FamilySpec kLinkMigrationRate = {
    "dak_link_migration_bytes_per_second", prometheus::MetricType::Gauge,
    "Rate that the congestion controller leaves to migrations now; 0 while there are none."};

// What happens, counted as it happens.
inline constexpr FamilySpec kRpcDuration = {"dak_rpc_duration_seconds", prometheus::MetricType::Histogram,
                                            "Time from an RPC's arrival to its answer."};
inline constexpr FamilySpec kLinkRoundTrip = {
    "dak_link_round_trip_seconds", prometheus::MetricType::Histogram,
    "Mean round trip of one session's remote reads, one observation per controller interval with reads."};
inline constexpr FamilySpec kSessionsReclaimed = {"dak_sessions_reclaimed_total", prometheus::MetricType::Counter,
                                                  "Sessions that ended without being closed."};
inline constexpr FamilySpec kReclaimedBytes = {"dak_reclaimed_bytes_total", prometheus::MetricType::Counter,
                                               "Bytes that came back to the pools from sessions that were reclaimed."};
inline constexpr FamilySpec kAllocationsRefused = {"dak_allocations_refused_total", prometheus::MetricType::Counter,
                                                   "Allocations that were refused."};
inline constexpr FamilySpec kMigrations = {"dak_migrations_total", prometheus::MetricType::Counter,
                                           "Moves of tensors, demotions and promotions of sessions, by how they went."};
inline constexpr FamilySpec kMigrationBytes = {"dak_migration_bytes_total", prometheus::MetricType::Counter,
                                               "Bytes that dakd copied for migrations, failed ones included."};
inline constexpr FamilySpec kMigrationSeconds = {"dak_migration_copy_seconds_total", prometheus::MetricType::Counter,
                                                 "Time that migrations spent copying, failed ones included."};
inline constexpr FamilySpec kEvents = {"dak_events_total", prometheus::MetricType::Counter, "State changes."};
inline constexpr FamilySpec kWindowViolations = {
    "dak_window_violations_total", prometheus::MetricType::Counter,
    "Intervals in which a session read past its window, over all sessions that ever were."};

}  // namespace dak::monitoring

#endif  // DAK_MONITORING_FAMILIES_H_

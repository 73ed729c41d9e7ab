// What Render() says of the state, and how counting and bounds behave.
#include "monitoring/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "monitoring/labels.h"
#include "monitoring/snapshot_collector.h"
#include "tests/unit/monitoring/test_support.h"

namespace dak::monitoring {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using testing::Parse;
using testing::PopulatedMetrics;
using testing::SampleSnapshot;

TEST(MetricsTest, ShowsPoolsByTierAndState) {
  const auto samples = Parse(PopulatedMetrics()->Render()).samples;
  EXPECT_EQ(samples.at(R"(dak_pool_capacity_bytes{tier="hbm"})"), 100 << 20);
  EXPECT_EQ(samples.at(R"(dak_pool_bytes{tier="hbm",state="free"})"), 60 << 20);
  EXPECT_EQ(samples.at(R"(dak_pool_bytes{tier="hbm",state="session"})"), 30 << 20);
  EXPECT_EQ(samples.at(R"(dak_pool_bytes{tier="hbm",state="published"})"), 10 << 20);
  EXPECT_EQ(samples.at(R"(dak_pool_segments{tier="hbm"})"), 3);
  EXPECT_EQ(samples.at(R"(dak_pool_unplaced_bytes{tier="hbm"})"), 4096);
  EXPECT_EQ(samples.at(R"(dak_pool_capacity_bytes{tier="host"})"), 200 << 20);
  EXPECT_EQ(samples.at(R"(dak_pool_bytes{tier="host",state="published"})"), 0);
  EXPECT_THAT(PopulatedMetrics()->Render(), Not(HasSubstr("tier=\"cxl\",state")));
}

TEST(MetricsTest, ShowsSessionsInBaseUnits) {
  const auto samples = Parse(PopulatedMetrics()->Render()).samples;
  const std::string labels = R"({session="7",name="llama"})";
  EXPECT_EQ(samples.at("dak_sessions"), 2);
  EXPECT_EQ(samples.at("dak_sessions_unlisted"), 0);
  EXPECT_EQ(samples.at("dak_publications"), 1);
  EXPECT_EQ(samples.at("dak_session_tensors" + labels), 12);
  EXPECT_EQ(samples.at("dak_session_remote_bytes_total" + labels), 123456789);
  EXPECT_EQ(samples.at("dak_session_remote_bytes_per_second" + labels), 48.5e9);
  EXPECT_EQ(samples.at("dak_session_window_bytes" + labels), 131072);
  EXPECT_EQ(samples.at("dak_session_in_flight_peak_bytes" + labels), 262144);
  EXPECT_DOUBLE_EQ(samples.at("dak_session_round_trip_seconds_total" + labels), 2.5);
  EXPECT_EQ(samples.at("dak_session_round_trips_total" + labels), 1000);
  EXPECT_EQ(samples.at("dak_session_window_violating" + labels), 1);
  EXPECT_EQ(samples.at("dak_session_window_violations_total" + labels), 1);
  EXPECT_EQ(samples.at("dak_session_plan_version" + labels), 4);
  EXPECT_DOUBLE_EQ(samples.at("dak_session_plan_predicted_seconds" + labels), 0.0055);
  EXPECT_EQ(samples.at(R"(dak_session_used_bytes{session="7",name="llama",tier="host"})"), 10 << 20);
  EXPECT_EQ(samples.at(R"(dak_session_quota_limit_bytes{session="7",name="llama",tier="hbm"})"), 50 << 20);
}

TEST(MetricsTest, SaysWhereTheProfileComesFrom) {
  const auto samples = Parse(PopulatedMetrics()->Render()).samples;
  EXPECT_EQ(samples.at(R"(dak_profile_info{source="measured"})"), 1);
  EXPECT_EQ(samples.at("dak_profile_failures"), 2);
  EXPECT_EQ(samples.at("dak_profile_measured_timestamp_seconds"), 1'700'000'000);
  Metrics unmeasured([] { return Snapshot(); });
  EXPECT_THAT(Parse(unmeasured.Render()).samples, Not(Contains(Key("dak_profile_measured_timestamp_seconds"))));
}

TEST(MetricsTest, CountsReplansAndWhatTheyMove) {
  Metrics metrics([] { return Snapshot(); });
  EXPECT_EQ(Parse(metrics.Render()).samples.at(R"(dak_replans_total{outcome="failed"})"), 0);
  metrics.CountReplan("changed", 100);
  metrics.CountReplan("changed", 20);
  metrics.CountReplan("unchanged", 0);
  const auto samples = Parse(metrics.Render()).samples;
  EXPECT_EQ(samples.at(R"(dak_replans_total{outcome="changed"})"), 2);
  EXPECT_EQ(samples.at(R"(dak_replans_total{outcome="unchanged"})"), 1);
  EXPECT_EQ(samples.at("dak_plan_moved_bytes_total"), 120);
}

TEST(MetricsTest, LeavesOutWhatASessionDoesNotHave) {
  const auto samples = Parse(PopulatedMetrics()->Render()).samples;
  EXPECT_THAT(samples, Not(Contains(Key(R"(dak_session_quota_limit_bytes{session="7",name="llama",tier="host"})"))));
  EXPECT_THAT(samples, Not(Contains(Key(R"(dak_session_plan_predicted_seconds{session="8",name="idle"})"))));
  EXPECT_THAT(samples, Not(Contains(Key(R"(dak_session_window_violations_total{session="8",name="idle"})"))));
  EXPECT_EQ(samples.at(R"(dak_session_plan_version{session="8",name="idle"})"), 0);
}

TEST(MetricsTest, ShowsLinksAndCountsWhatHappened) {
  const auto samples = Parse(PopulatedMetrics()->Render()).samples;
  EXPECT_EQ(samples.at(R"(dak_link_window_target_bytes{link="0"})"), 184'000);
  EXPECT_EQ(samples.at(R"(dak_link_bandwidth_bytes_per_second{link="0"})"), 51.1e9);
  EXPECT_EQ(samples.at(R"(dak_link_unexplained_bytes{link="0"})"), 600'000);
  EXPECT_EQ(samples.at(R"(dak_link_round_trip_seconds_count{link="0"})"), 1);
  EXPECT_EQ(samples.at(R"(dak_link_round_trip_seconds_bucket{link="0",le="2e-06"})"), 0);
  EXPECT_EQ(samples.at(R"(dak_link_round_trip_seconds_bucket{link="0",le="3e-06"})"), 1);
  EXPECT_EQ(samples.at(R"(dak_rpc_duration_seconds_count{code="OK",method="dak.v1.TensorService/AllocateTensors"})"),
            1);
  EXPECT_EQ(samples.at(R"(dak_sessions_reclaimed_total{reason="connection"})"), 1);
  EXPECT_EQ(samples.at(R"(dak_reclaimed_bytes_total{reason="connection",tier="host"})"), 2 << 20);
  EXPECT_EQ(samples.at(R"(dak_allocations_refused_total{reason="QUOTA_EXCEEDED"})"), 1);
  EXPECT_EQ(samples.at(R"(dak_events_total{type="SESSION_OPENED"})"), 1);
  EXPECT_EQ(samples.at("dak_window_violations_total"), 1);
}

TEST(MetricsTest, CountersWithKnownReasonsStartAtZero) {
  Metrics metrics(SampleSnapshot);
  const auto samples = Parse(metrics.Render()).samples;
  EXPECT_EQ(samples.at(R"(dak_sessions_reclaimed_total{reason="lease"})"), 0);
  EXPECT_EQ(samples.at(R"(dak_reclaimed_bytes_total{reason="lease",tier="cxl"})"), 0);
  EXPECT_EQ(samples.at(R"(dak_allocations_refused_total{reason="DRIVER_ERROR"})"), 0);
  EXPECT_EQ(samples.at("dak_window_violations_total"), 0);
}

TEST(MetricsTest, AsksForOneSnapshotPerRender) {
  int calls = 0;
  Metrics metrics([&] {
    ++calls;
    return SampleSnapshot();
  });
  metrics.Render();
  EXPECT_EQ(calls, 1);
  metrics.Render();
  EXPECT_EQ(calls, 2);
}

TEST(MetricsTest, SeriesOfGoneSessionsAreGone) {
  Snapshot snapshot = SampleSnapshot();
  Metrics metrics([&] { return snapshot; });
  metrics.CountWindowViolation(7, "llama");
  EXPECT_THAT(metrics.Render(), HasSubstr("session=\"7\""));
  const SessionSample gone = snapshot.sessions.front();
  snapshot.sessions.erase(snapshot.sessions.begin());
  EXPECT_THAT(metrics.Render(), Not(HasSubstr("session=\"7\"")));
  EXPECT_EQ(Parse(metrics.Render()).samples.at("dak_window_violations_total"), 1);
  // Its count is forgotten with it, not kept for whoever comes.
  snapshot.sessions.push_back(gone);
  EXPECT_THAT(metrics.Render(), Not(HasSubstr("dak_session_window_violations_total")));
}

TEST(MetricsTest, ViolationOfASessionNewerThanTheSnapshotIsKept) {
  Snapshot snapshot = SampleSnapshot();
  Metrics* counter = nullptr;
  bool opened = false;
  Metrics metrics([&] {
    // Session 9 opens and violates while this scrape holds an older picture.
    if (!opened) counter->CountWindowViolation(9, "new");
    return snapshot;
  });
  counter = &metrics;
  metrics.Render();
  opened = true;
  SessionSample session;
  session.session_id = 9;
  session.name = "new";
  snapshot.sessions.push_back(session);
  EXPECT_EQ(Parse(metrics.Render()).samples.at(R"(dak_session_window_violations_total{session="9",name="new"})"), 1);
}

TEST(MetricsTest, ViolationsBetweenScrapesAreBounded) {
  SnapshotCollector collector([] {
    Snapshot snapshot;
    for (uint64_t id = 1; id <= 3 * kMaxListedSessions; ++id) {
      snapshot.sessions.emplace_back().session_id = id;
    }
    return snapshot;
  });
  for (uint64_t id = 1; id <= 3 * kMaxListedSessions; ++id) collector.CountViolation(id);
  for (const auto& family : collector.Collect()) {
    EXPECT_NE(family.name, "dak_session_window_violations_total")
        << "only the newest sessions' are held, unlisted here";
  }
  collector.CountViolation(1);  // the oldest of all comes last: it isn't the one that goes
  size_t listed = 0;
  for (const auto& family : collector.Collect()) {
    if (family.name == "dak_session_window_violations_total") listed = family.metric.size();
  }
  EXPECT_EQ(listed, 1u);
}

TEST(MetricsTest, ListsABoundedNumberOfSessions) {
  Metrics metrics([] {
    Snapshot snapshot;
    for (uint64_t id = 1; id <= kMaxListedSessions + 5; ++id) {
      snapshot.sessions.emplace_back().session_id = id;
    }
    return snapshot;
  });
  const auto samples = Parse(metrics.Render()).samples;
  EXPECT_EQ(samples.at("dak_sessions"), kMaxListedSessions + 5);
  EXPECT_EQ(samples.at("dak_sessions_unlisted"), 5);
  EXPECT_THAT(samples, Contains(Key(R"(dak_session_tensors{session="1024",name="unknown"})")));
  EXPECT_THAT(samples, Not(Contains(Key(R"(dak_session_tensors{session="1025",name="unknown"})"))));
}

TEST(MetricsTest, CountsUnforeseenLabelValuesAsOther) {
  Metrics metrics(SampleSnapshot);
  for (int i = 0; i < 1000; ++i) {
    metrics.ObserveRpc("no.such.Service/Method" + std::to_string(i), "UNIMPLEMENTED", 0.001);
    metrics.CountEvent("EVENT" + std::to_string(i));
  }
  const auto samples = Parse(metrics.Render()).samples;
  EXPECT_EQ(samples.at(R"(dak_rpc_duration_seconds_count{code="other",method="other"})"), 1000 - 256);
  EXPECT_EQ(samples.at(R"(dak_events_total{type="other"})"), 1000 - 64);
  EXPECT_EQ(samples.at(R"(dak_events_total{type="EVENT0"})"), 1);
}

TEST(MetricsTest, HostileNamesStayInsideTheirLabel) {
  Metrics metrics([] {
    Snapshot snapshot = SampleSnapshot();
    snapshot.sessions.front().name = "a\"} 1\nevil_metric 1\n\xff\xfe\\ \x1b[31m";
    snapshot.device_name = std::string(1000, 'x');
    return snapshot;
  });
  metrics.CountEvent("\"\\\n");
  const std::string text = metrics.Render();
  EXPECT_THAT(text, HasSubstr(R"(dak_session_tensors{session="7",name="a\"} 1?evil_metric 1???\\ ?[31m"} 12)"));
  EXPECT_THAT(text, HasSubstr("name=\"" + std::string(kMaxLabelBytes, 'x') + "\""));
  EXPECT_THAT(text, HasSubstr(R"(dak_events_total{type="\"\\?"} 1)"));
  EXPECT_THAT(Parse(text).families, Not(Contains(Key("evil_metric"))));
}

TEST(LabelValueTest, KeepsWhatIsPrintableAndIsNeverEmpty) {
  EXPECT_EQ(LabelValue("NVIDIA H100 80GB HBM3"), "NVIDIA H100 80GB HBM3");
  EXPECT_EQ(LabelValue(""), "unknown");
  EXPECT_EQ(LabelValue("\x7f\x80"), "??");
  EXPECT_EQ(LabelValue(std::string(129, 'a')).size(), kMaxLabelBytes);
}

TEST(MetricsTest, CountsFromManyThreadsWithoutLoss) {
  Metrics metrics(SampleSnapshot);
  constexpr int kThreads = 4, kEach = 5000;
  std::atomic<bool> done = false;
  std::thread reader([&] {
    while (!done) metrics.Render();
  });
  std::vector<std::thread> writers;
  for (int t = 0; t < kThreads; ++t) {
    writers.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        metrics.ObserveRpc("m" + std::to_string((t + i) % 8), "OK", 1e-4);
        metrics.CountWindowViolation(7, "llama");
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  done = true;
  reader.join();
  const auto samples = Parse(metrics.Render()).samples;
  double rpcs = 0;
  for (int m = 0; m < 8; ++m) {
    rpcs += samples.at("dak_rpc_duration_seconds_count{code=\"OK\",method=\"m" + std::to_string(m) + "\"}");
  }
  EXPECT_EQ(rpcs, kThreads * kEach);
  EXPECT_EQ(samples.at("dak_window_violations_total"), kThreads * kEach);
  EXPECT_EQ(samples.at(R"(dak_session_window_violations_total{session="7",name="llama"})"), kThreads * kEach);
}

}  // namespace
}  // namespace dak::monitoring

// What a scrape of a real daemon says, against what its API says of the same moment.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "dak/v1/control_page.h"
#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"
#include "tests/unit/monitoring/test_support.h"

namespace dak::daemon {
namespace {

using monitoring::testing::Body;
using monitoring::testing::HttpGet;
using monitoring::testing::Parse;
using monitoring::testing::ReadFile;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;

const char* TierText(v1::Tier tier) { return TierName(static_cast<Tier>(tier)); }

class DaemonScrapeTest : public ::testing::Test {
 protected:
  std::map<std::string, double> Scrape() {
    return Parse(Body(HttpGet(daemon_->metrics_address(), "/metrics"))).samples;
  }
  const std::string& dir() const { return daemon_.options().runtime_dir; }

  TestDaemon daemon_{[](DaemonOptions* options) { options->metrics_address = "127.0.0.1:0"; }};
};

TEST_F(DaemonScrapeTest, FiguresEqualTheApis) {
  TestSession one(dir(), "one", {{v1::TIER_HBM, 32 * kMiB}});
  TestSession two(dir(), "two");
  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(one.Allocate("a", {TestSession::Spec("w", 1024, 1024, 0.5)}, &allocated), IsOk());
  ASSERT_THAT(two.Allocate("p", {TestSession::Spec("x", 512, 512), TestSession::Spec("y", 100, 100)}, &allocated),
              IsOk());
  ASSERT_THAT(two.Publish("p", "pub", "f"), IsOk());
  ASSERT_THAT(two.Allocate("q", {TestSession::Spec("z", 64, 64)}, &allocated), IsOk());

  v1::ListPoolsResponse pools;
  ASSERT_THAT(Call(*one.stubs.node, &v1::NodeService::Stub::ListPools, {}, &pools), IsOk());
  v1::ListSessionsResponse sessions;
  ASSERT_THAT(Call(*one.stubs.session, &v1::SessionService::Stub::ListSessions, {}, &sessions), IsOk());
  v1::GetQuotasResponse quotas;
  ASSERT_THAT(Call(*one.stubs.node, &v1::NodeService::Stub::GetQuotas, {}, &quotas), IsOk());
  const auto samples = Scrape();

  ASSERT_EQ(pools.pools_size(), 2);
  for (const v1::PoolInfo& pool : pools.pools()) {
    const std::string tier = absl::StrCat("tier=\"", TierText(pool.tier()), "\"");
    const auto state = [&](const char* name) {
      return samples.at(absl::StrCat("dak_pool_bytes{", tier, ",state=\"", name, "\"}"));
    };
    EXPECT_EQ(samples.at(absl::StrCat("dak_pool_capacity_bytes{", tier, "}")), pool.capacity_bytes());
    EXPECT_EQ(state("free"), pool.free_bytes());
    EXPECT_EQ(state("session"), pool.session_bytes());
    EXPECT_EQ(state("published"), pool.published_bytes());
    EXPECT_EQ(state("free") + state("session") + state("published"), pool.capacity_bytes());
    EXPECT_EQ(samples.at(absl::StrCat("dak_pool_segments{", tier, "}")), pool.segment_count());
    EXPECT_EQ(samples.at(absl::StrCat("dak_pool_unplaced_bytes{", tier, "}")), pool.unplaced_bytes());
  }
  EXPECT_GT(pools.pools(0).published_bytes(), 0u);
  EXPECT_GT(pools.pools(1).session_bytes(), 0u);
  EXPECT_EQ(samples.at("dak_sessions"), 2);
  EXPECT_EQ(samples.at("dak_publications"), 1);
  for (const v1::SessionInfo& session : sessions.sessions()) {
    const std::string labels = absl::StrCat("session=\"", session.session_id(), "\",name=\"", session.name(), "\"");
    EXPECT_EQ(samples.at(absl::StrCat("dak_session_tensors{", labels, "}")), session.tensor_count());
  }
  for (const v1::SessionQuota& quota : quotas.quotas()) {
    const char* name = quota.session_id() == one.id() ? "one" : "two";
    const std::string labels = absl::StrCat("{session=\"", quota.session_id(), "\",name=\"", name, "\",tier=\"",
                                            TierText(quota.tier()), "\"}");
    if (quota.tier() == v1::TIER_CXL) continue;  // there is no such pool, so no series
    EXPECT_EQ(samples.at("dak_session_used_bytes" + labels), quota.used_bytes()) << labels;
    if (quota.limit_bytes() == std::numeric_limits<uint64_t>::max()) {
      EXPECT_THAT(samples, Not(Contains(Key("dak_session_quota_limit_bytes" + labels))));
    } else {
      EXPECT_EQ(samples.at("dak_session_quota_limit_bytes" + labels), quota.limit_bytes()) << labels;
    }
  }
}

TEST_F(DaemonScrapeTest, CountsCallsAndRefusals) {
  TestSession session(dir(), "small", {{v1::TIER_HBM, 2 * kMiB}});
  v1::AllocateTensorsResponse allocated;
  EXPECT_FALSE(session.Allocate("g", {TestSession::Spec("big", 4096, 1024)}, &allocated).ok());
  ASSERT_THAT(session.Allocate("g", {TestSession::Spec("small", 64, 64)}, &allocated), IsOk());
  const auto samples = Scrape();
  EXPECT_EQ(samples.at(R"(dak_allocations_refused_total{reason="QUOTA_EXCEEDED"})"), 1);
  const auto calls = [&](const char* code) {
    return samples.at(absl::StrCat("dak_rpc_duration_seconds_count{code=\"", code,
                                   "\",method=\"dak.v1.TensorService/AllocateTensors\"}"));
  };
  EXPECT_EQ(calls("RESOURCE_EXHAUSTED"), 1);
  EXPECT_EQ(calls("OK"), 1);
  EXPECT_EQ(samples.at(R"(dak_events_total{type="SESSION_OPENED"})"), 1);
  EXPECT_EQ(samples.at(R"(dak_events_total{type="ALLOCATION_REFUSED"})"), 1);
}

TEST_F(DaemonScrapeTest, AClientThatDiesIsCountedAndItsSeriesEnd) {
  const std::string labels = [&] {
    TestSession session(dir(), "mortal");
    v1::AllocateTensorsResponse allocated;
    EXPECT_THAT(session.Allocate("g", {TestSession::Spec("w", 1024, 1024)}, &allocated), IsOk());
    const std::string series = absl::StrCat("{session=\"", session.id(), "\",name=\"mortal\"}");
    EXPECT_EQ(Scrape().at("dak_session_tensors" + series), 1);
    return series;
  }();
  ASSERT_TRUE(WaitUntil([&] { return Scrape().at(R"(dak_sessions_reclaimed_total{reason="connection"})") == 1; }));
  const auto samples = Scrape();
  EXPECT_THAT(samples, Not(Contains(Key("dak_session_tensors" + labels))));
  EXPECT_EQ(samples.at(R"(dak_reclaimed_bytes_total{reason="connection",tier="hbm"})"), 2 * kMiB);
  EXPECT_EQ(samples.at(R"(dak_pool_bytes{tier="hbm",state="session"})"), 0);
  EXPECT_EQ(samples.at("dak_sessions"), 0);
}

TEST_F(DaemonScrapeTest, WhatKernelsReportBecomesSeries) {
  TestSession session(dir(), "reader");
  const ReceivedReply pages = session.connection.Fetch({session.opened.control_ticket()});
  ASSERT_EQ(pages.fds.size(), 2u);
  void* mapped = ::mmap(nullptr, v1::kControlPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, pages.fds[1].get(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  auto* report = static_cast<v1::ReportPage*>(mapped);
  const std::string labels = absl::StrCat("{session=\"", session.id(), "\",name=\"reader\"}");
  // As a kernel does: counters that only grow, here a little with every look.
  uint64_t bytes = 0, trips = 0;
  ASSERT_TRUE(WaitUntil([&] {
    __atomic_store_n(&report->links[0].bytes, bytes += 4096, __ATOMIC_RELAXED);
    __atomic_store_n(&report->links[0].round_trips, ++trips, __ATOMIC_RELAXED);
    __atomic_store_n(&report->links[0].round_trip_ns, trips * 2600, __ATOMIC_RELAXED);
    const auto samples = Scrape();
    return samples.at("dak_session_remote_bytes_total" + labels) > 0 &&
           samples.at("dak_session_round_trips_total" + labels) > 0 &&
           samples.at("dak_session_window_bytes" + labels) > 0 &&
           samples.contains(R"(dak_link_round_trip_seconds_count{link="0"})");
  }));
  // Once the kernel rests, the counters stand where it left them.
  EXPECT_TRUE(WaitUntil([&] { return Scrape().at("dak_session_remote_bytes_total" + labels) == bytes; }));
  const auto samples = Scrape();
  EXPECT_EQ(samples.at("dak_session_round_trips_total" + labels), trips);
  EXPECT_NEAR(samples.at("dak_session_round_trip_seconds_total" + labels), trips * 2600e-9, 1e-12);
  EXPECT_GT(samples.at(R"(dak_link_bandwidth_bytes_per_second{link="0"})"), 0);
  ::munmap(mapped, v1::kControlPageBytes);
}

TEST_F(DaemonScrapeTest, EverythingExposedIsDocumented) {
  TestSession session(dir(), "any");
  const std::string documented = ReadFile(DAK_SOURCE_DIR "/docs/metrics.md");
  const auto families = Parse(Body(HttpGet(daemon_->metrics_address(), "/metrics"))).families;
  EXPECT_GT(families.size(), 20u);
  for (const auto& [name, family] : families) EXPECT_THAT(documented, HasSubstr("`" + name + "`"));
}

}  // namespace
}  // namespace dak::daemon

// The loop between report pages and control pages, tick by tick.
#include "daemon/congestion_loop.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "allocator/device/emulated_device.h"
#include "daemon/session/clock.h"
#include "dak/v1/control_page.h"

namespace dak::daemon {
namespace {

constexpr uint64_t kIntervalNs = 5'000'000;

// A session's end of its two pages.
class ClientPages {
 public:
  ClientPages(Device& device, uint64_t session_id) {
    std::vector<HandleGrant> handles;
    auto made = SessionPages::Create(device, session_id, 1, &handles);
    EXPECT_TRUE(made.ok());
    pages = *std::move(made);
    control = static_cast<v1::ControlPage*>(
        ::mmap(nullptr, v1::kControlPageBytes, PROT_READ, MAP_SHARED, handles[0].fd.get(), 0));
    report = static_cast<v1::ReportPage*>(
        ::mmap(nullptr, v1::kControlPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, handles[1].fd.get(), 0));
  }
  ~ClientPages() {
    ::munmap(control, v1::kControlPageBytes);
    ::munmap(report, v1::kControlPageBytes);
  }
  std::shared_ptr<SessionPages> pages;
  v1::ControlPage* control = nullptr;
  v1::ReportPage* report = nullptr;
};

class CongestionLoopTest : public testing::Test {
 protected:
  void Tick() { loop_.TickOnce(now_ns_ += kIntervalNs); }

  EmulatedDevice device_{EmulatedDeviceOptions{}};
  monitoring::Metrics metrics_{[] { return monitoring::Snapshot(); }};
  EventLog events_{4, {}};
  CongestionLoop loop_{
      {NodeLink{.profile = {.bandwidth_bytes_per_s = 1e9, .round_trip_ns = 100'000, .cliff_bytes = 1'000'000},
                .tiers = {Tier::kHost}}},
      {.target_bdp = 2, .min_window_bytes = 4096, .idle_after_ns = 20'000'000, .interval_ns = kIntervalNs},
      &events_,
      &metrics_};
  uint64_t now_ns_ = MonotonicNs();
};

TEST_F(CongestionLoopTest, WindowIsThereBeforeTheFirstTick) {
  ClientPages a(device_, 1);
  ASSERT_TRUE(loop_.Add(1, "a", 100, a.pages).ok());
  EXPECT_GT(a.control->links[0].window_bytes, 0u);
  EXPECT_EQ(a.control->links[0].epoch, 1u);
  EXPECT_FALSE(loop_.Add(1, "a", 100, a.pages).ok());
}

TEST_F(CongestionLoopTest, EpochGrowsWithEveryChangeOfTheWindowOnly) {
  ClientPages a(device_, 1), b(device_, 2);
  ASSERT_TRUE(loop_.Add(1, "a", 100, a.pages).ok());
  ASSERT_TRUE(loop_.Add(2, "b", 300, b.pages).ok());
  uint64_t window = a.control->links[0].window_bytes;
  uint64_t epoch = a.control->links[0].epoch;
  for (int i = 0; i < 50; ++i) {
    a.report->links[0].bytes += 100'000;
    b.report->links[0].bytes += 300'000;
    Tick();
    const uint64_t window_now = a.control->links[0].window_bytes;
    EXPECT_EQ(a.control->links[0].epoch, epoch + (window_now != window ? 1 : 0));
    window = window_now;
    epoch = a.control->links[0].epoch;
  }
  EXPECT_NEAR(static_cast<double>(b.control->links[0].window_bytes) / static_cast<double>(window), 3, 0.2);
}

TEST_F(CongestionLoopTest, NeighboursInflightIsTheOthersSum) {
  ClientPages a(device_, 1), b(device_, 2), c(device_, 3);
  ASSERT_TRUE(loop_.Add(1, "a", 100, a.pages).ok());
  ASSERT_TRUE(loop_.Add(2, "b", 100, b.pages).ok());
  ASSERT_TRUE(loop_.Add(3, "c", 100, c.pages).ok());
  a.report->links[0].inflight_bytes = 1000;
  b.report->links[0].inflight_bytes = 200;
  c.report->links[0].inflight_bytes = ~uint64_t{0};  // a liar must not overflow the sum
  Tick();
  EXPECT_EQ(c.control->links[0].neighbour_inflight_bytes, 1200u);
  EXPECT_EQ(a.control->links[0].neighbour_inflight_bytes, 200u + (uint64_t{1} << 32));
}

TEST_F(CongestionLoopTest, CountedBytesAreClampedToWhatTheLinkCarries) {
  ClientPages a(device_, 1);
  ASSERT_TRUE(loop_.Add(1, "a", 100, a.pages).ok());
  a.report->links[0].bytes = 1'000'000;
  Tick();
  EXPECT_EQ(loop_.Snapshot()[0].sessions[0].remote_bytes, 1'000'000u);
  a.report->links[0].bytes = ~uint64_t{0};
  Tick();
  EXPECT_EQ(loop_.Snapshot()[0].sessions[0].remote_bytes, 11'000'000u);  // 2 x 1 GB/s x 5 ms
  a.report->links[0].bytes = 0;                                          // backwards: nothing is taken away
  Tick();
  EXPECT_EQ(loop_.Snapshot()[0].sessions[0].remote_bytes, 11'000'000u);
}

TEST_F(CongestionLoopTest, ViolationIsReportedWhenItStarts) {
  class : public EventWatcher {
   public:
    void OnEvent(const EventPtr& event) override { count += event->type() == v1::Event::WINDOW_VIOLATED ? 1 : 0; }
    void OnShutdown() override {}
    int count = 0;
  } watcher;
  ASSERT_TRUE(events_.Subscribe(&watcher, 0).ok());
  ClientPages a(device_, 1);
  ASSERT_TRUE(loop_.Add(1, "greedy", 100, a.pages).ok());
  for (int i = 0; i < 5; ++i) {
    a.report->links[0].bytes += 100'000;
    a.report->links[0].inflight_bytes = 900'000;
    a.report->links[0].inflight_peak_bytes = 900'000;
    Tick();
  }
  EXPECT_TRUE(loop_.Snapshot()[0].sessions[0].state.violating);
  EXPECT_EQ(watcher.count, 1);
  events_.Unsubscribe(&watcher);
}

TEST_F(CongestionLoopTest, RemovedSessionsPageIsLeftAlone) {
  ClientPages a(device_, 1), b(device_, 2);
  ASSERT_TRUE(loop_.Add(1, "a", 100, a.pages).ok());
  ASSERT_TRUE(loop_.Add(2, "b", 100, b.pages).ok());
  loop_.SetPlanVersion(1, 7);
  EXPECT_EQ(a.control->links[0].plan_version, 7u);
  loop_.Remove(1);
  loop_.Remove(1);
  const uint64_t epoch = a.control->links[0].epoch;
  loop_.SetPlanVersion(1, 8);
  Tick();
  EXPECT_EQ(a.control->links[0].epoch, epoch);
  EXPECT_EQ(a.control->links[0].plan_version, 7u);
  EXPECT_EQ(loop_.Snapshot()[0].sessions.size(), 1u);
}

TEST_F(CongestionLoopTest, MigrationHasATileWhileSomebodyReadsAndAllWhenNobodyDoes) {
  EXPECT_EQ(loop_.Snapshot()[0].background_bytes_per_s, 0u);
  loop_.BeginBackground(0);
  EXPECT_EQ(loop_.BackgroundBytesPerS(0), 1e9);  // no sessions: the whole link
  ClientPages a(device_, 1);
  ASSERT_TRUE(loop_.Add(1, "a", 100, a.pages).ok());
  // A new session is taken to want the link: a tile of the target of two products is left.
  EXPECT_NEAR(loop_.BackgroundBytesPerS(0), 1e9 * 4096 / 200'000, 1e6);
  EXPECT_EQ(a.control->links[0].neighbour_inflight_bytes, 4096u);
  const uint64_t beside = a.control->links[0].window_bytes;
  loop_.BeginBackground(0);  // two copies share
  EXPECT_NEAR(loop_.BackgroundBytesPerS(0), 1e9 * 4096 / 200'000 / 2, 1e6);
  loop_.EndBackground(0);
  // It reads nothing and is idle soon.
  for (int i = 0; i < 10; ++i) Tick();
  EXPECT_EQ(loop_.BackgroundBytesPerS(0), 1e9);
  EXPECT_EQ(loop_.Snapshot()[0].background_bytes_per_s, 1'000'000'000u);
  loop_.EndBackground(0);
  EXPECT_EQ(loop_.Snapshot()[0].background_bytes_per_s, 0u);
  EXPECT_GE(a.control->links[0].window_bytes, beside);
  Tick();
  EXPECT_EQ(a.control->links[0].neighbour_inflight_bytes, 0u);
}

// A session that wakes up after a rest is measured over the interval, not over the rest.
TEST_F(CongestionLoopTest, WhoReadsAfterALongRestIsSeenAtOnce) {
  ClientPages a(device_, 1);
  ASSERT_TRUE(loop_.Add(1, "a", 100, a.pages).ok());
  for (int i = 0; i < 100; ++i) Tick();
  EXPECT_FALSE(loop_.Snapshot()[0].sessions[0].state.active);
  a.report->links[0].bytes += 1'000'000;
  Tick();
  EXPECT_TRUE(loop_.Snapshot()[0].sessions[0].state.active);
  EXPECT_EQ(loop_.Snapshot()[0].sessions[0].state.bytes_per_s, 2e8);
  EXPECT_EQ(loop_.Snapshot()[0].sessions[0].remote_bytes, 1'000'000u);
}

TEST_F(CongestionLoopTest, RoundsAreRareWhileNobodyReadsAndUsualOnceAnythingChanges) {
  ClientPages a(device_, 1), b(device_, 2);
  ASSERT_TRUE(loop_.Add(1, "a", 100, a.pages).ok());
  const auto expect_rare = [&] {
    for (int i = 0; i < 190; ++i) Tick();
    EXPECT_LT(loop_.NextIntervalNs(), 4 * kIntervalNs);
    for (int i = 0; i < 30; ++i) Tick();
    EXPECT_EQ(loop_.NextIntervalNs(), 4 * kIntervalNs);
  };
  expect_rare();
  a.report->links[0].bytes += 1'000'000;
  Tick();
  EXPECT_EQ(loop_.NextIntervalNs(), kIntervalNs);
  expect_rare();
  ASSERT_TRUE(loop_.Add(2, "b", 100, b.pages).ok());
  EXPECT_EQ(loop_.NextIntervalNs(), kIntervalNs);
  expect_rare();
  loop_.BeginBackground(0);
  EXPECT_EQ(loop_.NextIntervalNs(), kIntervalNs);
  expect_rare();
  loop_.Remove(1);
  EXPECT_EQ(loop_.NextIntervalNs(), kIntervalNs);
}

TEST(CongestionLoopOnHardwareTest, NeighboursAreWrittenForClientsThatModelTheLink) {
  EmulatedDevice device{EmulatedDeviceOptions{}};
  monitoring::Metrics metrics{[] { return monitoring::Snapshot(); }};
  EventLog events{4, {}};
  CongestionLoop loop{{NodeLink{.is_modelled = false}}, {}, &events, &metrics};
  ClientPages a(device, 1), b(device, 2);
  ASSERT_TRUE(loop.Add(1, "a", 100, a.pages).ok());
  ASSERT_TRUE(loop.Add(2, "b", 100, b.pages).ok());
  b.report->links[0].inflight_bytes = 200;
  loop.TickOnce(MonotonicNs() + kIntervalNs);
  EXPECT_EQ(a.control->links[0].neighbour_inflight_bytes, 0u);
  EXPECT_GT(a.control->links[0].window_bytes, 0u);
}

}  // namespace
}  // namespace dak::daemon

// What the loop makes of sessions that misbehave, in pages, metrics and events; and links beside one another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "allocator/device/emulated_device.h"
#include "daemon/congestion_loop.h"
#include "daemon/session/clock.h"
#include "dak/v1/control_page.h"

namespace dak::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kLinks = 2;
constexpr uint64_t kIntervalNs = 5'000'000;
// Products of 100,000 and of 30,000 bytes.
constexpr double kBytesPerS[] = {1e9, 0.2e9};
constexpr uint64_t kRoundTripNs[] = {100'000, 150'000};

NodeLink MakeLink(uint32_t link, Tier tier) {
  return {.profile = {.bandwidth_bytes_per_s = kBytesPerS[link],
                      .round_trip_ns = kRoundTripNs[link],
                      .cliff_bytes = 1'000'000},
          .tiers = {tier}};
}

// A session that reads at its window's rate from the links that it is told to.
class Reader {
 public:
  Reader(Device& device, CongestionLoop& loop, uint64_t id, const std::string& name, uint32_t weight = 100) {
    std::vector<HandleGrant> handles;
    auto made = SessionPages::Create(device, id, kLinks, &handles);
    EXPECT_TRUE(made.ok());
    control_ = static_cast<v1::ControlPage*>(
        ::mmap(nullptr, v1::kControlPageBytes, PROT_READ, MAP_SHARED, handles[0].fd.get(), 0));
    report_ = static_cast<v1::ReportPage*>(
        ::mmap(nullptr, v1::kControlPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, handles[1].fd.get(), 0));
    EXPECT_TRUE(loop.Add(id, name, weight, *std::move(made)).ok());
  }
  ~Reader() {
    ::munmap(control_, v1::kControlPageBytes);
    ::munmap(report_, v1::kControlPageBytes);
  }
  uint64_t Window(uint32_t link) const { return control_->links[link].window_bytes; }
  v1::LinkReport& report(uint32_t link) { return report_->links[link]; }
  // Has `inflight` bytes in flight for an interval, with a round trip of `round_trip_ns`.
  void Read(uint32_t link, uint64_t inflight, double round_trip_ns) {
    constexpr uint64_t kTrips = 10;
    v1::LinkReport& report = report_->links[link];
    report.bytes += static_cast<uint64_t>(static_cast<double>(inflight) / round_trip_ns * kIntervalNs);
    report.round_trips += kTrips;
    report.round_trip_ns += static_cast<uint64_t>(kTrips * round_trip_ns);
    report.inflight_bytes = inflight;
    report.inflight_peak_bytes = std::max(report.inflight_peak_bytes, inflight);
  }

 private:
  v1::ControlPage* control_ = nullptr;
  v1::ReportPage* report_ = nullptr;
};

class Watcher : public EventWatcher {
 public:
  void OnEvent(const EventPtr& event) override {
    if (event->type() == v1::Event::WINDOW_VIOLATED) messages.push_back(event->subject() + ": " + event->message());
  }
  void OnShutdown() override {}
  std::vector<std::string> messages;
};

class CongestionLinksTest : public ::testing::Test {
 protected:
  CongestionLinksTest() { EXPECT_TRUE(events_.Subscribe(&watcher_, 0).ok()); }
  ~CongestionLinksTest() override { events_.Unsubscribe(&watcher_); }
  void Tick() { loop_.TickOnce(now_ns_ += kIntervalNs); }
  // The round trip that a link has with this much in flight.
  static double RoundTrip(uint64_t inflight, uint32_t link = 0) {
    return std::max(static_cast<double>(kRoundTripNs[link]), static_cast<double>(inflight) / kBytesPerS[link] * 1e9);
  }

  EmulatedDevice device_{EmulatedDeviceOptions{}};
  monitoring::Metrics metrics_{[] { return monitoring::Snapshot(); }};
  EventLog events_{64, {}};
  CongestionLoop loop_{
      {MakeLink(0, Tier::kHost), MakeLink(1, Tier::kCxl)},
      {.target_bdp = 2, .min_window_bytes = 4096, .idle_after_ns = 20'000'000, .interval_ns = kIntervalNs},
      &events_,
      &metrics_};
  Watcher watcher_;
  uint64_t now_ns_ = MonotonicNs() + 1'000'000'000;
};

TEST_F(CongestionLinksTest, EveryLinkHasAControllerOfItsOwn) {
  Reader a(device_, loop_, 1, "a"), b(device_, loop_, 2, "b");
  for (int i = 0; i < 20; ++i) {
    const uint64_t on_first = a.Window(0), on_second = b.Window(1);
    a.Read(0, on_first, RoundTrip(on_first));
    b.Read(1, on_second, RoundTrip(on_second, 1));
    Tick();
  }
  // Each has one link to itself: all of its target, 200,000 and 60,000 bytes in whole tiles. Neither has the other's.
  EXPECT_GE(a.Window(0), 180'000u);
  EXPECT_LE(a.Window(0), 204'000u);
  EXPECT_GE(b.Window(1), 54'000u);
  EXPECT_LE(b.Window(1), 68'000u);
  const uint64_t before = a.Window(0);
  for (int i = 0; i < 20; ++i) {  // a flood on one link is none on the other
    a.Read(0, before, RoundTrip(before));
    b.Read(1, 800'000, RoundTrip(800'000, 1));
    Tick();
  }
  EXPECT_EQ(a.Window(0), before);
  const std::vector<LinkSnapshot> links = loop_.Snapshot();
  EXPECT_FALSE(links[0].sessions[1].state.violating);
  EXPECT_TRUE(links[1].sessions[1].state.violating);
  EXPECT_THAT(watcher_.messages, ElementsAre(HasSubstr("b: link 1: 800000 bytes in flight, window")));
}

// Two sessions that read from both links at once, with weights of 1 to 3: each link is shared by weight and held at
// its own product, whatever happens on the other.
TEST_F(CongestionLinksTest, UnlikeLinksAreSharedByWeightEachWithinItsOwnProduct) {
  Reader light(device_, loop_, 1, "light"), heavy(device_, loop_, 2, "heavy", 300);
  double light_bytes[kLinks] = {}, heavy_bytes[kLinks] = {};
  for (int i = 0; i < 200; ++i) {
    for (uint32_t link = 0; link < kLinks; ++link) {
      const uint64_t all = light.Window(link) + heavy.Window(link);
      if (i >= 20) {
        EXPECT_GE(static_cast<double>(all), kBytesPerS[link] * kRoundTripNs[link] * 1e-9) << link;
        EXPECT_LE(static_cast<double>(all), 2.5 * kBytesPerS[link] * kRoundTripNs[link] * 1e-9) << link;
        light_bytes[link] += static_cast<double>(light.Window(link)) / RoundTrip(all, link);
        heavy_bytes[link] += static_cast<double>(heavy.Window(link)) / RoundTrip(all, link);
      }
      light.Read(link, light.Window(link), RoundTrip(all, link));
      heavy.Read(link, heavy.Window(link), RoundTrip(all, link));
    }
    Tick();
  }
  for (uint32_t link = 0; link < kLinks; ++link) {
    EXPECT_NEAR(heavy_bytes[link] / light_bytes[link], 3, 0.15) << link;
    const double used = (light_bytes[link] + heavy_bytes[link]) / 180 * 1e9 / kBytesPerS[link];
    EXPECT_GE(used, 0.97) << link;
  }
  EXPECT_TRUE(watcher_.messages.empty());
}

TEST_F(CongestionLinksTest, TheLinkThatChangesSetsThePace) {
  Reader a(device_, loop_, 1, "a");
  for (int i = 0; i < 250; ++i) Tick();
  EXPECT_EQ(loop_.NextIntervalNs(), 4 * kIntervalNs);
  for (int i = 0; i < 50; ++i) {  // by turns, on the second link alone
    a.Read(1, i % 2 == 0 ? a.Window(1) : 0, RoundTrip(a.Window(1), 1));
    Tick();
    EXPECT_EQ(loop_.NextIntervalNs(), kIntervalNs);
  }
}

// What can be believed of a report, and what the daemon's copies may take, follows from the link's own rate.
TEST_F(CongestionLinksTest, ClaimsAndCopiesAreBoundedByTheirOwnLink) {
  Reader a(device_, loop_, 1, "a");
  Tick();
  for (uint32_t link = 0; link < kLinks; ++link) a.report(link).bytes += 1'000'000'000;
  Tick();
  const std::vector<LinkSnapshot> links = loop_.Snapshot();
  EXPECT_EQ(links[0].sessions[0].remote_bytes, 10'000'000u);  // twice what an interval carries
  EXPECT_EQ(links[1].sessions[0].remote_bytes, 2'000'000u);
  loop_.Remove(1);
  loop_.BeginBackground(1);
  EXPECT_EQ(loop_.BackgroundBytesPerS(1), kBytesPerS[1]);  // nobody reads: all of it
  EXPECT_EQ(loop_.Snapshot()[0].background_bytes_per_s, 0u);
  loop_.EndBackground(1);
  EXPECT_EQ(loop_.Snapshot()[1].background_bytes_per_s, 0u);
}

TEST_F(CongestionLinksTest, AViolatorShowsInMetricsAndEventsAndItsNeighboursWindowsGrow) {
  Reader greedy(device_, loop_, 1, "greedy"), polite(device_, loop_, 2, "polite");
  for (int i = 0; i < 10; ++i) {
    const uint64_t all = greedy.Window(0) + polite.Window(0);
    greedy.Read(0, greedy.Window(0), RoundTrip(all));
    polite.Read(0, polite.Window(0), RoundTrip(all));
    Tick();
  }
  const uint64_t fair = polite.Window(0);
  EXPECT_THAT(metrics_.Render(), HasSubstr("dak_window_violations_total 0"));
  for (int i = 0; i < 10; ++i) {
    const uint64_t all = 300'000 + polite.Window(0);
    greedy.Read(0, 300'000, RoundTrip(all));
    polite.Read(0, polite.Window(0), RoundTrip(all));
    Tick();
  }
  EXPECT_GE(polite.Window(0), 2 * fair);
  EXPECT_LE(polite.Window(0) + greedy.Window(0), 500'000u);
  EXPECT_LE(greedy.Window(0), fair + 4096);
  EXPECT_THAT(metrics_.Render(), HasSubstr("dak_window_violations_total 10"));
  EXPECT_THAT(watcher_.messages, ElementsAre(HasSubstr("greedy: link 0: 300000 bytes in flight, window")));
}

TEST_F(CongestionLinksTest, AReportThatCannotBeTrueIsSaidToBeSo) {
  Reader liar(device_, loop_, 1, "liar");
  liar.Read(0, liar.Window(0), RoundTrip(liar.Window(0)));
  Tick();
  EXPECT_THAT(watcher_.messages, ElementsAre());
  liar.report(0).bytes = 5;  // backwards
  Tick();
  EXPECT_THAT(watcher_.messages, ElementsAre("liar: link 0: what it reports can't be true"));
  EXPECT_THAT(metrics_.Render(), HasSubstr("dak_window_violations_total 1"));
}

TEST_F(CongestionLinksTest, BytesThatNobodyReportsAreShown) {
  Reader a(device_, loop_, 1, "a");
  for (int i = 0; i < 10; ++i) {
    a.Read(0, a.Window(0), RoundTrip(a.Window(0) + 400'000));
    Tick();
  }
  EXPECT_NEAR(static_cast<double>(loop_.Snapshot()[0].unexplained_bytes), 400'000, 40'000);
  EXPECT_EQ(loop_.Snapshot()[1].unexplained_bytes, 0u);
  EXPECT_THAT(watcher_.messages, ElementsAre());  // nobody can be blamed
}

}  // namespace
}  // namespace dak::daemon

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
constexpr double kBytesPerS = 1e9;
constexpr double kRoundTripNs = 100'000;  // a product of 100,000 bytes

// A session that reads at its window's rate from the links that it is told to.
class Reader {
 public:
  Reader(Device& device, CongestionLoop& loop, uint64_t id, const std::string& name) {
    std::vector<HandleGrant> handles;
    auto made = SessionPages::Create(device, id, kLinks, &handles);
    EXPECT_TRUE(made.ok());
    control_ = static_cast<v1::ControlPage*>(
        ::mmap(nullptr, v1::kControlPageBytes, PROT_READ, MAP_SHARED, handles[0].fd.get(), 0));
    report_ = static_cast<v1::ReportPage*>(
        ::mmap(nullptr, v1::kControlPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, handles[1].fd.get(), 0));
    EXPECT_TRUE(loop.Add(id, name, 100, *std::move(made)).ok());
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
  static double RoundTrip(uint64_t inflight) { return std::max(kRoundTripNs, static_cast<double>(inflight)); }

  EmulatedDevice device_{EmulatedDeviceOptions{}};
  monitoring::Metrics metrics_{[] { return monitoring::Snapshot(); }};
  EventLog events_{64, {}};
  CongestionLoop loop_{
      {.bandwidth_bytes_per_s = kBytesPerS, .round_trip_ns = 100'000, .cliff_bytes = 1'000'000},
      {.target_bdp = 2, .min_window_bytes = 4096, .idle_after_ns = 20'000'000, .interval_ns = kIntervalNs},
      kLinks,
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
    b.Read(1, on_second, RoundTrip(on_second));
    Tick();
  }
  // Each has one link to itself: all of its target, 200,000 bytes in whole tiles.
  EXPECT_GE(a.Window(0), 180'000u);
  EXPECT_GE(b.Window(1), 180'000u);
  const uint64_t before = a.Window(0);
  for (int i = 0; i < 20; ++i) {  // a flood on one link is none on the other
    a.Read(0, before, RoundTrip(before));
    b.Read(1, 800'000, RoundTrip(800'000));
    Tick();
  }
  EXPECT_EQ(a.Window(0), before);
  const std::vector<LinkSnapshot> links = loop_.Snapshot();
  EXPECT_FALSE(links[0].sessions[1].state.violating);
  EXPECT_TRUE(links[1].sessions[1].state.violating);
  EXPECT_THAT(watcher_.messages, ElementsAre(HasSubstr("b: link 1: 800000 bytes in flight, window")));
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

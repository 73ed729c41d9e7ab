#include "daemon/events/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace dak::daemon {
namespace {

class Recorder : public EventWatcher {
 public:
  void OnEvent(const EventPtr& event) override { sequences.push_back(event->sequence()); }
  void OnShutdown() override { ++shutdowns; }
  std::vector<uint64_t> sequences;
  int shutdowns = 0;
};

void Append(EventLog& log) { log.Append(v1::Event::SESSION_OPENED, 1, "s", "m"); }

TEST(EventLogTest, ReplayThenLiveWithoutAGap) {
  EventLog log(4, {});
  for (int i = 0; i < 5; ++i) Append(log);
  Recorder recorder;
  ASSERT_TRUE(log.Subscribe(&recorder, 3).ok());
  Append(log);
  EXPECT_THAT(recorder.sequences, testing::ElementsAre(3, 4, 5, 6));
  log.Unsubscribe(&recorder);
  Append(log);
  EXPECT_EQ(recorder.sequences.size(), 4u);
}

TEST(EventLogTest, RingKeepsTheLast1024) {
  EventLog log(4, {});
  for (int i = 0; i < 1500; ++i) Append(log);
  Recorder recorder;
  ASSERT_TRUE(log.Subscribe(&recorder, 1024).ok());
  ASSERT_EQ(recorder.sequences.size(), 1024u);
  EXPECT_EQ(recorder.sequences.front(), 477u);
  EXPECT_EQ(recorder.sequences.back(), 1500u);
}

TEST(EventLogTest, BytesOfEmptyTiersAreLeftOut) {
  EventLog log(1, {});
  class : public EventWatcher {
   public:
    void OnEvent(const EventPtr& event) override { last = event; }
    void OnShutdown() override {}
    EventPtr last;
  } watcher;
  ASSERT_TRUE(log.Subscribe(&watcher, 0).ok());
  const TierArray bytes = {0, 42, 0};
  log.Append(v1::Event::TENSORS_FREED, 9, "g", "m", &bytes);
  ASSERT_EQ(watcher.last->bytes_size(), 1);
  EXPECT_EQ(watcher.last->bytes(0).tier(), v1::TIER_HOST);
  EXPECT_EQ(watcher.last->bytes(0).bytes(), 42u);
  EXPECT_EQ(watcher.last->session_id(), 9u);
  log.Unsubscribe(&watcher);
}

TEST(EventLogTest, WatchersAreBoundedAndToldOfTheEnd) {
  EventLog log(1, {});
  Recorder first, second;
  ASSERT_TRUE(log.Subscribe(&first, 0).ok());
  EXPECT_EQ(log.Subscribe(&second, 0).code(), absl::StatusCode::kResourceExhausted);
  log.Close();
  EXPECT_EQ(first.shutdowns, 1);
  EXPECT_EQ(log.Subscribe(&second, 0).code(), absl::StatusCode::kUnavailable);
}

TEST(EventLogTest, ConcurrentAppendsHaveNoGapsAndOneOrder) {
  int observed = 0;
  EventLog log(1, [&](v1::Event::Type) { ++observed; });
  Recorder recorder;
  ASSERT_TRUE(log.Subscribe(&recorder, 0).ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) Append(log);
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(recorder.sequences.size(), 2000u);
  for (uint64_t i = 0; i < 2000; ++i) EXPECT_EQ(recorder.sequences[i], i + 1);
  EXPECT_EQ(observed, 2000);
  log.Unsubscribe(&recorder);
}

}  // namespace
}  // namespace dak::daemon

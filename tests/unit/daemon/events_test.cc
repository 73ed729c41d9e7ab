// WatchEvents over the wire: order, replay, slow readers, bounds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;

// A stream that is known to be subscribed.
class Watcher {
 public:
  Watcher(Stubs& stubs, uint32_t replay) {
    v1::WatchEventsRequest request;
    request.set_replay(replay);
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    reader_ = stubs.node->WatchEvents(&context_, request);
    reader_->WaitForInitialMetadata();
  }
  ~Watcher() {
    if (reader_ == nullptr) return;
    context_.TryCancel();
    Finish();
  }
  v1::Event Next() {
    v1::Event event;
    EXPECT_TRUE(reader_->Read(&event));
    return event;
  }
  bool Read(v1::Event* event) { return reader_->Read(event); }
  grpc::Status Finish() {
    v1::Event event;
    while (reader_->Read(&event)) {
    }
    const grpc::Status status = reader_->Finish();
    reader_ = nullptr;
    return status;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::Event>> reader_;
};

TEST(EventsTest, WholeLifeInOrderWithoutGaps) {
  TestDaemon daemon;
  Stubs stubs(daemon.options().runtime_dir);
  Watcher watcher(stubs, 0);
  TestSession session(daemon.options().runtime_dir, "engine");
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session.Allocate("a", {TestSession::Spec("w", 64, 64)}, &response), IsOk());
  EXPECT_FALSE(session.Allocate("a", {TestSession::Spec("x", 1 << 20, 1 << 10)}, &response).ok());
  ASSERT_THAT(session.Free({response.tensors(0).tensor_id()}), IsOk());
  ASSERT_THAT(session.Allocate("b", {TestSession::Spec("w", 64, 64)}, &response), IsOk());
  ASSERT_THAT(session.Publish("b", "pub", "f"), IsOk());
  ASSERT_THAT(session.Detach("pub"), IsOk());
  ASSERT_THAT(session.Attach("pub", "f"), IsOk());
  ASSERT_THAT(session.Withdraw("pub"), IsOk());
  v1::SetQuotaRequest quota;
  v1::SetQuotaResponse set;
  quota.set_session_id(session.id());
  quota.set_tier(v1::TIER_HBM);
  ASSERT_THAT(Call(*stubs.node, &v1::NodeService::Stub::SetQuota, quota, &set), IsOk());
  v1::PlanPassRequest pass;
  v1::Plan plan;
  pass.set_session_token(session.token());
  pass.add_operations()->set_name("op");
  pass.mutable_operations(0)->set_bytes(1000);
  pass.set_hbm_budget_bytes(1000);
  ASSERT_THAT(Call(*stubs.plan, &v1::PlanService::Stub::PlanPass, pass, &plan), IsOk());
  session.connection.Close();

  const v1::Event::Type expected[] = {
      v1::Event::SESSION_OPENED,       v1::Event::TENSORS_ALLOCATED,    v1::Event::ALLOCATION_REFUSED,
      v1::Event::TENSORS_FREED,        v1::Event::TENSORS_ALLOCATED,    v1::Event::GROUP_PUBLISHED,
      v1::Event::PUBLICATION_DETACHED, v1::Event::PUBLICATION_ATTACHED, v1::Event::PUBLICATION_WITHDRAWN,
      v1::Event::QUOTA_CHANGED,        v1::Event::PLAN_CHANGED,         v1::Event::PUBLICATION_FREED,
      v1::Event::SESSION_LOST};
  uint64_t sequence = 0;
  for (const v1::Event::Type type : expected) {
    const v1::Event event = watcher.Next();
    EXPECT_EQ(event.type(), type) << v1::Event::Type_Name(event.type()) << " is no " << v1::Event::Type_Name(type);
    EXPECT_EQ(event.sequence(), ++sequence);
    EXPECT_GT(event.time_unix_ns(), 0u);
  }
}

TEST(EventsTest, ReplayGivesTheLatestAndThenWhatFollows) {
  TestDaemon daemon;
  Stubs stubs(daemon.options().runtime_dir);
  for (int i = 0; i < 5; ++i) ASSERT_THAT(TestSession(daemon.options().runtime_dir).Close(), IsOk());
  Watcher watcher(stubs, 3);
  TestSession live(daemon.options().runtime_dir, "live");
  for (uint64_t sequence = 8; sequence <= 11; ++sequence) {
    const v1::Event event = watcher.Next();
    EXPECT_EQ(event.sequence(), sequence);
    EXPECT_EQ(event.subject(), sequence == 11 ? "live" : "test");
  }
}

TEST(EventsTest, ReplayIsBounded) {
  TestDaemon daemon;
  Stubs stubs(daemon.options().runtime_dir);
  Watcher watcher(stubs, 1025);
  EXPECT_THAT(watcher.Finish(), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "replay"));
}

TEST(EventsTest, WatchersAreBoundedAndOneThatLeavesMakesRoom) {
  TestDaemon daemon([](DaemonOptions* options) { options->limits.max_watchers = 1; });
  Stubs stubs(daemon.options().runtime_dir);
  {
    Watcher first(stubs, 0);
    Watcher second(stubs, 0);
    EXPECT_THAT(second.Finish(), FailsWith(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", ""));
  }
  EXPECT_TRUE(WaitUntil([&] {
    Watcher third(stubs, 1);
    TestSession session(daemon.options().runtime_dir);
    v1::Event event;
    return third.Read(&event);
  }));
}

// A watcher that doesn't read while far more happens than its queue and the transport's buffers hold.
TEST(EventsTest, SlowReaderIsEndedWithDataLoss) {
  TestDaemon daemon;
  Stubs stubs(daemon.options().runtime_dir, /*narrow=*/true);
  Watcher watcher(stubs, 0);
  TestSession session(daemon.options().runtime_dir, std::string(128, 'n'));
  v1::SetQuotaRequest quota;
  quota.set_session_id(session.id());
  quota.set_tier(v1::TIER_HBM);
  for (int i = 0; i < 8'000; ++i) {
    v1::SetQuotaResponse set;
    quota.set_limit_bytes(static_cast<uint64_t>(i));
    ASSERT_THAT(Call(*session.stubs.node, &v1::NodeService::Stub::SetQuota, quota, &set), IsOk());
  }
  uint64_t sequence = 0;
  v1::Event event;
  while (watcher.Read(&event)) ASSERT_EQ(event.sequence(), ++sequence);
  EXPECT_GT(sequence, 0u);
  EXPECT_LT(sequence, 8'001u);
  const grpc::Status status = watcher.Finish();
  EXPECT_THAT(status, FailsWith(StatusCode::DATA_LOSS, "WATCHER_TOO_SLOW", ""));
}

}  // namespace
}  // namespace dak::daemon

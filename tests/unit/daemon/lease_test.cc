// Sessions with a lease: silence ends them, any call with the token renews them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

TEST(LeaseTest, SilentSessionIsClosedAndItsConnectionCut) {
  TestDaemon daemon([](DaemonOptions* options) { options->lease_ns = 100'000'000; });
  std::unique_ptr<TestSession> session;
  // On a machine that is busy a lease may run out before there is anything to hold: then once more.
  ASSERT_TRUE(WaitUntil([&] {
    session = std::make_unique<TestSession>(daemon.options().runtime_dir);
    v1::AllocateTensorsResponse response;
    return session->Allocate("g", {TestSession::Spec("w", 64, 64)}, &response).ok();
  }));
  EXPECT_EQ(session->opened.lease_ns(), 100'000'000u);
  EXPECT_TRUE(session->connection.Receive().ended);
  EXPECT_TRUE(WaitUntil([&] { return daemon.DeviceUsage() == TierArray{}; }));
  EXPECT_THAT(daemon->RenderMetrics(), testing::HasSubstr("lease"));
}

TEST(LeaseTest, SessionThatCallsOutlivesOneThatDoesNot) {
  TestDaemon daemon([](DaemonOptions* options) { options->lease_ns = 1'500'000'000; });
  TestSession talker(daemon.options().runtime_dir, "talker"), silent(daemon.options().runtime_dir, "silent");
  v1::ListSessionsResponse list;
  EXPECT_TRUE(WaitUntil([&] {
    v1::KeepSessionRequest keep;
    v1::KeepSessionResponse kept;
    keep.set_session_token(talker.token());
    EXPECT_THAT(Call(*talker.stubs.session, &v1::SessionService::Stub::KeepSession, keep, &kept), IsOk());
    list.Clear();
    EXPECT_THAT(Call(*talker.stubs.session, &v1::SessionService::Stub::ListSessions, v1::ListSessionsRequest(), &list),
                IsOk());
    return list.sessions_size() == 1;
  }));
  EXPECT_EQ(list.sessions(0).name(), "talker");
}

}  // namespace
}  // namespace dak::daemon

// SessionService: what is refused, and what a session's listing says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <functional>

#include "allocator/ledger.h"
#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;

class SessionErrorsTest : public testing::Test {
 protected:
  grpc::Status OpenSpoilt(const std::function<void(v1::OpenSessionRequest&)>& spoil) {
    HandleConnection connection(daemon_.options().runtime_dir);
    v1::OpenSessionRequest request;
    request.set_api_version(1);
    request.set_connection_ticket(connection.Receive().reply.connection_ticket());
    request.set_name("s");
    spoil(request);
    v1::OpenSessionResponse response;
    return Call(*stubs_.session, &v1::SessionService::Stub::OpenSession, request, &response);
  }
  static void AddQuota(v1::OpenSessionRequest& request, v1::Tier tier, uint64_t bytes) {
    request.add_quotas()->set_tier(tier);
    request.mutable_quotas(request.quotas_size() - 1)->set_bytes(bytes);
  }

  TestDaemon daemon_{[](DaemonOptions* options) { options->limits.max_sessions = 3; }};
  Stubs stubs_{daemon_.options().runtime_dir};
};

TEST_F(SessionErrorsTest, OpenSessionNamesWhatItRefuses) {
  using Request = v1::OpenSessionRequest;
  EXPECT_THAT(OpenSpoilt([](Request& r) { r.set_api_version(2); }),
              FailsWith(StatusCode::FAILED_PRECONDITION, "VERSION_MISMATCH", "api_version"));
  EXPECT_THAT(OpenSpoilt([](Request& r) { r.clear_api_version(); }),
              FailsWith(StatusCode::FAILED_PRECONDITION, "VERSION_MISMATCH", "api_version"));
  EXPECT_THAT(OpenSpoilt([](Request& r) { r.clear_name(); }),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "name"));
  EXPECT_THAT(OpenSpoilt([](Request& r) { r.set_weight(1001); }),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "weight"));
  EXPECT_THAT(OpenSpoilt([](Request& r) { AddQuota(r, v1::TIER_UNSPECIFIED, 1); }),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "quotas[0].tier"));
  EXPECT_THAT(OpenSpoilt([](Request& r) { AddQuota(r, v1::TIER_HBM, 1), AddQuota(r, v1::TIER_HBM, 2); }),
              FailsWith(StatusCode::INVALID_ARGUMENT, "DUPLICATE", "quotas[1].tier"));
  EXPECT_THAT(OpenSpoilt([](Request& r) {
                for (int i = 0; i < 4; ++i) AddQuota(r, v1::TIER_HBM, 1);
              }),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "quotas"));
  EXPECT_THAT(OpenSpoilt([](Request& r) { AddQuota(r, v1::TIER_CXL, 1); }),
              FailsWith(StatusCode::FAILED_PRECONDITION, "TIER_ABSENT", "quotas[0].tier"));
  for (const std::string& ticket : {std::string(), std::string(16, 't'), std::string(17, 't')}) {
    EXPECT_THAT(OpenSpoilt([&](Request& r) { r.set_connection_ticket(ticket); }),
                FailsWith(StatusCode::UNAUTHENTICATED, "BAD_TICKET", "connection_ticket"));
  }
  v1::ListSessionsResponse list;
  ASSERT_THAT(Call(*stubs_.session, &v1::SessionService::Stub::ListSessions, v1::ListSessionsRequest(), &list), IsOk());
  EXPECT_EQ(list.sessions_size(), 0);
}

TEST_F(SessionErrorsTest, ConnectionCarriesOneSessionEver) {
  TestSession session(daemon_.options().runtime_dir);
  v1::OpenSessionRequest again;
  v1::OpenSessionResponse response;
  again.set_api_version(1);
  again.set_connection_ticket(session.greeting.connection_ticket());
  again.set_name("again");
  const auto refused = FailsWith(StatusCode::ALREADY_EXISTS, "SESSION_EXISTS", "connection_ticket");
  EXPECT_THAT(Call(*stubs_.session, &v1::SessionService::Stub::OpenSession, again, &response), refused);
  ASSERT_THAT(session.Close(), IsOk());
  EXPECT_THAT(Call(*stubs_.session, &v1::SessionService::Stub::OpenSession, again, &response), refused);
}

TEST_F(SessionErrorsTest, TicketOfAConnectionThatEndedIsWorthless) {
  std::string ticket;
  {
    HandleConnection connection(daemon_.options().runtime_dir);
    ticket = connection.Receive().reply.connection_ticket();
  }
  EXPECT_TRUE(WaitUntil([&] {
    return OpenSpoilt([&](v1::OpenSessionRequest& r) { r.set_connection_ticket(ticket); }).error_code() ==
           StatusCode::UNAUTHENTICATED;
  }));
}

TEST_F(SessionErrorsTest, SessionsAreBoundedAndAFreedPlaceIsUsedAgain) {
  TestSession a(daemon_.options().runtime_dir), b(daemon_.options().runtime_dir);
  {
    TestSession c(daemon_.options().runtime_dir);
    EXPECT_THAT(OpenSpoilt([](v1::OpenSessionRequest&) {}),
                FailsWith(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_SESSIONS", ""));
    ASSERT_THAT(c.Close(), IsOk());
  }
  EXPECT_THAT(OpenSpoilt([](v1::OpenSessionRequest&) {}), IsOk());
}

TEST_F(SessionErrorsTest, KeepAndCloseNeedTheToken) {
  v1::KeepSessionRequest keep;
  v1::KeepSessionResponse kept;
  v1::CloseSessionRequest close;
  v1::CloseSessionResponse closed;
  keep.set_session_token(std::string(16, 'x'));
  close.set_session_token(std::string(16, 'x'));
  const auto refused = FailsWith(StatusCode::UNAUTHENTICATED, "UNKNOWN_SESSION", "session_token");
  EXPECT_THAT(Call(*stubs_.session, &v1::SessionService::Stub::KeepSession, keep, &kept), refused);
  EXPECT_THAT(Call(*stubs_.session, &v1::SessionService::Stub::CloseSession, close, &closed), refused);
  TestSession session(daemon_.options().runtime_dir);
  keep.set_session_token(session.token());
  ASSERT_THAT(Call(*stubs_.session, &v1::SessionService::Stub::KeepSession, keep, &kept), IsOk());
  EXPECT_GT(kept.window_bytes(), 0u);
  EXPECT_EQ(kept.plan_version(), 0u);
  ASSERT_THAT(session.Close(), IsOk());
  EXPECT_THAT(session.Close(), refused);
}

TEST_F(SessionErrorsTest, ListingSaysWhoHoldsWhatAndNoSecrets) {
  TestSession session(daemon_.options().runtime_dir, "engine-0", {{v1::TIER_HBM, 8 * kMiB}});
  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(session.Allocate("g", {TestSession::Spec("w", 128, 64, 0.5)}, &allocated), IsOk());
  v1::ListSessionsResponse list;
  ASSERT_THAT(Call(*stubs_.session, &v1::SessionService::Stub::ListSessions, v1::ListSessionsRequest(), &list), IsOk());
  ASSERT_EQ(list.sessions_size(), 1);
  const v1::SessionInfo& info = list.sessions(0);
  EXPECT_EQ(info.name(), "engine-0");
  EXPECT_EQ(info.pid(), ::getpid());
  EXPECT_EQ(info.uid(), ::geteuid());
  EXPECT_EQ(info.weight(), 100u);
  EXPECT_EQ(info.tensor_count(), 1u);
  ASSERT_EQ(info.quotas_size(), 2);
  EXPECT_EQ(info.quotas(0).bytes(), 8 * kMiB);
  EXPECT_EQ(info.quotas(1).bytes(), kNoLimit);
  EXPECT_EQ(info.used(0).bytes(), 2 * kMiB);
  EXPECT_EQ(info.used(1).bytes(), 2 * kMiB);
  EXPECT_GT(info.window_bytes(), 0u);
  EXPECT_EQ(list.SerializeAsString().find(session.token()), std::string::npos);
}

}  // namespace
}  // namespace dak::daemon

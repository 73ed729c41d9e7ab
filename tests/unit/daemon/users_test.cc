// Users of one node: what is one's is out of the others' reach.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>

#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;

constexpr uint32_t kUser = 4321;
constexpr uint32_t kRefusedUser = 4322;

// The process is another user's while this lives: for connecting, which is when the kernel notes who it is.
class AsUser {
 public:
  explicit AsUser(uint32_t uid) { EXPECT_EQ(::seteuid(uid), 0); }
  ~AsUser() {
    EXPECT_EQ(::seteuid(0), 0);
    // The kernel took it away with the user; the leak sanitizer needs it.
    ::prctl(PR_SET_DUMPABLE, 1);
  }
};

Stubs StubsOf(uint32_t uid, const std::string& runtime_dir) {
  AsUser user(uid);
  Stubs stubs(runtime_dir);
  EXPECT_TRUE(stubs.channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(20)));
  return stubs;
}

HandleConnection ConnectionOf(uint32_t uid, const std::string& runtime_dir) {
  AsUser user(uid);
  return HandleConnection(runtime_dir);
}

class UsersTest : public testing::Test {
 protected:
  UsersTest()
      : daemon_([](DaemonOptions* options) {
          options->socket.mode = 0666;
          options->allowed_uids = {kUser};
        }) {}
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root to become other users";
  }
  const std::string& directory() const { return daemon_.options().runtime_dir; }
  static v1::SetQuotaRequest QuotaRequest(uint64_t session_id) {
    v1::SetQuotaRequest request;
    request.set_session_id(session_id);
    request.set_tier(v1::TIER_HBM);
    request.set_limit_bytes(2 * kMiB);
    return request;
  }
  static grpc::Status Open(Stubs& stubs, const std::string& ticket, v1::OpenSessionResponse* opened) {
    v1::OpenSessionRequest request;
    request.set_api_version(1);
    request.set_connection_ticket(ticket);
    request.set_name("s");
    return Call(*stubs.session, &v1::SessionService::Stub::OpenSession, request, opened);
  }

  TestDaemon daemon_;
};

TEST_F(UsersTest, ARefusedUserIsToldWhy) {
  HandleConnection connection = ConnectionOf(kRefusedUser, directory());
  EXPECT_EQ(connection.Receive().reply.detail().reason(), "PEER_REFUSED");
}

TEST_F(UsersTest, AnothersSessionTakesNeitherQuotaNorToken) {
  TestSession roots(directory());
  Stubs users = StubsOf(kUser, directory());
  v1::SetQuotaResponse changed;
  EXPECT_THAT(Call(*users.node, &v1::NodeService::Stub::SetQuota, QuotaRequest(roots.id()), &changed),
              FailsWith(StatusCode::PERMISSION_DENIED, "NOT_OWNER", "session_id"));
  v1::KeepSessionRequest keep;
  keep.set_session_token(roots.token());
  v1::KeepSessionResponse kept;
  EXPECT_THAT(Call(*users.session, &v1::SessionService::Stub::KeepSession, keep, &kept),
              FailsWith(StatusCode::UNAUTHENTICATED, "UNKNOWN_SESSION", "session_token"));
  EXPECT_THAT(Call(*roots.stubs.session, &v1::SessionService::Stub::KeepSession, keep, &kept), IsOk());
}

TEST_F(UsersTest, AnothersConnectionTicketIsWorthlessAndStaysGoodForItsOwner) {
  HandleConnection connection = ConnectionOf(kUser, directory());
  const std::string ticket = connection.Receive().reply.connection_ticket();
  v1::OpenSessionResponse opened;
  Stubs roots(directory());
  EXPECT_THAT(Open(roots, ticket, &opened), FailsWith(StatusCode::UNAUTHENTICATED, "BAD_TICKET", "connection_ticket"));
  Stubs users = StubsOf(kUser, directory());
  EXPECT_THAT(Open(users, ticket, &opened), IsOk());
}

TEST_F(UsersTest, OwnerAndRootMayChangeAQuota) {
  HandleConnection connection = ConnectionOf(kUser, directory());
  Stubs users = StubsOf(kUser, directory());
  v1::OpenSessionResponse opened;
  ASSERT_THAT(Open(users, connection.Receive().reply.connection_ticket(), &opened), IsOk());
  Stubs roots(directory());
  v1::SetQuotaResponse changed;
  for (Stubs* stubs : {&users, &roots}) {
    EXPECT_THAT(Call(*stubs->node, &v1::NodeService::Stub::SetQuota, QuotaRequest(opened.session_id()), &changed),
                IsOk());
  }
}

TEST_F(UsersTest, AnothersPublicationCanBeAttachedAndNotWithdrawn) {
  TestSession roots(directory());
  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(roots.Allocate("g", {TestSession::Spec("w", 64, 64)}, &allocated), IsOk());
  ASSERT_THAT(roots.Publish("g", "p", "f"), IsOk());
  HandleConnection connection = ConnectionOf(kUser, directory());
  Stubs users = StubsOf(kUser, directory());
  v1::OpenSessionResponse opened;
  ASSERT_THAT(Open(users, connection.Receive().reply.connection_ticket(), &opened), IsOk());
  v1::AttachPublicationRequest attach;
  attach.set_session_token(opened.session_token());
  attach.set_publication("p");
  v1::AttachPublicationResponse attached;
  EXPECT_THAT(Call(*users.tensor, &v1::TensorService::Stub::AttachPublication, attach, &attached), IsOk());
  v1::WithdrawPublicationRequest withdraw;
  withdraw.set_publication("p");
  v1::WithdrawPublicationResponse withdrawn;
  EXPECT_THAT(Call(*users.tensor, &v1::TensorService::Stub::WithdrawPublication, withdraw, &withdrawn),
              FailsWith(StatusCode::PERMISSION_DENIED, "NOT_OWNER", "publication"));
  EXPECT_THAT(Call(*roots.stubs.tensor, &v1::TensorService::Stub::WithdrawPublication, withdraw, &withdrawn), IsOk());
  EXPECT_EQ(withdrawn.still_attached(), 2u);
}

}  // namespace
}  // namespace dak::daemon

// What happens while a driver call of one session is under way: others go on, and whoever dies leaves nothing behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;

class SlowDriverTest : public testing::TestWithParam<Gate::Call> {
 protected:
  SlowDriverTest() {
    daemon_.gate().Shut(GetParam());
    caller_ =
        std::thread([this] { status_ = slow_.Allocate("g", {TestSession::Spec("w", 128, 1024, 0.5)}, &response_); });
    daemon_.gate().AwaitCaller();
  }
  ~SlowDriverTest() override {
    daemon_.gate().Open();
    if (caller_.joinable()) caller_.join();
  }
  void Release() {
    daemon_.gate().Open();
    caller_.join();
  }

  TestDaemon daemon_;
  TestSession slow_{daemon_.options().runtime_dir, "slow"};
  std::thread caller_;
  grpc::Status status_;
  v1::AllocateTensorsResponse response_;
};

TEST_P(SlowDriverTest, OtherSessionsAndListingsGoOn) {
  TestSession other(daemon_.options().runtime_dir, "other");
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(other.Allocate("g", {TestSession::Spec("w", 128, 1024, 0.5)}, &response), IsOk());
  EXPECT_EQ(other.connection.Fetch({response.segments(0).ticket()}).fds.size(), 1u);
  ASSERT_THAT(other.Free({response.tensors(0).tensor_id()}), IsOk());
  v1::ListSessionsResponse sessions;
  v1::ListPoolsResponse pools;
  v1::ListTensorsResponse tensors;
  ASSERT_THAT(Call(*other.stubs.session, &v1::SessionService::Stub::ListSessions, v1::ListSessionsRequest(), &sessions),
              IsOk());
  EXPECT_EQ(sessions.sessions_size(), 2);
  EXPECT_EQ(sessions.sessions(0).tensor_count(), 0u);
  ASSERT_THAT(Call(*other.stubs.node, &v1::NodeService::Stub::ListPools, v1::ListPoolsRequest(), &pools), IsOk());
  EXPECT_EQ(pools.pools(0).session_bytes(), 2 * kMiB);  // reserved
  ASSERT_THAT(Call(*other.stubs.tensor, &v1::TensorService::Stub::ListTensors, v1::ListTensorsRequest(), &tensors),
              IsOk());
  EXPECT_EQ(tensors.tensors_size(), 0);
  EXPECT_THAT(daemon_->RenderMetrics(), testing::HasSubstr("slow"));
  // The slow session itself still fetches what it has tickets for.
  EXPECT_EQ(slow_.connection.Fetch({slow_.opened.control_ticket()}).fds.size(), 2u);
  Release();
  EXPECT_THAT(status_, IsOk());
  EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{2 * kMiB, 2 * kMiB, 0}));
}

TEST_P(SlowDriverTest, DeathInTheMiddleIsCleanedUpByTheAllocation) {
  slow_.connection.Close();
  // The token is gone at once, though the driver is still at it.
  EXPECT_TRUE(WaitUntil([&] { return slow_.Free({1}).error_code() == StatusCode::UNAUTHENTICATED; }));
  Release();
  EXPECT_TRUE(WaitUntil([&] { return daemon_.DeviceUsage() == TierArray{} && daemon_.LedgerUsage() == TierArray{}; }));
  v1::ListSessionsResponse sessions;
  EXPECT_TRUE(WaitUntil([&] {
    sessions.Clear();
    EXPECT_THAT(
        Call(*slow_.stubs.session, &v1::SessionService::Stub::ListSessions, v1::ListSessionsRequest(), &sessions),
        IsOk());
    return sessions.sessions_size() == 0;
  }));
}

TEST_P(SlowDriverTest, CloseWaitsForTheDriverAndFreesWhatItMade) {
  v1::CloseSessionResponse closed;
  grpc::Status close_status;
  std::thread closer([&] { close_status = slow_.Close(&closed); });
  EXPECT_TRUE(WaitUntil([&] { return slow_.Free({1}).error_code() == StatusCode::UNAUTHENTICATED; }));
  Release();
  closer.join();
  ASSERT_THAT(close_status, IsOk());
  ASSERT_EQ(closed.freed_size(), 2);
  EXPECT_EQ(closed.freed(0).bytes(), 2 * kMiB);
  EXPECT_EQ(daemon_.DeviceUsage(), TierArray{});
  EXPECT_EQ(daemon_.LedgerUsage(), TierArray{});
}

TEST_P(SlowDriverTest, NextOperationOfTheSessionTakesItsTurn) {
  grpc::Status second_status;
  v1::AllocateTensorsResponse second;
  std::thread next([&] { second_status = slow_.Allocate("g", {TestSession::Spec("v", 128, 1024, 0.5)}, &second); });
  Release();
  next.join();
  ASSERT_THAT(status_, IsOk());
  ASSERT_THAT(second_status, IsOk());
  EXPECT_EQ(second.segments_size(), 0);  // placed into what the first made
}

TEST_P(SlowDriverTest, StopWaitsForTheDriverAndLeavesNothing) {
  std::thread stopper([&] { daemon_.Stop(); });
  EXPECT_TRUE(WaitUntil([&] {
    v1::GetNodeResponse node;
    return !Call(*slow_.stubs.node, &v1::NodeService::Stub::GetNode, v1::GetNodeRequest(), &node).ok();
  }));
  Release();
  stopper.join();
  EXPECT_EQ(daemon_.DeviceUsage(), TierArray{});
  EXPECT_EQ(daemon_.LedgerUsage(), TierArray{});
}

INSTANTIATE_TEST_SUITE_P(DriverCalls, SlowDriverTest, testing::Values(Gate::Call::kCreateSegment, Gate::Call::kExport),
                         [](const auto& instance) {
                           return instance.param == Gate::Call::kCreateSegment ? "CreateSegment" : "Export";
                         });

TEST(SlowOpenTest, ConnectionThatEndsWhileItsSessionOpensLeavesNoSession) {
  TestDaemon daemon;
  Stubs stubs(daemon.options().runtime_dir);
  HandleConnection connection(daemon.options().runtime_dir);
  v1::OpenSessionRequest request;
  v1::OpenSessionResponse response;
  request.set_api_version(1);
  request.set_connection_ticket(connection.Receive().reply.connection_ticket());
  request.set_name("s");
  daemon.gate().Shut(Gate::Call::kCreateSharedPage);
  grpc::Status status;
  std::thread opener(
      [&] { status = Call(*stubs.session, &v1::SessionService::Stub::OpenSession, request, &response); });
  daemon.gate().AwaitCaller();
  connection.Close();
  // The daemon has seen the end once the ticket is worthless.
  EXPECT_TRUE(WaitUntil([&] {
    v1::OpenSessionResponse unused;
    return Call(*stubs.session, &v1::SessionService::Stub::OpenSession, request, &unused).error_code() ==
           StatusCode::UNAUTHENTICATED;
  }));
  daemon.gate().Open();
  opener.join();
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  v1::ListSessionsResponse sessions;
  ASSERT_THAT(Call(*stubs.session, &v1::SessionService::Stub::ListSessions, v1::ListSessionsRequest(), &sessions),
              IsOk());
  EXPECT_EQ(sessions.sessions_size(), 0);
}

}  // namespace
}  // namespace dak::daemon

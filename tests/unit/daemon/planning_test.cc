// All sessions' plans through a running daemon: who is planned anew when another one joins, leaves, changes its batch
// or its quota, and where that shows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <string>
#include <vector>

#include "dak/v1/control_page.h"
#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;
using Stub = v1::PlanService::Stub;

constexpr uint64_t kOperationBytes = 16 * kMiB;
constexpr uint64_t kRows = 4096;
constexpr int kOperations = 16;  // 256 MiB a session: all of the HBM pool
constexpr uint64_t kMaxMoveBytes = 32 * kMiB;

class PlanningTest : public testing::Test {
 protected:
  explicit PlanningTest(double min_interval_s = 0)
      : daemon_([min_interval_s](DaemonOptions* options) {
          options->device.emulated.tier_bytes = {256 * kMiB, 1024 * kMiB, 0};
          options->replan = {
              .min_gain = 0.03, .payback_s = 1e6, .min_interval_s = min_interval_s, .max_move_bytes = kMaxMoveBytes};
        }),
        stubs_(daemon_.options().runtime_dir) {}

  // Memory-bound, or computing so long that half of the bytes hide their transfer.
  static v1::PlanPassRequest Request(const TestSession& session, bool computes) {
    v1::PlanPassRequest request;
    request.set_session_token(session.token());
    for (int i = 0; i < kOperations; ++i) {
      v1::Operation* operation = request.add_operations();
      operation->set_name("m" + std::to_string(i));
      operation->set_bytes(kOperationBytes);
      operation->set_rows(kRows);
      operation->set_tile_rows(64);
      // The link at half its rate carries half of the bytes in this time.
      if (computes) operation->set_flops(798e12 * kOperationBytes / 51.1e9);
    }
    request.set_hbm_budget_bytes(256 * kMiB);
    return request;
  }
  v1::Plan Describe(const v1::PlanPassRequest& request) {
    v1::Plan plan;
    EXPECT_THAT(Call(*stubs_.plan, &Stub::PlanPass, request, &plan), IsOk());
    return plan;
  }
  v1::Plan PlanOf(const TestSession& session) {
    v1::GetPlanRequest request;
    v1::Plan plan;
    request.set_session_id(session.id());
    EXPECT_THAT(Call(*stubs_.plan, &Stub::GetPlan, request, &plan), IsOk());
    return plan;
  }
  uint64_t VersionInPage(TestSession& session) {
    if (session_pages_ == nullptr) {
      ReceivedReply pages = session.connection.Fetch({session.opened.control_ticket()});
      if (pages.fds.size() != 2) return 0;
      session_pages_ = ::mmap(nullptr, v1::kControlPageBytes, PROT_READ, MAP_SHARED, pages.fds[0].get(), 0);
      if (session_pages_ == MAP_FAILED) return 0;
    }
    return static_cast<v1::ControlPage*>(session_pages_)->links[0].plan_version;
  }
  ~PlanningTest() override {
    if (session_pages_ != nullptr) ::munmap(session_pages_, v1::kControlPageBytes);
  }
  static uint64_t RemoteRows(const v1::Plan& plan) {
    uint64_t rows = 0;
    for (const v1::OperationPlan& operation : plan.operations()) rows += operation.remote_rows();
    return rows;
  }
  static uint64_t HbmBytes(const v1::Plan& plan) { return kOperations * kOperationBytes - plan.remote_bytes(); }

  TestDaemon daemon_;
  Stubs stubs_;
  void* session_pages_ = nullptr;
};

TEST_F(PlanningTest, PlansAreInWholeTiles) {
  TestSession session(daemon_.options().runtime_dir);
  v1::PlanPassRequest request = Request(session, false);
  request.set_hbm_budget_bytes(200 * kMiB);
  const v1::Plan plan = Describe(request);
  EXPECT_LE(HbmBytes(plan), 200 * kMiB);
  EXPECT_GT(HbmBytes(plan), 199 * kMiB);
  for (const v1::OperationPlan& operation : plan.operations()) {
    EXPECT_EQ(operation.remote_rows() % 64, 0u);
    EXPECT_EQ(operation.offload_ratio(), static_cast<double>(operation.remote_rows()) / kRows);
    EXPECT_EQ(operation.remote_tier(), "host");
  }
  EXPECT_NEAR(plan.target_s(), plan.predicted_s(), 1e-12);
}

TEST_F(PlanningTest, ASessionThatJoinsMovesTheOthersStepByStep) {
  TestSession first(daemon_.options().runtime_dir, "first");
  ASSERT_EQ(RemoteRows(Describe(Request(first, true))), 0u);
  EXPECT_EQ(VersionInPage(first), 1u);
  TestSession second(daemon_.options().runtime_dir, "second");
  const v1::Plan joined = Describe(Request(second, false));
  EXPECT_EQ(joined.version(), 1u);
  v1::Plan moved = PlanOf(first);
  EXPECT_GE(moved.version(), 2u);
  EXPECT_LE(moved.moved_bytes(), kMaxMoveBytes);
  EXPECT_LE(HbmBytes(moved) + HbmBytes(joined), 256 * kMiB);
  // The steps that follow come by themselves: half of the first one's bytes are for the other.
  ASSERT_TRUE(WaitUntil([&] { return RemoteRows(PlanOf(first)) > 0.45 * kOperations * kRows; }));
  ASSERT_TRUE(WaitUntil([&] {  // together within min_gain of the optimum, and what rounding takes
    const v1::Plan one = PlanOf(first);
    const v1::Plan other = PlanOf(second);
    return one.predicted_s() + other.predicted_s() < 1.06 * (one.target_s() + other.target_s());
  }));
  moved = PlanOf(first);
  EXPECT_TRUE(WaitUntil([&] { return VersionInPage(first) >= moved.version(); }));
  EXPECT_THAT(daemon_->RenderMetrics(), HasSubstr("dak_replans_total{outcome=\"changed\"}"));
}

TEST_F(PlanningTest, ASessionThatLeavesGivesItsHbmToTheOthers) {
  TestSession first(daemon_.options().runtime_dir, "first");
  Describe(Request(first, false));
  TestSession second(daemon_.options().runtime_dir, "second");
  const uint64_t before = RemoteRows(Describe(Request(second, false)));
  ASSERT_GT(before, kOperations * kRows / 2);
  first.connection.Close();  // it dies
  EXPECT_TRUE(WaitUntil([&] { return RemoteRows(PlanOf(second)) < kOperations * kRows / 10; }))
      << RemoteRows(PlanOf(second));
  EXPECT_GT(PlanOf(second).version(), 1u);
}

TEST_F(PlanningTest, ASessionWithoutAPlanIsLeftOut) {
  TestSession silent(daemon_.options().runtime_dir, "silent");
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(silent.Allocate("a", {TestSession::Spec("w", 32 << 10, 1 << 10)}, &response), IsOk());  // 64 MiB
  TestSession session(daemon_.options().runtime_dir, "planned");
  EXPECT_LE(HbmBytes(Describe(Request(session, false))), 192 * kMiB);
  v1::GetPlanRequest request;
  v1::Plan plan;
  request.set_session_id(silent.id());
  EXPECT_THAT(Call(*stubs_.plan, &Stub::GetPlan, request, &plan),
              FailsWith(StatusCode::NOT_FOUND, "NO_PLAN", "session_id"));
}

TEST_F(PlanningTest, AnotherBatchKeepsTheVersionWhereNothingMoves) {
  TestSession session(daemon_.options().runtime_dir);
  v1::PlanPassRequest request = Request(session, false);
  request.set_hbm_budget_bytes(128 * kMiB);
  const v1::Plan before = Describe(request);
  EXPECT_EQ(Describe(request).SerializeAsString(), before.SerializeAsString());
  for (v1::Operation& operation : *request.mutable_operations()) operation.set_flops(1e15);
  const v1::Plan after = Describe(request);
  EXPECT_EQ(after.version(), 1u);
  EXPECT_EQ(RemoteRows(after), RemoteRows(before));
  EXPECT_GT(after.predicted_s(), before.predicted_s());
  EXPECT_EQ(PlanOf(session).predicted_s(), after.predicted_s());
}

TEST_F(PlanningTest, ASmallerQuotaForcesRowsOut) {
  TestSession session(daemon_.options().runtime_dir);
  Describe(Request(session, false));
  v1::SetQuotaRequest quota;
  v1::SetQuotaResponse set;
  quota.set_session_id(session.id());
  quota.set_tier(v1::TIER_HBM);
  quota.set_limit_bytes(64 * kMiB);
  ASSERT_THAT(Call(*stubs_.node, &v1::NodeService::Stub::SetQuota, quota, &set), IsOk());
  EXPECT_TRUE(WaitUntil([&] { return HbmBytes(PlanOf(session)) <= 64 * kMiB; }));
  EXPECT_LE(PlanOf(session).moved_bytes(), kMaxMoveBytes);
}

TEST_F(PlanningTest, WhatFitsInNoWayIsRefusedAndLeavesTheOthersAlone) {
  TestSession first(daemon_.options().runtime_dir, "first");
  const v1::Plan held = Describe(Request(first, false));
  TestSession second(daemon_.options().runtime_dir, "second");
  v1::PlanPassRequest request = Request(second, false);
  for (v1::Operation& operation : *request.mutable_operations()) operation.set_max_ratio(1e-9);
  request.set_hbm_budget_bytes(64 * kMiB);
  v1::Plan plan;
  const grpc::Status refused = Call(*stubs_.plan, &Stub::PlanPass, request, &plan);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED) << refused.error_message();
  EXPECT_GT(DetailIn(refused).shortfall_bytes(), 100 * kMiB);
  EXPECT_EQ(PlanOf(first).SerializeAsString(), held.SerializeAsString());
}

// A quota too small for its session's lowest ratios: the plan stays, and the failure is counted.
TEST_F(PlanningTest, AReplanThatFailsIsCountedAndChangesNothing) {
  TestSession session(daemon_.options().runtime_dir);
  v1::PlanPassRequest request = Request(session, false);
  for (v1::Operation& operation : *request.mutable_operations()) operation.set_max_ratio(0.1);
  const v1::Plan held = Describe(request);
  v1::SetQuotaRequest quota;
  v1::SetQuotaResponse set;
  quota.set_session_id(session.id());
  quota.set_tier(v1::TIER_HBM);
  quota.set_limit_bytes(16 * kMiB);
  ASSERT_THAT(Call(*stubs_.node, &v1::NodeService::Stub::SetQuota, quota, &set), IsOk());
  EXPECT_TRUE(WaitUntil(
      [&] { return daemon_->RenderMetrics().find("dak_replans_total{outcome=\"failed\"} 1") != std::string::npos; }));
  EXPECT_EQ(PlanOf(session).SerializeAsString(), held.SerializeAsString());
}

// With a long interval, what isn't forced waits: sessions that come and go don't make others move.
class SlowPlanningTest : public PlanningTest {
 protected:
  SlowPlanningTest() : PlanningTest(3600) {}
};

TEST_F(SlowPlanningTest, ComingAndGoingMovesOthersOnce) {
  TestSession first(daemon_.options().runtime_dir, "first");
  Describe(Request(first, true));
  for (int i = 0; i < 5; ++i) {
    TestSession guest(daemon_.options().runtime_dir, "guest");
    Describe(Request(guest, false));
    ASSERT_THAT(guest.Close(), IsOk());
  }
  // The daemon has seen the last one go when it plans another one without it.
  TestSession last(daemon_.options().runtime_dir, "last");
  Describe(Request(last, false));
  EXPECT_EQ(PlanOf(first).version(), 2u);
  EXPECT_LE(PlanOf(first).moved_bytes(), kMaxMoveBytes);
}

}  // namespace
}  // namespace dak::daemon

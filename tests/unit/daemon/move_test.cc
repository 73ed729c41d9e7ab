// Moves of tensors between tiers: what is copied, what is held meanwhile, what commit and abort give back, and what
// every failure leaves: the old layout.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <thread>

#include "allocator/base/error_detail.h"
#include "tests/unit/daemon/migration_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

constexpr uint64_t kRows = 1024;
constexpr uint64_t kCols = 4096;  // 8 KiB a row: 8 MiB a tensor

absl::Status Injected() {
  return WithDetail(absl::InternalError("cuMemcpyAsync: CUDA_ERROR_INJECTED (999)"), {.reason = "DRIVER_ERROR"});
}

class MoveTest : public testing::Test {
 protected:
  MoveTest() : client_(daemon_.options().runtime_dir) {
    EXPECT_THAT(client_.Allocate("g", {TestSession::Spec("w", kRows, kCols)}), IsOk());
    client_.Fill(client_.tensor("w"));
  }
  uint64_t id() { return client_.tensor("w").tensor_id(); }

  TestDaemon daemon_;
  MigrationClient client_;
};

TEST_F(MoveTest, RowsGoToTheHostAndTheOldPlaceComesBackWithTheCommit) {
  EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{8 * kMiB, 0, 0}));
  v1::PrepareMoveResponse move;
  ASSERT_THAT(client_.PrepareMove({client_.Move(id(), 0.25)}, &move), IsOk());
  // Both places are held: 6 MiB of HBM and 2 MiB of host memory beside the old 8.
  EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{14 * kMiB, 2 * kMiB, 0}));
  EXPECT_EQ(daemon_.LedgerUsage(), (TierArray{14 * kMiB, 2 * kMiB, 0}));
  ASSERT_EQ(move.tensors_size(), 1);
  ASSERT_EQ(move.tensors(0).parts_size(), 2);
  EXPECT_EQ(move.tensors(0).parts(1).first_row(), 768u);
  EXPECT_EQ(move.tensors(0).parts(0).tensor_map().size(), 128u);
  ASSERT_EQ(move.copied_size(), 2);
  EXPECT_EQ(move.copied(0).bytes(), 6 * kMiB);  // within HBM
  EXPECT_EQ(move.copied(1).to(), v1::TIER_HOST);
  EXPECT_EQ(move.copied(1).bytes(), 2 * kMiB);
  client_.MapGrants(move.segments());
  client_.ExpectFilled(client_.tensor("w"));  // the old layout goes on
  client_.ExpectFilled(move.tensors(0));
  v1::CommitMoveResponse committed;
  ASSERT_THAT(client_.CommitMove(move.move_id(), &committed), IsOk());
  EXPECT_EQ(committed.released_segment_ids_size(), 1);
  EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{6 * kMiB, 2 * kMiB, 0}));
  EXPECT_EQ(daemon_.LedgerUsage(), (TierArray{6 * kMiB, 2 * kMiB, 0}));
  // Its answer may have been lost: the same again is no error, and changes nothing.
  EXPECT_THAT(client_.CommitMove(move.move_id(), &committed), IsOk());
  EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{6 * kMiB, 2 * kMiB, 0}));
}

TEST_F(MoveTest, RowsComeBackAndRowsThatStayInTheirTierNeverCrossTheLink) {
  client_.MoveAll(client_.tensor("w"), 0.5);
  v1::PrepareMoveResponse move;
  ASSERT_THAT(client_.PrepareMove({client_.Move(id(), 0.25)}, &move), IsOk());
  ASSERT_EQ(move.copied_size(), 3);
  EXPECT_EQ(move.copied(0).from(), v1::TIER_HBM);
  EXPECT_EQ(move.copied(0).to(), v1::TIER_HBM);
  EXPECT_EQ(move.copied(0).bytes(), 4 * kMiB);
  EXPECT_EQ(move.copied(1).from(), v1::TIER_HOST);
  EXPECT_EQ(move.copied(1).to(), v1::TIER_HBM);
  EXPECT_EQ(move.copied(1).bytes(), 2 * kMiB);
  EXPECT_EQ(move.copied(2).from(), v1::TIER_HOST);
  EXPECT_EQ(move.copied(2).to(), v1::TIER_HOST);
  EXPECT_EQ(move.copied(2).bytes(), 2 * kMiB);
  client_.MapGrants(move.segments());
  client_.ExpectFilled(move.tensors(0));
  ASSERT_THAT(client_.CommitMove(move.move_id()), IsOk());
  EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{6 * kMiB, 2 * kMiB, 0}));
}

TEST_F(MoveTest, AMoveThatChangesNothingCopiesAndHoldsNothing) {
  v1::PrepareMoveResponse move;
  ASSERT_THAT(client_.PrepareMove({client_.Move(id(), 0)}, &move), IsOk());
  EXPECT_EQ(move.copied_size(), 0);
  EXPECT_EQ(move.segments_size(), 0);
  EXPECT_EQ(move.tensors(0).parts(0).segment_id(), client_.tensor("w").parts(0).segment_id());
  ASSERT_THAT(client_.CommitMove(move.move_id()), IsOk());
  EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{8 * kMiB, 0, 0}));
}

TEST_F(MoveTest, AnAbortGivesTheNewPlaceBack) {
  v1::PrepareMoveResponse move;
  ASSERT_THAT(client_.PrepareMove({client_.Move(id(), 0.25)}, &move), IsOk());
  EXPECT_THAT(client_.AbortMove(move.move_id() + 1), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_MOVE", "move_id"));
  ASSERT_THAT(client_.AbortMove(move.move_id()), IsOk());
  EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{8 * kMiB, 0, 0}));
  EXPECT_EQ(daemon_.LedgerUsage(), (TierArray{8 * kMiB, 0, 0}));
  EXPECT_THAT(client_.CommitMove(move.move_id()), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_MOVE", "move_id"));
  client_.ExpectFilled(client_.tensor("w"));
  // Tickets of what went are void.
  EXPECT_NE(client_.session.connection.Fetch({move.segments(0).ticket()}).reply.code(), 0);
  // 0 is whichever is pending.
  EXPECT_THAT(client_.AbortMove(0), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_MOVE", "move_id"));
  ASSERT_THAT(client_.PrepareMove({client_.Move(id(), 0.25)}, &move), IsOk());
  EXPECT_THAT(client_.AbortMove(0), IsOk());
}

TEST_F(MoveTest, RowsThatTheClientMayWriteAreLeftToIt) {
  v1::TensorMove spec = client_.Move(id(), 0.25);
  spec.set_written(true);
  spec.set_stable_rows(512);
  v1::PrepareMoveResponse move;
  ASSERT_THAT(client_.PrepareMove({spec}, &move), IsOk());
  ASSERT_EQ(move.copied_size(), 1);
  EXPECT_EQ(move.copied(0).bytes(), 4 * kMiB);  // rows under 512, all within HBM
  client_.MapGrants(move.segments());
  client_.ExpectFilled(move.tensors(0), 512);
}

TEST_F(MoveTest, WhatIsMovingCanBeNeitherFreedNorPublishedNorMovedAgain) {
  v1::AllocateTensorsResponse more;
  ASSERT_THAT(client_.session.Allocate("g", {TestSession::Spec("other", 64, 64)}, &more), IsOk());
  v1::PrepareMoveResponse move;
  ASSERT_THAT(client_.PrepareMove({client_.Move(id(), 0.25)}, &move), IsOk());
  EXPECT_THAT(client_.session.Free({id()}),
              FailsWith(StatusCode::FAILED_PRECONDITION, "MOVE_PENDING", "tensor_ids[0]"));
  EXPECT_THAT(client_.session.Publish("g", "p", "f"),
              FailsWith(StatusCode::FAILED_PRECONDITION, "MOVE_PENDING", "group"));
  v1::PrepareMoveResponse second;
  EXPECT_THAT(client_.PrepareMove({client_.Move(id(), 0.5)}, &second),
              FailsWith(StatusCode::FAILED_PRECONDITION, "MOVE_PENDING", ""));
  EXPECT_THAT(client_.Suspend(), FailsWith(StatusCode::FAILED_PRECONDITION, "MOVE_PENDING", ""));
  // The others go on.
  EXPECT_THAT(client_.session.Free({more.tensors(0).tensor_id()}), IsOk());
  EXPECT_THAT(client_.session.Allocate("g", {TestSession::Spec("third", 64, 64)}, &more), IsOk());
  ASSERT_THAT(client_.CommitMove(move.move_id()), IsOk());
  EXPECT_THAT(client_.session.Free({id()}), IsOk());
}

TEST_F(MoveTest, EveryRequestIsChecked) {
  ASSERT_THAT(client_.Allocate("other", {TestSession::Spec("v", 64, 64)}), IsOk());
  v1::PrepareMoveResponse move;
  const auto refused = [&](const std::vector<v1::TensorMove>& moves) { return client_.PrepareMove(moves, &move); };
  const auto with = [&](auto change) {
    v1::TensorMove spec = client_.Move(id(), 0.25);
    change(spec);
    return spec;
  };
  EXPECT_THAT(refused({}), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "moves"));
  EXPECT_THAT(refused(std::vector<v1::TensorMove>(1025)),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "moves"));
  EXPECT_THAT(refused({with([](auto& m) { m.set_offload_ratio(1.5); })}),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "moves[0].offload_ratio"));
  EXPECT_THAT(refused({with([](auto& m) { m.set_tile_rows(5000); })}),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "moves[0].tile_rows"));
  EXPECT_THAT(refused({with([](auto& m) { m.set_remote_tier(v1::TIER_HBM); })}),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "moves[0].remote_tier"));
  EXPECT_THAT(refused({with([](auto& m) { m.set_remote_tier(v1::TIER_CXL); })}),
              FailsWith(StatusCode::FAILED_PRECONDITION, "TIER_ABSENT", "moves[0].remote_tier"));
  EXPECT_THAT(refused({with([](auto& m) {
                m.set_written(true);
                m.set_stable_rows(kRows + 1);
              })}),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "moves[0].stable_rows"));
  EXPECT_THAT(refused({client_.Move(999, 0.5)}),
              FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_TENSOR", "moves[0].tensor_id"));
  EXPECT_THAT(refused({client_.Move(id(), 0.5), client_.Move(id(), 0.5)}),
              FailsWith(StatusCode::INVALID_ARGUMENT, "DUPLICATE", "moves[1].tensor_id"));
  EXPECT_THAT(refused({client_.Move(id(), 0.5), client_.Move(client_.tensor("v").tensor_id(), 0.5)}),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OTHER_GROUP", "moves[1].tensor_id"));
  EXPECT_THAT(client_.CommitMove(0), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "move_id"));
  EXPECT_EQ(daemon_.LedgerUsage(), (TierArray{10 * kMiB, 0, 0}));
}

TEST_F(MoveTest, WhatDoesNotFitSaysByHowMuchAndChangesNothing) {
  v1::SetQuotaRequest quota;
  v1::SetQuotaResponse set;
  quota.set_session_id(client_.session.id());
  quota.set_tier(v1::TIER_HBM);
  quota.set_limit_bytes(12 * kMiB);
  ASSERT_THAT(Call(*client_.session.stubs.node, &v1::NodeService::Stub::SetQuota, quota, &set), IsOk());
  v1::PrepareMoveResponse move;
  const grpc::Status status = client_.PrepareMove({client_.Move(id(), 0.25)}, &move);
  EXPECT_THAT(status, FailsWith(StatusCode::RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "moves"));
  EXPECT_EQ(DetailIn(status).shortfall_bytes(), 2 * kMiB);
  EXPECT_EQ(daemon_.LedgerUsage(), (TierArray{8 * kMiB, 0, 0}));
}

TEST_F(MoveTest, EveryFailureOfTheDriverLeavesTheOldLayout) {
  const TierArray before = daemon_.DeviceUsage();
  int failures = 0;
  v1::PrepareMoveResponse move;
  for (uint64_t n = 1;; ++n) {
    daemon_.device().FailNthOfAny(n, Injected());
    const grpc::Status status = client_.PrepareMove({client_.Move(id(), 0.25)}, &move);
    if (!daemon_.device().fired()) {
      ASSERT_THAT(status, IsOk());
      break;
    }
    ++failures;
    EXPECT_EQ(DetailIn(status).reason(), "DRIVER_ERROR");
    EXPECT_THAT(status.error_message(), HasSubstr("CUDA_ERROR_INJECTED (999)"));
    EXPECT_EQ(daemon_.DeviceUsage(), before) << "after failure " << n;
    EXPECT_EQ(daemon_.LedgerUsage(), before) << "after failure " << n;
    client_.ExpectFilled(client_.tensor("w"));
  }
  // Two segments made and exported, two descriptors encoded, three segments exported and mapped, chunks copied.
  EXPECT_GE(failures, 14);
}

TEST_F(MoveTest, AClientThatDiesWhileItsRowsAreCopiedLeavesNothing) {
  daemon_.gate().Shut(Gate::Call::kCopy);
  grpc::Status status;
  v1::PrepareMoveResponse move;
  std::thread caller([&] { status = client_.PrepareMove({client_.Move(id(), 0.25)}, &move); });
  daemon_.gate().AwaitCaller();
  EXPECT_EQ(daemon_.LedgerUsage(), (TierArray{14 * kMiB, 2 * kMiB, 0}));
  client_.session.connection.Close();
  ASSERT_TRUE(WaitUntil([&] { return client_.session.Free({1}).error_code() == StatusCode::UNAUTHENTICATED; }));
  daemon_.gate().Open();
  caller.join();
  EXPECT_EQ(status.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(WaitUntil([&] { return daemon_.DeviceUsage() == TierArray{} && daemon_.LedgerUsage() == TierArray{}; }));
}

TEST_F(MoveTest, AClientThatDiesBetweenPrepareAndCommitLeavesNothing) {
  v1::PrepareMoveResponse move;
  ASSERT_THAT(client_.PrepareMove({client_.Move(id(), 0.25)}, &move), IsOk());
  client_.session.connection.Close();
  EXPECT_TRUE(WaitUntil([&] { return daemon_.DeviceUsage() == TierArray{} && daemon_.LedgerUsage() == TierArray{}; }));
}

TEST_F(MoveTest, ACallerThatGivesUpEndsTheCopy) {
  daemon_.gate().Shut(Gate::Call::kCopy);
  grpc::ClientContext context;
  grpc::Status status;
  std::thread caller([&] {
    v1::PrepareMoveResponse move;
    status = client_.migration->PrepareMove(&context, client_.PrepareRequest({client_.Move(id(), 0.25)}), &move);
  });
  daemon_.gate().AwaitCaller();
  context.TryCancel();
  caller.join();
  EXPECT_EQ(status.error_code(), StatusCode::CANCELLED);
  daemon_.gate().Open();
  EXPECT_TRUE(WaitUntil([&] { return daemon_.LedgerUsage() == TierArray{8 * kMiB, 0, 0}; }));
  v1::PrepareMoveResponse move;
  EXPECT_THAT(client_.PrepareMove({client_.Move(id(), 0.25)}, &move), IsOk());
}

TEST(MoveLimitTest, TooManyBytesOverTheLinkAreRefused) {
  TestDaemon daemon([](DaemonOptions* options) { options->limits.max_move_bytes = 2 * kMiB; });
  MigrationClient client(daemon.options().runtime_dir);
  ASSERT_THAT(client.Allocate("g", {TestSession::Spec("w", kRows, kCols)}), IsOk());
  v1::PrepareMoveResponse move;
  const uint64_t id = client.tensor("w").tensor_id();
  EXPECT_THAT(client.PrepareMove({client.Move(id, 0.5)}, &move),
              FailsWith(StatusCode::FAILED_PRECONDITION, "MOVE_TOO_LARGE", "moves"));
  EXPECT_THAT(client.PrepareMove({client.Move(id, 0.25)}, &move), IsOk());
}

TEST_F(MoveTest, EventsAndMetricsSayWhatMovedAndHowFast) {
  v1::PrepareMoveResponse move;
  ASSERT_THAT(client_.PrepareMove({client_.Move(id(), 0.25)}, &move), IsOk());
  ASSERT_THAT(client_.CommitMove(move.move_id()), IsOk());
  daemon_.device().FailNth(FaultingDevice::Method::kCopy, 1, Injected());
  ASSERT_FALSE(client_.PrepareMove({client_.Move(id(), 0.5)}, &move).ok());
  const std::vector<v1::Event> events = client_.Events(5);
  const auto message_of = [&](v1::Event::Type type) -> std::string {
    for (const v1::Event& event : events) {
      if (event.type() == type) return event.message();
    }
    return "";
  };
  EXPECT_THAT(message_of(v1::Event::MOVE_PREPARED),
              HasSubstr("1 tensors: hbm to hbm 6291456 bytes, hbm to host 2097152"));
  EXPECT_THAT(message_of(v1::Event::MOVE_PREPARED), HasSubstr("GB/s"));
  EXPECT_THAT(message_of(v1::Event::MOVE_COMMITTED), HasSubstr("move "));
  EXPECT_THAT(message_of(v1::Event::MIGRATION_FAILED), HasSubstr("CUDA_ERROR_INJECTED"));
  const std::string metrics = daemon_->RenderMetrics();
  EXPECT_THAT(metrics, HasSubstr("dak_migration_bytes_total{from=\"hbm\",to=\"host\"} 2097152"));
  EXPECT_THAT(metrics, HasSubstr("dak_migrations_total{kind=\"move\",result=\"done\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("dak_migrations_total{kind=\"move\",result=\"failed\"} 1"));
}

}  // namespace
}  // namespace dak::daemon

// A session that leaves HBM and comes back: what is asked of it first, what every failure leaves, who may ask, and what
// is said of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "allocator/base/error_detail.h"
#include "tests/unit/daemon/migration_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

absl::Status Injected() {
  return WithDetail(absl::InternalError("cuMemCreate: CUDA_ERROR_INJECTED (999)"), {.reason = "DRIVER_ERROR"});
}

class DemoteTest : public testing::Test {
 protected:
  DemoteTest() {
    // Two groups, so two segments in HBM, and one on the host.
    EXPECT_THAT(client_.Allocate("g", {TestSession::Spec("w", 1024, 4096, 0.25)}), IsOk());
    EXPECT_THAT(client_.Allocate("h", {TestSession::Spec("v", 512, 4096)}), IsOk());
    client_.Fill(client_.tensor("w"));
    client_.Fill(client_.tensor("v"));
  }
  void ExpectInHbm() {
    EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{10 * kMiB, 2 * kMiB, 0}));
    EXPECT_EQ(daemon_.LedgerUsage(), (TierArray{10 * kMiB, 2 * kMiB, 0}));
    ExpectIntact();
  }
  void ExpectDemoted() {
    EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{0, 12 * kMiB, 0}));
    EXPECT_EQ(daemon_.LedgerUsage(), (TierArray{0, 12 * kMiB, 0}));
    ExpectIntact();
  }
  void ExpectIntact() {
    client_.ExpectFilled(client_.tensor("w"));
    client_.ExpectFilled(client_.tensor("v"));
  }
  void Demote() {
    ASSERT_THAT(client_.Suspend(), IsOk());
    std::thread server([&] { client_.Serve(); });
    EXPECT_THAT(client_.Demote(), IsOk());
    server.join();
  }
  uint64_t AddressOf(const std::string& name) {
    return client_.mapping(client_.tensor(name).parts(0).segment_id()).address();
  }

  TestDaemon daemon_;
  MigrationClient client_{daemon_.options().runtime_dir};
};

TEST_F(DemoteTest, LeavesHbmAndComesBackAtTheSameAddresses) {
  const uint64_t address = AddressOf("w");
  ASSERT_THAT(client_.Suspend(), IsOk());
  std::vector<v1::MigrationProgress> progress;
  std::thread server([&] { client_.Serve(); });
  ASSERT_THAT(client_.Demote(&progress), IsOk());
  server.join();
  ExpectDemoted();
  EXPECT_EQ(AddressOf("w"), address);
  ASSERT_GE(progress.size(), 2u);
  const v1::MigrationProgress& last = progress.back();
  EXPECT_FALSE(progress.front().finished());
  EXPECT_TRUE(last.finished());
  EXPECT_EQ(last.total_bytes(), 10 * kMiB);
  EXPECT_EQ(last.done_bytes(), 10 * kMiB);
  EXPECT_EQ(last.segment_count(), 2u);
  ASSERT_EQ(last.copied_size(), 1);
  EXPECT_EQ(last.copied(0).from(), v1::TIER_HBM);
  EXPECT_EQ(last.copied(0).to(), v1::TIER_HOST);
  EXPECT_EQ(last.hbm_free_after_bytes(), last.hbm_free_before_bytes() + 10 * kMiB);
  // Listings say where the bytes are.
  v1::ListTensorsResponse tensors;
  ASSERT_THAT(
      Call(*client_.session.stubs.tensor, &v1::TensorService::Stub::ListTensors, v1::ListTensorsRequest(), &tensors),
      IsOk());
  for (const v1::Tensor& tensor : tensors.tensors()) {
    for (const v1::TensorPart& part : tensor.parts()) EXPECT_EQ(part.tier(), v1::TIER_HOST);
  }
  v1::ListPoolsResponse pools;
  ASSERT_THAT(Call(*client_.session.stubs.node, &v1::NodeService::Stub::ListPools, v1::ListPoolsRequest(), &pools),
              IsOk());
  EXPECT_EQ(pools.pools(0).segment_count(), 0u);
  EXPECT_EQ(pools.pools(1).segment_count(), 3u);

  std::thread again([&] { client_.Serve(); });
  ASSERT_THAT(client_.Promote(&progress), IsOk());
  again.join();
  ExpectInHbm();
  EXPECT_EQ(AddressOf("w"), address);
  EXPECT_THAT(client_.Resume(), IsOk());
  EXPECT_THAT(client_.session.Free({client_.tensor("v").tensor_id()}), IsOk());
}

TEST_F(DemoteTest, ResumingBringsADemotedSessionBack) {
  Demote();
  std::thread server([&] { client_.Serve(); });
  v1::ResumeSessionResponse resumed;
  ASSERT_THAT(client_.Resume(&resumed), IsOk());
  server.join();
  ExpectInHbm();
  ASSERT_EQ(resumed.copied_size(), 1);
  EXPECT_EQ(resumed.copied(0).bytes(), 10 * kMiB);
  EXPECT_THAT(client_.Demote(), FailsWith(StatusCode::FAILED_PRECONDITION, "NOT_SUSPENDED", "session_id"));
  // Resuming again changes nothing.
  EXPECT_THAT(client_.Resume(), IsOk());
}

TEST_F(DemoteTest, OnlyASuspendedSessionAndOnlyOnce) {
  EXPECT_THAT(client_.Demote(), FailsWith(StatusCode::FAILED_PRECONDITION, "NOT_SUSPENDED", "session_id"));
  EXPECT_THAT(client_.Promote(), FailsWith(StatusCode::FAILED_PRECONDITION, "NOT_DEMOTED", "session_id"));
  Demote();
  EXPECT_THAT(client_.Demote(), FailsWith(StatusCode::FAILED_PRECONDITION, "ALREADY_DEMOTED", "session_id"));
  ExpectDemoted();
}

TEST_F(DemoteTest, ADemotedSessionChangesNothingUntilItIsBack) {
  Demote();
  v1::AllocateTensorsResponse allocated;
  v1::PrepareMoveResponse move;
  EXPECT_THAT(client_.session.Allocate("g", {TestSession::Spec("u", 64, 64)}, &allocated),
              FailsWith(StatusCode::FAILED_PRECONDITION, "DEMOTED", ""));
  EXPECT_THAT(client_.session.Free({client_.tensor("v").tensor_id()}),
              FailsWith(StatusCode::FAILED_PRECONDITION, "DEMOTED", ""));
  EXPECT_THAT(client_.session.Publish("g", "p", "f"), FailsWith(StatusCode::FAILED_PRECONDITION, "DEMOTED", ""));
  EXPECT_THAT(client_.PrepareMove({client_.Move(client_.tensor("v").tensor_id(), 0.5)}, &move),
              FailsWith(StatusCode::FAILED_PRECONDITION, "DEMOTED", ""));
  ExpectDemoted();
  // But it can end.
  ASSERT_THAT(client_.session.Close(), IsOk());
  EXPECT_EQ(daemon_.DeviceUsage(), TierArray{});
  EXPECT_EQ(daemon_.LedgerUsage(), TierArray{});
}

TEST_F(DemoteTest, APromotionThatDoesNotFitSaysByHowMuchAndLosesNothing) {
  Demote();
  TestSession other(daemon_.options().runtime_dir, "other");
  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(other.Allocate("g", {TestSession::Spec("x", 60 * 128, 4096)}, &allocated), IsOk());  // 60 of 64 MiB
  const grpc::Status status = client_.Resume();
  EXPECT_THAT(status, FailsWith(StatusCode::RESOURCE_EXHAUSTED, "POOL_EXHAUSTED", ""));
  EXPECT_EQ(DetailIn(status).shortfall_bytes(), 6 * kMiB);
  EXPECT_EQ(daemon_.LedgerUsage(), (TierArray{60 * kMiB, 12 * kMiB, 0}));
  ExpectIntact();
  ASSERT_THAT(other.Close(), IsOk());
  std::thread server([&] { client_.Serve(); });
  EXPECT_THAT(client_.Resume(), IsOk());
  server.join();
  ExpectInHbm();
}

TEST_F(DemoteTest, ADemotionThatDoesNotFitSaysByHowMuch) {
  TestSession other(daemon_.options().runtime_dir, "other");
  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(other.Allocate("g", {TestSession::Spec("x", 120 * 128, 4096, 1)}, &allocated), IsOk());  // 120 of 128 MiB
  ASSERT_THAT(client_.Suspend(), IsOk());
  const grpc::Status status = client_.Demote();
  EXPECT_THAT(status, FailsWith(StatusCode::RESOURCE_EXHAUSTED, "POOL_EXHAUSTED", ""));
  EXPECT_EQ(DetailIn(status).shortfall_bytes(), 4 * kMiB);
  ASSERT_THAT(other.Close(), IsOk());
  ExpectInHbm();
}

TEST_F(DemoteTest, EveryFailureOfTheDriverLeavesTheSessionInHbm) {
  ASSERT_THAT(client_.Suspend(), IsOk());
  std::atomic<bool> done = false;
  std::thread server([&] { client_.ServeUntil(done); });
  int failures = 0;
  bool fired = true;
  for (uint64_t n = 1; fired; ++n) {
    daemon_.device().FailNthOfAny(n, Injected());
    const grpc::Status status = client_.Demote();
    fired = daemon_.device().fired();
    daemon_.device().FailNthOfAny(0, absl::OkStatus());
    if (status.ok()) {
      // Only the figures of free memory may be missing.
      ExpectDemoted();
      EXPECT_THAT(client_.Promote(), IsOk());
      continue;
    }
    ++failures;
    EXPECT_EQ(DetailIn(status).reason(), "DRIVER_ERROR") << status.error_message();
    ExpectInHbm();
  }
  done = true;
  server.join();
  // Two segments made and exported, the originals exported; four segments exported and mapped to copy, two copies.
  EXPECT_EQ(failures, 16);
  ExpectInHbm();
}

TEST_F(DemoteTest, AProcessThatCannotExchangeKeepsItsMemory) {
  ASSERT_THAT(client_.Suspend(), IsOk());
  std::thread server([&] {
    const v1::TakeExchangeResponse exchange = client_.AwaitExchange();
    EXPECT_EQ(exchange.segments_size(), 2);
    EXPECT_THAT(client_.FinishExchange(exchange.exchange_id() + 1),
                FailsWith(StatusCode::NOT_FOUND, "NO_EXCHANGE", "exchange_id"));
    EXPECT_THAT(client_.FinishExchange(exchange.exchange_id(), 13, "cuMemMap failed: CUDA_ERROR_INJECTED (999)"),
                IsOk());
  });
  const grpc::Status status = client_.Demote();
  server.join();
  EXPECT_THAT(status, FailsWith(StatusCode::INTERNAL, "DRIVER_ERROR", ""));
  EXPECT_THAT(status.error_message(), HasSubstr("kept its memory: cuMemMap failed"));
  ExpectInHbm();
  v1::TakeExchangeResponse exchange;
  EXPECT_THAT(client_.TakeExchange(&exchange), FailsWith(StatusCode::NOT_FOUND, "NO_EXCHANGE", ""));
}

TEST_F(DemoteTest, AProcessThatResumesEndsTheDemotion) {
  ASSERT_THAT(client_.Suspend(), IsOk());
  daemon_.gate().Shut(Gate::Call::kCopy);
  grpc::Status demoted;
  std::thread operator_thread([&] { demoted = client_.Demote(); });
  daemon_.gate().AwaitCaller();
  grpc::Status resumed;
  std::thread application([&] { resumed = client_.Resume(); });
  // The copy under way ends; then Resume is noticed.
  daemon_.gate().Open();
  operator_thread.join();
  application.join();
  EXPECT_THAT(resumed, IsOk());
  // Either it was told in time, or the copy was quicker and the exchange was withdrawn.
  EXPECT_THAT(demoted, FailsWith(StatusCode::ABORTED, "RESUMED", ""));
  ExpectInHbm();
}

TEST_F(DemoteTest, AProcessThatDiesMeanwhileLeavesNothing) {
  ASSERT_THAT(client_.Suspend(), IsOk());
  grpc::Status status;
  std::thread operator_thread([&] { status = client_.Demote(); });
  client_.AwaitExchange();  // taken, and never finished
  EXPECT_EQ(daemon_.LedgerUsage(), (TierArray{10 * kMiB, 12 * kMiB, 0}));
  client_.session.connection.Close();
  operator_thread.join();
  EXPECT_EQ(status.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(WaitUntil([&] { return daemon_.DeviceUsage() == TierArray{} && daemon_.LedgerUsage() == TierArray{}; }));
}

TEST_F(DemoteTest, AnOperatorWhoGivesUpEndsTheDemotion) {
  ASSERT_THAT(client_.Suspend(), IsOk());
  daemon_.gate().Shut(Gate::Call::kCopy);
  grpc::ClientContext context;
  v1::DemoteSessionRequest request;
  request.set_session_id(client_.session.id());
  auto reader = client_.migration->DemoteSession(&context, request);
  daemon_.gate().AwaitCaller();
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  daemon_.gate().Open();
  EXPECT_TRUE(WaitUntil([&] { return daemon_.LedgerUsage() == TierArray{10 * kMiB, 2 * kMiB, 0}; }));
  ExpectInHbm();
}

TEST_F(DemoteTest, ADaemonThatStopsDoesNotWaitForTheProcess) {
  ASSERT_THAT(client_.Suspend(), IsOk());
  grpc::Status status;
  std::thread operator_thread([&] { status = client_.Demote(); });
  client_.AwaitExchange();
  daemon_.Stop();
  operator_thread.join();
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(daemon_.DeviceUsage(), TierArray{});
  ExpectIntact();  // what is mapped stays
}

TEST_F(DemoteTest, ASessionWithoutHbmIsDemotedAtOnce) {
  MigrationClient other(daemon_.options().runtime_dir);
  ASSERT_THAT(other.Suspend(), IsOk());
  std::vector<v1::MigrationProgress> progress;
  ASSERT_THAT(other.Demote(&progress), IsOk());
  ASSERT_EQ(progress.size(), 1u);
  EXPECT_EQ(progress[0].segment_count(), 0u);
  EXPECT_THAT(other.Resume(), IsOk());
}

TEST_F(DemoteTest, UnknownSessionsAreRefused) {
  grpc::ClientContext context;
  v1::DemoteSessionRequest request;
  request.set_session_id(999);
  auto reader = client_.migration->DemoteSession(&context, request);
  EXPECT_THAT(reader->Finish(), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_SESSION", "session_id"));
}

TEST_F(DemoteTest, EventsAndMetricsSayWhatMoved) {
  Demote();
  const std::vector<v1::Event> events = client_.Events(1);
  EXPECT_EQ(events[0].type(), v1::Event::SESSION_DEMOTED);
  EXPECT_THAT(events[0].message(), HasSubstr("2 segments: hbm to host 10485760 bytes in "));
  ASSERT_EQ(events[0].bytes_size(), 1);
  EXPECT_EQ(events[0].bytes(0).tier(), v1::TIER_HOST);
  const std::string metrics = daemon_->RenderMetrics();
  EXPECT_THAT(metrics, HasSubstr("dak_migrations_total{kind=\"demote\",result=\"done\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("dak_migration_bytes_total{from=\"hbm\",to=\"host\"} 10485760"));
  EXPECT_THAT(metrics, HasSubstr("dak_link_migration_bytes_per_second{link=\"0\"} 0"));
}

}  // namespace
}  // namespace dak::daemon

// NodeService's unary calls, health and reflection.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "allocator/ledger.h"
#include "daemon/rpc/health_service.h"
#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;
using Stub = v1::NodeService::Stub;

class NodeTest : public testing::Test {
 protected:
  grpc::Status SetQuota(uint64_t session_id, v1::Tier tier, uint64_t limit, uint64_t revision,
                        v1::SetQuotaResponse* response) {
    v1::SetQuotaRequest request;
    request.set_session_id(session_id);
    request.set_tier(tier);
    request.set_limit_bytes(limit);
    request.set_expected_revision(revision);
    return Call(*stubs_.node, &Stub::SetQuota, request, response);
  }
  TestDaemon daemon_;
  Stubs stubs_{daemon_.options().runtime_dir};
};

TEST_F(NodeTest, GetNodeDescribesTheDaemonAndTheDevice) {
  v1::GetNodeResponse node;
  ASSERT_THAT(Call(*stubs_.node, &Stub::GetNode, v1::GetNodeRequest(), &node), IsOk());
  EXPECT_EQ(node.daemon_version(), Version());
  EXPECT_EQ(node.api_version(), 1u);
  EXPECT_EQ(node.pid(), ::getpid());
  EXPECT_GT(node.uptime_ns(), 0u);
  EXPECT_EQ(node.metrics_address(), "");
  EXPECT_EQ(node.device().kind(), "emulated");
  EXPECT_EQ(node.device().link_count(), 1u);
  EXPECT_GT(node.device().emulated_link().bandwidth_bytes_per_s(), 0u);
}

TEST_F(NodeTest, EveryByteOfAPoolIsFreeASessionsOrPublished) {
  TestSession session(daemon_.options().runtime_dir);
  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(session.Allocate("a", {TestSession::Spec("w", 1024, 1000, 0.5)}, &allocated), IsOk());
  ASSERT_THAT(session.Allocate("b", {TestSession::Spec("w", 64, 64)}, &allocated), IsOk());
  ASSERT_THAT(session.Publish("b", "p", "f"), IsOk());
  v1::ListPoolsResponse pools;
  ASSERT_THAT(Call(*stubs_.node, &Stub::ListPools, v1::ListPoolsRequest(), &pools), IsOk());
  ASSERT_EQ(pools.pools_size(), 2);
  const v1::PoolInfo& hbm = pools.pools(0);
  EXPECT_EQ(hbm.tier(), v1::TIER_HBM);
  EXPECT_EQ(hbm.capacity_bytes(), 64 * kMiB);
  EXPECT_EQ(hbm.session_bytes(), 2 * kMiB);
  EXPECT_EQ(hbm.published_bytes(), 2 * kMiB);
  EXPECT_EQ(hbm.free_bytes(), 60 * kMiB);
  EXPECT_EQ(hbm.segment_count(), 2u);
  EXPECT_EQ(hbm.granule_bytes(), 2 * kMiB);
  EXPECT_EQ(hbm.numa_node(), -1);
  // 512 rows of 2000 bytes are exactly 250 blocks; the published tensor takes two.
  EXPECT_EQ(hbm.unplaced_bytes(), 4 * kMiB - 250 * 4096 - 2 * 4096);
  EXPECT_EQ(hbm.largest_unplaced_bytes(), 2 * kMiB - 2 * 4096);
  EXPECT_EQ(pools.pools(1).session_bytes(), 2 * kMiB);
}

TEST_F(NodeTest, QuotaChangesLiveAndKeepsWhatIsHeld) {
  TestSession session(daemon_.options().runtime_dir);
  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(session.Allocate("g", {TestSession::Spec("w", 2048, 1024)}, &allocated), IsOk());
  v1::SetQuotaResponse set;
  ASSERT_THAT(SetQuota(session.id(), v1::TIER_HBM, 2 * kMiB, 1, &set), IsOk());
  EXPECT_EQ(set.quota().revision(), 2u);
  EXPECT_EQ(set.quota().used_bytes(), 4 * kMiB);
  EXPECT_EQ(set.quota().overage_bytes(), 2 * kMiB);
  EXPECT_THAT(session.Allocate("h", {TestSession::Spec("w", 1, 8)}, &allocated),
              FailsWith(StatusCode::RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "tensors"));
  const grpc::Status stale = SetQuota(session.id(), v1::TIER_HBM, 0, 1, &set);
  EXPECT_EQ(stale.error_code(), StatusCode::ABORTED);
  EXPECT_EQ(DetailIn(stale).field(), "expected_revision");
  ASSERT_THAT(SetQuota(session.id(), v1::TIER_HBM, kNoLimit, 0, &set), IsOk());
  EXPECT_THAT(session.Allocate("h", {TestSession::Spec("w", 1, 8)}, &allocated), IsOk());

  v1::GetQuotasRequest request;
  v1::GetQuotasResponse quotas;
  request.set_session_id(session.id());
  ASSERT_THAT(Call(*stubs_.node, &Stub::GetQuotas, request, &quotas), IsOk());
  ASSERT_EQ(quotas.quotas_size(), 2);
  EXPECT_EQ(quotas.quotas(0).revision(), 3u);
  EXPECT_EQ(quotas.quotas(0).used_bytes(), 6 * kMiB);
  TestSession other(daemon_.options().runtime_dir, "other");
  request.set_session_id(0);
  ASSERT_THAT(Call(*stubs_.node, &Stub::GetQuotas, request, &quotas), IsOk());
  EXPECT_EQ(quotas.quotas_size(), 4);
}

TEST_F(NodeTest, QuotaCallsNameWhatTheyRefuse) {
  TestSession session(daemon_.options().runtime_dir);
  v1::SetQuotaResponse set;
  EXPECT_THAT(SetQuota(999, v1::TIER_HBM, 1, 0, &set),
              FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_SESSION", "session_id"));
  EXPECT_THAT(SetQuota(session.id(), v1::TIER_UNSPECIFIED, 1, 0, &set),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "tier"));
  EXPECT_THAT(SetQuota(session.id(), v1::TIER_CXL, 1, 0, &set),
              FailsWith(StatusCode::FAILED_PRECONDITION, "TIER_ABSENT", "tier"));
  v1::GetQuotasRequest request;
  v1::GetQuotasResponse quotas;
  request.set_session_id(999);
  EXPECT_THAT(Call(*stubs_.node, &Stub::GetQuotas, request, &quotas),
              FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_SESSION", "session_id"));
}

TEST_F(NodeTest, DefaultQuotaHoldsForSessionsThatAskForNone) {
  TestDaemon daemon([](DaemonOptions* options) { options->default_quota_bytes[0] = 2 * kMiB; });
  TestSession session(daemon.options().runtime_dir);
  EXPECT_EQ(session.opened.quotas(0).bytes(), 2 * kMiB);
  v1::AllocateTensorsResponse allocated;
  EXPECT_THAT(session.Allocate("g", {TestSession::Spec("w", 2048, 1024)}, &allocated),
              FailsWith(StatusCode::RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "tensors"));
  TestSession greedy(daemon.options().runtime_dir, "greedy", {{v1::TIER_HBM, 8 * kMiB}});
  EXPECT_THAT(greedy.Allocate("g", {TestSession::Spec("w", 2048, 1024)}, &allocated), IsOk());
}

TEST_F(NodeTest, CongestionShowsEverySessionsWindow) {
  TestSession a(daemon_.options().runtime_dir, "a"), b(daemon_.options().runtime_dir, "b");
  v1::GetCongestionResponse congestion;
  ASSERT_THAT(Call(*stubs_.node, &Stub::GetCongestion, v1::GetCongestionRequest(), &congestion), IsOk());
  ASSERT_EQ(congestion.links_size(), 1);
  EXPECT_GT(congestion.links(0).target_bytes(), 0u);
  EXPECT_GT(congestion.links(0).bandwidth_bytes_per_s(), 0u);
  ASSERT_EQ(congestion.links(0).sessions_size(), 2);
  EXPECT_EQ(congestion.links(0).sessions(0).name(), "a");
  EXPECT_EQ(congestion.links(0).sessions(1).weight(), 100u);
  EXPECT_GT(congestion.links(0).sessions(0).window_bytes(), 0u);
}

TEST_F(NodeTest, MetricsShowPoolsSessionsAndCalls) {
  TestSession session(daemon_.options().runtime_dir, "engine-7");
  v1::AllocateTensorsResponse allocated;
  ASSERT_THAT(session.Allocate("g", {TestSession::Spec("w", 64, 64)}, &allocated), IsOk());
  EXPECT_FALSE(session.Allocate("g", {TestSession::Spec("big", 1 << 20, 1 << 10)}, &allocated).ok());
  const std::string text = daemon_->RenderMetrics();
  EXPECT_THAT(text, testing::HasSubstr("engine-7"));
  EXPECT_THAT(text, testing::HasSubstr("2097152"));
  EXPECT_THAT(text, testing::HasSubstr("TensorService/AllocateTensors"));
  EXPECT_THAT(text, testing::HasSubstr("RESOURCE_EXHAUSTED"));
  EXPECT_THAT(text, testing::HasSubstr("POOL_EXHAUSTED"));
  ASSERT_THAT(session.Close(), IsOk());
  EXPECT_THAT(daemon_->RenderMetrics(), testing::Not(testing::HasSubstr("engine-7")));
}

// One call of a method for which no stub is linked: its response's bytes.
std::string RawCall(grpc::Channel& channel, const std::string& method, const std::string& request) {
  grpc::GenericStub stub(std::shared_ptr<grpc::ChannelInterface>(&channel, [](grpc::ChannelInterface*) {}));
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  grpc::Slice slice(request);
  auto stream = stub.PrepareCall(&context, method, &queue);
  void* tag = nullptr;
  bool ok = false;
  stream->StartCall(nullptr);
  queue.Next(&tag, &ok);
  stream->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  queue.Next(&tag, &ok);
  grpc::ByteBuffer response;
  stream->Read(&response, nullptr);
  queue.Next(&tag, &ok);
  grpc::Status status;
  stream->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  EXPECT_THAT(status, IsOk());
  std::string bytes;
  std::vector<grpc::Slice> slices;
  if (response.Dump(&slices).ok()) {
    for (const grpc::Slice& part : slices) bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  return bytes;
}

TEST_F(NodeTest, HealthAndReflectionAnswer) {
  // HealthCheckResponse { status: SERVING }
  EXPECT_EQ(RawCall(*stubs_.channel, "/grpc.health.v1.Health/Check", ""), std::string("\x08\x01"));
  // ServerReflectionRequest { list_services: "" }
  const std::string services = RawCall(
      *stubs_.channel, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", std::string("\x3a\x00", 2));
  for (const char* name : {"dak.v1.SessionService", "dak.v1.TensorService", "dak.v1.NodeService", "dak.v1.PlanService",
                           "grpc.health.v1.Health"}) {
    EXPECT_THAT(services, testing::HasSubstr(name));
  }
}

class HealthTest : public NodeTest {
 protected:
  using Request = grpc::health::v1::HealthCheckRequest;
  using Response = grpc::health::v1::HealthCheckResponse;
  struct Watch {
    std::unique_ptr<grpc::ClientContext> context = std::make_unique<grpc::ClientContext>();
    std::unique_ptr<grpc::ClientReader<Response>> reader;
    Response::ServingStatus Next() {
      Response response;
      return reader->Read(&response) ? response.status() : Response::UNKNOWN;
    }
  };
  Watch Begin(const std::string& service = "") {
    Request request;
    request.set_service(service);
    Watch watch;
    watch.context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    watch.reader = health_->Watch(watch.context.get(), request);
    return watch;
  }
  std::unique_ptr<grpc::health::v1::Health::Stub> health_ = grpc::health::v1::Health::NewStub(stubs_.channel);
};

TEST_F(HealthTest, AnotherServiceIsUnknown) {
  Request request;
  request.set_service("dak.v1.NodeService");
  Response response;
  EXPECT_THAT(Call(*health_, &grpc::health::v1::Health::Stub::Check, request, &response),
              FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_SERVICE", "service"));
  Watch watch = Begin("dak.v1.NodeService");
  EXPECT_EQ(watch.Next(), Response::SERVICE_UNKNOWN);
}

TEST_F(HealthTest, WatcherIsToldOfTheEnd) {
  Watch watch = Begin();
  EXPECT_EQ(watch.Next(), Response::SERVING);
  daemon_.Stop();
  EXPECT_EQ(watch.Next(), Response::NOT_SERVING);
  EXPECT_EQ(watch.Next(), Response::UNKNOWN);
  EXPECT_EQ(watch.reader->Finish().error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(HealthTest, WatchersAreBoundedAndOneThatLeavesMakesRoom) {
  std::vector<Watch> watches;
  for (uint64_t i = 0; i < kMaxHealthWatchers; ++i) {
    watches.push_back(Begin());
    ASSERT_EQ(watches.back().Next(), Response::SERVING);
  }
  Watch refused = Begin();
  EXPECT_EQ(refused.Next(), Response::UNKNOWN);
  EXPECT_THAT(refused.reader->Finish(), FailsWith(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", ""));
  watches.pop_back();
  EXPECT_TRUE(WaitUntil([&] { return Begin().Next() == Response::SERVING; }));
}

}  // namespace
}  // namespace dak::daemon

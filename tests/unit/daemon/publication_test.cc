// Publish, attach, detach, withdraw, and who may die in between.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;

class PublicationTest : public testing::Test {
 protected:
  // A session whose group "weights" holds one split tensor with a known first word, published as "model".
  void PublishModel(TestSession& session) {
    v1::AllocateTensorsResponse response;
    ASSERT_THAT(session.Allocate("weights", {TestSession::Spec("w", 128, 64, 0.5)}, &response), IsOk());
    tensor_id_ = response.tensors(0).tensor_id();
    ReceivedReply fetched = session.connection.Fetch({response.segments(0).ticket()});
    ASSERT_EQ(fetched.fds.size(), 1u);
    void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fetched.fds[0].get(), 0);
    ASSERT_NE(memory, MAP_FAILED);
    std::memcpy(memory, "weights!", 8);
    ::munmap(memory, 4096);
    ASSERT_THAT(session.Publish("weights", "model", "v1"), IsOk());
  }
  std::vector<v1::PublicationInfo> List() {
    v1::ListPublicationsResponse response;
    EXPECT_THAT(
        Call(*stubs_.tensor, &v1::TensorService::Stub::ListPublications, v1::ListPublicationsRequest(), &response),
        IsOk());
    return {response.publications().begin(), response.publications().end()};
  }
  TierArray Published() {
    TierArray bytes{};
    for (const Ledger::PoolUsage& pool : daemon_->ledger().Pools()) bytes[TierIndex(pool.tier)] = pool.published_bytes;
    return bytes;
  }

  static constexpr TierArray kModelBytes = {2 * kMiB, 2 * kMiB, 0};
  TestDaemon daemon_;
  Stubs stubs_{daemon_.options().runtime_dir};
  uint64_t tensor_id_ = 0;
};

TEST_F(PublicationTest, BytesMoveFromTheQuotaToPublished) {
  TestSession session(daemon_.options().runtime_dir);
  PublishModel(session);
  EXPECT_EQ(Published(), kModelBytes);
  EXPECT_EQ(daemon_->ledger().GetQuota(session.id(), Tier::kHbm)->used_bytes, 0u);
  const auto list = List();
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].name(), "model");
  EXPECT_EQ(list[0].fingerprint(), "v1");
  EXPECT_EQ(list[0].tensor_count(), 1u);
  EXPECT_EQ(list[0].attached_sessions(), 1u);  // the publisher, which still maps it
  EXPECT_FALSE(list[0].withdrawn());
}

TEST_F(PublicationTest, OutlivesThePublisherAndAttachesReadOnlyWithTheSameBytes) {
  {
    TestSession publisher(daemon_.options().runtime_dir);
    PublishModel(publisher);
  }
  ASSERT_TRUE(WaitUntil([&] { return List()[0].attached_sessions() == 0; }));
  EXPECT_EQ(daemon_.DeviceUsage(), kModelBytes);
  TestSession reader(daemon_.options().runtime_dir, "reader");
  v1::AttachPublicationResponse attached;
  ASSERT_THAT(reader.Attach("model", "v1", &attached), IsOk());
  EXPECT_EQ(attached.fingerprint(), "v1");
  ASSERT_EQ(attached.tensors_size(), 1);
  EXPECT_EQ(attached.tensors(0).session_id(), 0u);
  EXPECT_EQ(attached.tensors(0).group(), "model");
  EXPECT_EQ(attached.tensors(0).tensor_id(), tensor_id_);
  EXPECT_EQ(attached.tensors(0).parts(0).tensor_map().size(), 128u);
  ASSERT_EQ(attached.segments_size(), 2);
  EXPECT_TRUE(attached.segments(0).read_only());
  ReceivedReply fetched = reader.connection.Fetch({attached.segments(0).ticket(), attached.segments(1).ticket()});
  ASSERT_EQ(fetched.fds.size(), 2u);
  EXPECT_TRUE(fetched.reply.handles(0).read_only());
  const int fd = fetched.fds[0].get();
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  void* memory = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(memory, MAP_FAILED);
  EXPECT_EQ(std::memcmp(memory, "weights!", 8), 0);
  ::munmap(memory, 4096);
}

TEST_F(PublicationTest, FreedWhenWithdrawnAndTheLastHasDetached) {
  TestSession publisher(daemon_.options().runtime_dir), reader(daemon_.options().runtime_dir, "reader");
  PublishModel(publisher);
  ASSERT_THAT(reader.Attach("model", ""), IsOk());
  v1::WithdrawPublicationResponse withdrawn;
  ASSERT_THAT(publisher.Withdraw("model", &withdrawn), IsOk());
  EXPECT_EQ(withdrawn.still_attached(), 2u);
  ASSERT_EQ(List().size(), 1u);
  EXPECT_TRUE(List()[0].withdrawn());
  EXPECT_THAT(reader.Withdraw("model"), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_PUBLICATION", "publication"));
  TestSession late(daemon_.options().runtime_dir, "late");
  EXPECT_THAT(late.Attach("model", "v1"), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_PUBLICATION", "publication"));
  ASSERT_THAT(publisher.Detach("model"), IsOk());
  EXPECT_EQ(Published(), kModelBytes);
  reader.connection.Close();  // dies instead of detaching
  EXPECT_TRUE(WaitUntil([&] { return Published() == TierArray{} && daemon_.DeviceUsage() == TierArray{}; }));
  EXPECT_TRUE(List().empty());
}

TEST_F(PublicationTest, WithdrawnWithNobodyAttachedIsFreedAtOnceAndTheNameIsFree) {
  TestSession publisher(daemon_.options().runtime_dir);
  PublishModel(publisher);
  ASSERT_THAT(publisher.Detach("model"), IsOk());
  EXPECT_EQ(Published(), kModelBytes);
  v1::WithdrawPublicationResponse withdrawn;
  ASSERT_THAT(publisher.Withdraw("model", &withdrawn), IsOk());
  EXPECT_EQ(withdrawn.still_attached(), 0u);
  EXPECT_EQ(daemon_.DeviceUsage(), TierArray{});
  PublishModel(publisher);
  EXPECT_EQ(List().size(), 1u);
}

TEST_F(PublicationTest, NameIsFreeWhileTheWithdrawnOneIsStillAttached) {
  TestSession first(daemon_.options().runtime_dir, "first"), second(daemon_.options().runtime_dir, "second");
  PublishModel(first);
  ASSERT_THAT(first.Withdraw("model"), IsOk());
  PublishModel(second);
  ASSERT_EQ(List().size(), 2u);
  EXPECT_FALSE(List()[0].withdrawn());
  EXPECT_TRUE(List()[1].withdrawn());
  // The first still has the old one under that name.
  EXPECT_THAT(first.Attach("model", ""), FailsWith(StatusCode::ALREADY_EXISTS, "ALREADY_ATTACHED", "publication"));
  ASSERT_THAT(first.Detach("model"), IsOk());
  ASSERT_THAT(first.Attach("model", ""), IsOk());
  EXPECT_EQ(List().size(), 1u);
}

TEST_F(PublicationTest, PublishIsRefusedWithTheFieldNamed) {
  TestSession session(daemon_.options().runtime_dir);
  PublishModel(session);
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session.Allocate("more", {TestSession::Spec("w", 1, 8)}, &response), IsOk());
  EXPECT_THAT(session.Publish("more", "model", "v2"),
              FailsWith(StatusCode::ALREADY_EXISTS, "ALREADY_ATTACHED", "publication"));
  TestSession other(daemon_.options().runtime_dir, "other");
  ASSERT_THAT(other.Allocate("g", {TestSession::Spec("w", 1, 8)}, &response), IsOk());
  EXPECT_THAT(other.Publish("g", "model", "v2"), FailsWith(StatusCode::ALREADY_EXISTS, "NAME_TAKEN", "publication"));
  EXPECT_THAT(other.Publish("none", "p", "v"), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_GROUP", "group"));
  EXPECT_THAT(session.Publish("weights", "p", "v"),
              FailsWith(StatusCode::FAILED_PRECONDITION, "GROUP_PUBLISHED", "group"));
  EXPECT_THAT(other.Publish("g g", "p", "v"), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "group"));
  EXPECT_THAT(other.Publish("g", "", "v"), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "publication"));
  EXPECT_THAT(other.Publish("g", "p", ""), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "fingerprint"));
  EXPECT_THAT(other.Publish("g", "p", std::string(129, 'f')),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "fingerprint"));
  EXPECT_EQ(Published(), kModelBytes);
}

TEST_F(PublicationTest, SealedGroupTakesNoMoreAndItsTensorsCannotBeFreed) {
  TestSession session(daemon_.options().runtime_dir);
  PublishModel(session);
  v1::AllocateTensorsResponse response;
  EXPECT_THAT(session.Allocate("weights", {TestSession::Spec("v", 1, 8)}, &response),
              FailsWith(StatusCode::FAILED_PRECONDITION, "GROUP_PUBLISHED", "group"));
  EXPECT_THAT(session.Free({tensor_id_}),
              FailsWith(StatusCode::FAILED_PRECONDITION, "GROUP_PUBLISHED", "tensor_ids[0]"));
  ASSERT_THAT(session.Detach("model"), IsOk());
  EXPECT_THAT(session.Free({tensor_id_}), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_TENSOR", "tensor_ids[0]"));
  EXPECT_THAT(session.Allocate("weights", {TestSession::Spec("v", 1, 8)}, &response), IsOk());
}

TEST_F(PublicationTest, WritableTicketsDieWithPublishing) {
  TestSession session(daemon_.options().runtime_dir);
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session.Allocate("weights", {TestSession::Spec("w", 128, 64)}, &response), IsOk());
  ASSERT_THAT(session.Publish("weights", "model", "v1"), IsOk());
  EXPECT_EQ(session.connection.Fetch({response.segments(0).ticket()}).reply.detail().reason(), "BAD_TICKET");
}

TEST_F(PublicationTest, AttachAndDetachAreRefusedWithTheFieldNamed) {
  TestSession publisher(daemon_.options().runtime_dir), reader(daemon_.options().runtime_dir, "reader");
  PublishModel(publisher);
  EXPECT_THAT(reader.Attach("model", "v2"),
              FailsWith(StatusCode::FAILED_PRECONDITION, "FINGERPRINT_MISMATCH", "fingerprint"));
  EXPECT_THAT(reader.Attach("other", ""), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_PUBLICATION", "publication"));
  EXPECT_THAT(reader.Attach("a b", ""), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "publication"));
  EXPECT_THAT(reader.Attach("model", "\n"), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "fingerprint"));
  EXPECT_THAT(reader.Detach("model"), FailsWith(StatusCode::NOT_FOUND, "NOT_ATTACHED", "publication"));
  EXPECT_THAT(reader.Detach(""), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "publication"));
  EXPECT_THAT(reader.Withdraw(""), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "publication"));
  EXPECT_EQ(List()[0].attached_sessions(), 1u);
  ASSERT_THAT(reader.Attach("model", "v1"), IsOk());
  EXPECT_THAT(reader.Attach("model", "v1"), FailsWith(StatusCode::ALREADY_EXISTS, "ALREADY_ATTACHED", "publication"));
}

TEST(PublicationLimitsTest, PublicationsAndTheirTensorsAreBounded) {
  TestDaemon daemon([](DaemonOptions* options) {
    options->limits.max_publications = 1;
    options->limits.max_tensors_per_publication = 1;
    options->limits.max_tickets_per_session = 4;
  });
  TestSession session(daemon.options().runtime_dir), reader(daemon.options().runtime_dir, "reader");
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session.Allocate("two", {TestSession::Spec("a", 1, 8), TestSession::Spec("b", 1, 8)}, &response), IsOk());
  EXPECT_THAT(session.Publish("two", "p", "f"),
              FailsWith(StatusCode::FAILED_PRECONDITION, "TOO_MANY_TENSORS", "group"));
  ASSERT_EQ(session.connection.Fetch({response.segments(0).ticket()}).reply.code(), 0);
  ASSERT_THAT(session.Allocate("one", {TestSession::Spec("a", 128, 8, 0.5)}, &response), IsOk());
  ASSERT_THAT(session.Publish("one", "p", "f"), IsOk());
  ASSERT_THAT(session.Allocate("other", {TestSession::Spec("a", 1, 8)}, &response), IsOk());
  EXPECT_THAT(session.Publish("other", "q", "f"),
              FailsWith(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_PUBLICATIONS", ""));
  // The control pages' ticket and two segments' make three; the publication's two don't fit beside them.
  ASSERT_THAT(reader.Allocate("g", {TestSession::Spec("a", 128, 8, 0.5)}, &response), IsOk());
  EXPECT_THAT(reader.Attach("p", ""), FailsWith(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_TICKETS", ""));
  EXPECT_THAT(reader.Detach("p"), FailsWith(StatusCode::NOT_FOUND, "NOT_ATTACHED", "publication"));
  ASSERT_EQ(reader.connection.Fetch({response.segments(0).ticket()}).reply.code(), 0);
  EXPECT_THAT(reader.Attach("p", ""), IsOk());
}

}  // namespace
}  // namespace dak::daemon

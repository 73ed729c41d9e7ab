// Moves and suspensions whose answers are lost or refused, and memory that can't be mapped.
#include "tests/unit/client/client_fixture.h"

namespace dak::testing {
namespace {

using ::testing::HasSubstr;

class MovesTest : public ClientTest {
 protected:
  MovesTest() {
    auto tensor = session_.Allocate(Spec("w", 128, 0));
    EXPECT_TRUE(tensor.ok()) << tensor.status().ToString();
    w_ = *tensor;
    EXPECT_TRUE(w_.Upload(std::span(bytes_)).ok());
  }
  dak::Result<dak_move_info> Prepare(double ratio = 0.5) {
    dak::TensorMove move;
    move.tensor = w_;
    move.offload_ratio = ratio;
    move.written = true;  // this daemon copies nothing: all of it in the commit
    return session_.PrepareMove(std::span(&move, 1));
  }
  void Fault(const std::string& rpc, grpc::StatusCode code, bool after) {
    daemon_.Set([&](auto* faults) { (after ? faults->after : faults->before)[rpc] = Answer(code); });
  }
  void ClearFaults() {
    daemon_.Set([](auto* faults) {
      faults->before.clear();
      faults->after.clear();
      faults->bad_segment_in = -1;
    });
  }
  void ExpectOldPlace() {
    EXPECT_EQ(w_.GetInfo()->part_count, 1u);
    ExpectBytes();
  }
  void ExpectNewPlace() {
    EXPECT_EQ(w_.GetInfo()->part_count, 2u);
    ExpectBytes();
  }
  void ExpectBytes() {
    std::vector<uint8_t> found(bytes_.size());
    ASSERT_TRUE(w_.Download(std::span(found)).ok());
    EXPECT_EQ(found, bytes_);
  }

  const std::vector<uint8_t> bytes_ = Bytes(128 * 128, 5);
  dak::Session session_ = Open();
  dak::Tensor w_;
};

TEST_F(MovesTest, AllIsCopiedInTheCommitWhereNoRowIsStable) {
  ASSERT_TRUE(Prepare().ok());
  EXPECT_EQ(daemon_.segment_count(), 3u);
  ExpectOldPlace();
  ASSERT_TRUE(session_.CommitMove().ok());
  ExpectNewPlace();
  EXPECT_EQ(daemon_.segment_count(), 2u);
}

TEST_F(MovesTest, AMoveWhoseAnswerIsLostIsAbortedByTheNextCall) {
  Fault("PrepareMove", grpc::StatusCode::DEADLINE_EXCEEDED, /*after=*/true);
  EXPECT_EQ(Prepare().status().code(), DAK_DEADLINE_EXCEEDED);
  EXPECT_EQ(daemon_.segment_count(), 3u);
  ClearFaults();
  ASSERT_TRUE(Prepare().ok());
  EXPECT_EQ(daemon_.calls("AbortMove"), 1);
  ASSERT_TRUE(session_.CommitMove().ok());
  ExpectNewPlace();
  EXPECT_EQ(daemon_.segment_count(), 2u);
}

TEST_F(MovesTest, ARefusedMoveChangesNothing) {
  Fault("PrepareMove", grpc::StatusCode::RESOURCE_EXHAUSTED, /*after=*/false);
  EXPECT_EQ(Prepare().status().code(), DAK_RESOURCE_EXHAUSTED);
  ClearFaults();
  EXPECT_EQ(session_.CommitMove().reason(), "NO_MOVE");
  EXPECT_EQ(daemon_.calls("AbortMove"), 0);
  ExpectOldPlace();
}

TEST_F(MovesTest, ANewPlaceThatCannotBeMappedIsGivenBack) {
  daemon_.Set([](auto* faults) { faults->bad_segment_in = 1; });
  const dak::Status failed = Prepare().status();
  EXPECT_THAT(failed.message(), HasSubstr("couldn't be mapped and were given back"));
  EXPECT_EQ(daemon_.segment_count(), 1u);
  ExpectOldPlace();
  ClearFaults();
  ASSERT_TRUE(Prepare().ok());
  ASSERT_TRUE(session_.CommitMove().ok());
  ExpectNewPlace();
}

TEST_F(MovesTest, WhereGivingBackFailsTooTheNextCallTriesAgain) {
  daemon_.Set([](auto* faults) { faults->bad_segment_in = 0; });
  Fault("AbortMove", grpc::StatusCode::UNAVAILABLE, /*after=*/false);
  EXPECT_FALSE(Prepare().ok());
  EXPECT_EQ(daemon_.segment_count(), 3u);
  ClearFaults();
  ASSERT_TRUE(session_.Allocate(Spec("more")).ok());
  EXPECT_EQ(daemon_.calls("AbortMove"), 2);
  ExpectOldPlace();
}

TEST_F(MovesTest, ACommitWhoseAnswerIsLostHasMovedAndIsRepeated) {
  ASSERT_TRUE(Prepare().ok());
  Fault("CommitMove", grpc::StatusCode::DEADLINE_EXCEEDED, /*after=*/false);
  const dak::Status lost = session_.CommitMove();
  EXPECT_EQ(lost.code(), DAK_DEADLINE_EXCEEDED);
  EXPECT_THAT(lost.message(), HasSubstr("the tensors have moved"));
  ExpectNewPlace();
  EXPECT_EQ(daemon_.segment_count(), 3u);
  // The next call that changes something settles it first, or fails itself.
  EXPECT_EQ(session_.Allocate(Spec("more")).status().code(), DAK_DEADLINE_EXCEEDED);
  ClearFaults();
  ASSERT_TRUE(session_.Allocate(Spec("more")).ok());
  EXPECT_EQ(daemon_.calls("CommitMove"), 3);
  ExpectNewPlace();
  ASSERT_TRUE(session_.Free(w_).ok());
}

TEST_F(MovesTest, AnAbortThatFailsIsRepeated) {
  ASSERT_TRUE(Prepare().ok());
  Fault("AbortMove", grpc::StatusCode::UNAVAILABLE, /*after=*/false);
  EXPECT_THAT(session_.AbortMove().message(), HasSubstr("the next call tries again"));
  ExpectOldPlace();
  ClearFaults();
  ASSERT_TRUE(Prepare().ok());
  EXPECT_EQ(daemon_.calls("AbortMove"), 2);
  ASSERT_TRUE(session_.CommitMove().ok());
  ExpectNewPlace();
}

TEST_F(MovesTest, ASessionThatCouldNotBeSuspendedGoesOn) {
  Fault("SuspendSession", grpc::StatusCode::UNAVAILABLE, /*after=*/true);
  EXPECT_EQ(session_.Suspend().code(), DAK_UNAVAILABLE);
  EXPECT_EQ(*session_.GetResidence(), DAK_ACTIVE);
  ExpectOldPlace();
}

TEST_F(MovesTest, ASessionThatCouldNotBeResumedStaysSuspended) {
  ASSERT_TRUE(session_.Suspend().ok());
  Fault("ResumeSession", grpc::StatusCode::RESOURCE_EXHAUSTED, /*after=*/false);
  EXPECT_EQ(session_.Resume().code(), DAK_RESOURCE_EXHAUSTED);
  EXPECT_EQ(*session_.GetResidence(), DAK_SUSPENDED);
  std::vector<uint8_t> some(16);
  EXPECT_EQ(w_.Download(std::span(some)).reason(), "SUSPENDED");
  ClearFaults();
  ASSERT_TRUE(session_.Resume().ok());
  ExpectOldPlace();
}

TEST_F(MovesTest, ArgumentsAreCheckedBeforeTheDaemonIsAsked) {
  dak_error error{};
  dak_tensor_move move{};
  dak_move_info info{};
  EXPECT_EQ(dak_move_prepare(nullptr, &move, 1, nullptr, &error), DAK_INVALID_ARGUMENT);
  EXPECT_STREQ(error.field, "session");
  EXPECT_EQ(dak_move_prepare(session_.get(), &move, 0, nullptr, &error), DAK_INVALID_ARGUMENT);
  EXPECT_STREQ(error.field, "count");
  EXPECT_EQ(dak_move_prepare(session_.get(), &move, 1, nullptr, &error), DAK_INVALID_ARGUMENT);
  EXPECT_STREQ(error.field, "moves[0].struct_size");
  EXPECT_EQ(dak_move_prepare(session_.get(), &move, 1, &info, &error), DAK_INVALID_ARGUMENT);
  EXPECT_STREQ(error.field, "info.struct_size");
  EXPECT_EQ(dak_move_prepare_plan(session_.get(), nullptr, nullptr, &error), DAK_INVALID_ARGUMENT);
  EXPECT_STREQ(error.field, "info");
  EXPECT_EQ(dak_session_get_residence(session_.get(), nullptr, &error), DAK_INVALID_ARGUMENT);
  EXPECT_STREQ(error.field, "residence");
  for (auto* call : {dak_move_commit, dak_move_abort, dak_session_suspend, dak_session_resume}) {
    EXPECT_EQ(call(nullptr, &error), DAK_INVALID_ARGUMENT);
  }
  EXPECT_EQ(daemon_.calls("PrepareMove"), 0);
}

}  // namespace
}  // namespace dak::testing

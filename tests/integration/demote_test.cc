// Sessions that leave HBM while idle and come back, through libdak and a real daemon.
#include <sys/resource.h>

#include <fstream>

#include "dak/v1/migration.grpc.pb.h"
#include "tests/integration/harness/matrix.h"
#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

constexpr uint64_t kRows = 1024;
constexpr uint64_t kCols = 512;
constexpr uint64_t kBytes = kRows * kCols * 2;

class DemoteTest : public IntegrationTest {
 protected:
  grpc::Status Demote(const dak::Session& session) {
    grpc::ClientContext context;
    v1::DemoteSessionRequest request;
    request.set_session_id(session.GetInfo()->session_id);
    return Drain(*migrations_->DemoteSession(&context, request));
  }
  grpc::Status Promote(const dak::Session& session) {
    grpc::ClientContext context;
    v1::PromoteSessionRequest request;
    request.set_session_id(session.GetInfo()->session_id);
    return Drain(*migrations_->PromoteSession(&context, request));
  }
  static grpc::Status Drain(grpc::ClientReader<v1::MigrationProgress>& reader) {
    v1::MigrationProgress progress;
    while (reader.Read(&progress)) {
    }
    return reader.Finish();
  }
  static bool Upload(dak::Tensor tensor, const std::vector<uint8_t>& bytes) {
    return tensor.Upload(std::span(bytes)).ok();
  }
  dak::Tensor Filled(dak::Session& session, const std::string& name, double ratio, uint32_t seed) {
    auto tensor = session.Allocate(Matrix(name, kRows, kCols, ratio), name);
    EXPECT_TRUE(tensor.ok()) << tensor.status().ToString();
    EXPECT_TRUE(Upload(*tensor, Pattern(kBytes, seed)));
    return *tensor;
  }
  uint64_t HbmBytes() { return daemon_.Pools().at("hbm").session_bytes(); }

  std::unique_ptr<v1::MigrationService::Stub> migrations_ = v1::MigrationService::NewStub(daemon_.NewChannel());
};

TEST_F(DemoteTest, AddressesAndBytesStayWhileHbmIsGivenBack) {
  dak::Session session = Open();
  dak::Tensor a = Filled(session, "a", 0, 1);
  dak::Tensor b = Filled(session, "b", 0.5, 2);
  const uint64_t a_address = a.GetParts()->front().device_address;
  const uint64_t b_address = b.GetParts()->front().device_address;
  const auto* bytes = reinterpret_cast<const uint8_t*>(a_address);  // as a kernel reads it on this device
  EXPECT_EQ(HbmBytes(), 4 * kMiB);
  ASSERT_TRUE(session.Suspend().ok());
  EXPECT_EQ(*session.GetResidence(), DAK_SUSPENDED);
  const grpc::Status demoted = Demote(session);
  ASSERT_TRUE(demoted.ok()) << demoted.error_message();
  EXPECT_EQ(*session.GetResidence(), DAK_DEMOTED);
  EXPECT_EQ(HbmBytes(), 0u);
  EXPECT_EQ(daemon_.Pools().at("hbm").segment_count(), 0u);
  EXPECT_EQ(daemon_.Pools().at("host").session_bytes(), 6 * kMiB);
  EXPECT_EQ(a.GetParts()->front().device_address, a_address);
  EXPECT_EQ(a.GetParts()->front().tier, DAK_TIER_HOST);
  EXPECT_TRUE(std::equal(bytes, bytes + kBytes, Pattern(kBytes, 1).begin()));
  ASSERT_TRUE(session.Resume().ok());
  EXPECT_EQ(*session.GetResidence(), DAK_ACTIVE);
  EXPECT_EQ(HbmBytes(), 4 * kMiB);
  EXPECT_EQ(a.GetParts()->front().device_address, a_address);
  EXPECT_EQ(b.GetParts()->front().device_address, b_address);
  EXPECT_EQ(a.GetParts()->front().tier, DAK_TIER_HBM);
  EXPECT_TRUE(std::equal(bytes, bytes + kBytes, Pattern(kBytes, 1).begin()));
  EXPECT_TRUE(Contents(a) == Pattern(kBytes, 1));
  EXPECT_TRUE(Contents(b) == Pattern(kBytes, 2));
  EXPECT_TRUE(a.VerifyMap(0).ok());
  ASSERT_TRUE(session.Free(std::vector{a, b}).ok());
  ExpectPoolsEmpty();
}

TEST_F(DemoteTest, OperationsComputeTheSameBeforeAndAfter) {
  dak::Session session = Open();
  const auto weights = RandomMatrix(kRows, kCols, 1, false);
  const auto x = RandomMatrix(2, kCols, 2, false);
  auto w = session.Allocate(Matrix("w", kRows, kCols, 0.25));
  auto in = session.Allocate(Matrix("x", 2, kCols, 0));
  auto out = session.Allocate(Matrix("y", 2, kRows, 0));
  ASSERT_TRUE(w.ok() && in.ok() && out.ok());
  ASSERT_TRUE(w->Upload(std::span(weights)).ok());
  ASSERT_TRUE(in->Upload(std::span(x)).ok());
  const uint64_t x_address = in->GetParts()->front().device_address;
  const uint64_t y_address = out->GetParts()->front().device_address;
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(session.Gemm(*w, x_address, y_address, 2).ok());
    std::vector<uint16_t> y(2 * kRows);
    ASSERT_TRUE(out->Download(std::span(y)).ok());
    EXPECT_LT(WorstError(x, weights, y, 2, kRows, kCols, false), Tolerance(false)) << round;
    ASSERT_TRUE(session.Suspend().ok());
    const grpc::Status demoted = Demote(session);
    ASSERT_TRUE(demoted.ok()) << demoted.error_message();
    ASSERT_TRUE(session.Resume().ok());
  }
}

TEST_F(DemoteTest, WhileSuspendedNothingTouchesTheMemory) {
  dak::Session session = Open();
  dak::Tensor w = Filled(session, "w", 0, 1);
  ASSERT_TRUE(session.Suspend().ok());
  ASSERT_TRUE(session.Suspend().ok());  // once more is no error
  std::vector<uint8_t> bytes(16);
  EXPECT_EQ(w.Upload(std::span(bytes)).reason(), "SUSPENDED");
  EXPECT_EQ(w.Download(std::span(bytes)).reason(), "SUSPENDED");
  EXPECT_EQ(session.Gemm(w, 64, 128, 1).reason(), "SUSPENDED");
  EXPECT_EQ(session.Allocate(Matrix("v", 64, 64, 0)).status().reason(), "SUSPENDED");
  EXPECT_EQ(session.Free(w).reason(), "SUSPENDED");
  EXPECT_EQ(session.Publish("w", "p", "f").reason(), "SUSPENDED");
  dak::TensorMove move;
  move.tensor = w;
  EXPECT_EQ(session.PrepareMove(std::span(&move, 1)).status().reason(), "SUSPENDED");
  EXPECT_EQ(w.GetInfo()->part_count, 1u);  // asking is allowed
  ASSERT_TRUE(session.Resume().ok());
  ASSERT_TRUE(session.Resume().ok());
  EXPECT_TRUE(Contents(w) == Pattern(kBytes, 1));
}

TEST_F(DemoteTest, ABusySessionIsRefused) {
  dak::Session session = Open();
  Filled(session, "w", 0, 1);
  const grpc::Status busy = Demote(session);
  EXPECT_EQ(busy.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_NE(busy.error_message().find("is busy"), std::string::npos);
}

TEST_F(DemoteTest, ResumingWhereHbmIsTakenSaysByHowMuchAndMayBeRepeated) {
  dak::Session session = Open();
  dak::Tensor w = Filled(session, "w", 0, 1);
  ASSERT_TRUE(session.Suspend().ok());
  ASSERT_TRUE(Demote(session).ok());
  dak::Session other = Open("other");
  ASSERT_TRUE(other.Allocate(Matrix("x", 256 * 1024, 512, 0)).ok());  // all 256 MiB
  const dak::Status full = session.Resume();
  EXPECT_EQ(full.code(), DAK_RESOURCE_EXHAUSTED);
  EXPECT_EQ(full.reason(), "POOL_EXHAUSTED");
  EXPECT_EQ(full.shortfall_bytes(), 2 * kMiB);
  EXPECT_EQ(*session.GetResidence(), DAK_DEMOTED);
  std::vector<uint8_t> some(16);
  EXPECT_EQ(w.Download(std::span(some)).reason(), "SUSPENDED");
  other.Close();
  ASSERT_TRUE(session.Resume().ok());
  EXPECT_TRUE(Contents(w) == Pattern(kBytes, 1));
}

TEST_F(DemoteTest, AnOperatorBringsItBackWithoutTheProcessAsking) {
  dak::Session session = Open();
  dak::Tensor w = Filled(session, "w", 0, 1);
  ASSERT_TRUE(session.Suspend().ok());
  ASSERT_TRUE(Demote(session).ok());
  const grpc::Status promoted = Promote(session);
  ASSERT_TRUE(promoted.ok()) << promoted.error_message();
  EXPECT_EQ(*session.GetResidence(), DAK_SUSPENDED);
  EXPECT_EQ(HbmBytes(), 2 * kMiB);
  ASSERT_TRUE(session.Resume().ok());
  EXPECT_TRUE(Contents(w) == Pattern(kBytes, 1));
}

// The first segment fits into what this process may still map, the second doesn't: so the first goes back.
TEST_F(DemoteTest, AnExchangeThatFailsHalfWayLeavesEverySegmentInHbm) {
  constexpr uint64_t kLargeRows = 200 * 1024;  // 200 MiB
  dak::Session session = Open();
  auto a = session.Allocate(Matrix("a", kRows, kCols, 0), "g");
  auto b = session.Allocate(Matrix("b", kLargeRows, kCols, 0), "g");
  ASSERT_TRUE(a.ok() && b.ok());
  ASSERT_TRUE(Upload(*a, Pattern(kBytes, 1)));
  ASSERT_TRUE(Upload(*b, Pattern(kBytes, 2)));
  const uint64_t a_address = a->GetParts()->front().device_address;
  ASSERT_TRUE(session.Suspend().ok());
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  const rlimit tight = {.rlim_cur = pages * 4096 + 128 * kMiB, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  const grpc::Status failed = Demote(session);
  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_EQ(failed.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(failed.error_message().find("kept its memory: mmap failed"), std::string::npos) << failed.error_message();
  EXPECT_EQ(*session.GetResidence(), DAK_SUSPENDED);
  EXPECT_EQ(HbmBytes(), 202 * kMiB);
  EXPECT_EQ(daemon_.Pools().at("host").session_bytes(), 0u);
  ASSERT_TRUE(session.Resume().ok());
  EXPECT_EQ(a->GetParts()->front().device_address, a_address);
  EXPECT_EQ(a->GetParts()->front().tier, DAK_TIER_HBM);
  EXPECT_TRUE(Contents(*a) == Pattern(kBytes, 1));
  std::vector<uint8_t> found(kBytes);
  ASSERT_TRUE(b->Download(std::span(found)).ok());
  EXPECT_TRUE(found == Pattern(kBytes, 2));
}

TEST_F(DemoteTest, ADaemonThatDiesLeavesADemotedSessionReadable) {
  dak::Session session = Open();
  dak::Tensor w = Filled(session, "w", 0, 1);
  ASSERT_TRUE(session.Suspend().ok());
  ASSERT_TRUE(Demote(session).ok());
  daemon_.Kill();
  EXPECT_TRUE(daemon_.WaitUntil([&] { return session.GetInfo()->connected == 0; }));
  ASSERT_TRUE(session.Resume().ok());
  EXPECT_TRUE(Contents(w) == Pattern(kBytes, 1));
  alignas(64) static uint16_t x[kCols];
  alignas(64) static uint16_t y[kRows];
  EXPECT_EQ(session.Gemm(w, reinterpret_cast<uint64_t>(x), reinterpret_cast<uint64_t>(y), 1).reason(), "DEMOTED");
}

TEST_F(DemoteTest, AProcessThatEndsWhileDemotedGivesEverythingBack) {
  dak::Session session = Open();
  Filled(session, "w", 0, 1);
  ASSERT_TRUE(session.Suspend().ok());
  ASSERT_TRUE(Demote(session).ok());
  session.Close();
  ExpectPoolsEmpty();
}

}  // namespace
}  // namespace dak::testing

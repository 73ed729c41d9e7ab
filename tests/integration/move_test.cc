// Tensors that move between tiers under a running session, through libdak and a real daemon.
#include <atomic>
#include <thread>

#include "tests/integration/harness/matrix.h"
#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kRows = 1024;
constexpr uint64_t kCols = 512;
constexpr uint64_t kBytes = kRows * kCols * 2;

class MoveTest : public IntegrationTest {
 protected:
  dak::Tensor Filled(dak::Session& session, const std::string& name, double ratio) {
    auto tensor = session.Allocate(Matrix(name, kRows, kCols, ratio));
    EXPECT_TRUE(tensor.ok()) << tensor.status().ToString();
    EXPECT_TRUE(tensor->Upload(std::span(pattern_)).ok());
    return *tensor;
  }
  static dak::TensorMove Move(dak::Tensor tensor, double ratio) {
    dak::TensorMove move;
    move.tensor = tensor;
    move.offload_ratio = ratio;
    return move;
  }
  static dak::Result<dak_move_info> Prepare(dak::Session& session, const dak::TensorMove& move) {
    return session.PrepareMove(std::span(&move, 1));
  }
  static uint64_t RemoteRows(dak::Tensor tensor) {
    uint64_t rows = 0;
    for (const dak_tensor_part& part : *tensor.GetParts()) rows += part.tier == DAK_TIER_HBM ? 0 : part.rows;
    return rows;
  }
  std::vector<uint8_t> pattern_ = Pattern(kBytes, 3);
};

TEST_F(MoveTest, EverySplitKeepsTheBytesAndDescriptorsAndFreesTheOldPlace) {
  dak::Session session = Open();
  dak::Tensor w = Filled(session, "w", 0);
  for (const double ratio : {0.25, 1.0, 0.5, 0.75, 0.0, 0.25, 0.25}) {
    const auto prepared = Prepare(session, Move(w, ratio));
    ASSERT_TRUE(prepared.ok()) << prepared.status().ToString();
    EXPECT_TRUE(Contents(w) == pattern_);  // by the old parts
    ASSERT_TRUE(session.CommitMove().ok());
    EXPECT_EQ(RemoteRows(w), static_cast<uint64_t>(ratio * kRows));
    EXPECT_TRUE(Contents(w) == pattern_) << ratio;
    for (uint32_t part = 0; part < w.GetInfo()->part_count; ++part) EXPECT_TRUE(w.VerifyMap(part).ok()) << ratio;
    // Exactly the new place is held.
    const auto pools = daemon_.Pools();
    const uint64_t host = static_cast<uint64_t>(ratio * kBytes);
    const auto granules = [](uint64_t bytes) { return (bytes + 2 * kMiB - 1) / (2 * kMiB) * (2 * kMiB); };
    EXPECT_EQ(pools.at("hbm").session_bytes(), granules(kBytes - host)) << ratio;
    EXPECT_EQ(pools.at("host").session_bytes(), granules(host)) << ratio;
  }
  ASSERT_TRUE(session.Free(w).ok());
  ExpectPoolsEmpty();
}

TEST_F(MoveTest, PassesGoOnWhileRowsMoveAndEveryResultIsRight) {
  dak::Session session = Open();
  const auto weights = RandomMatrix(kRows, kCols, 1, false);
  auto w = session.Allocate(Matrix("w", kRows, kCols, 0), "model");
  ASSERT_TRUE(w.ok());
  ASSERT_TRUE(w->Upload(std::span(weights)).ok());
  const auto x = RandomMatrix(4, kCols, 2, false);
  alignas(64) static uint16_t input[4 * kCols];
  alignas(64) static uint16_t y[4 * kRows];
  std::copy(x.begin(), x.end(), input);
  double ratio = 0;
  for (int round = 0; round < 6; ++round) {
    ratio = ratio == 0.5 ? 0.125 : 0.5;
    std::atomic<bool> prepared = false;
    std::thread mover([&] {
      const auto info = Prepare(session, Move(*w, ratio));
      EXPECT_TRUE(info.ok()) << info.status().ToString();
      prepared = true;
    });
    int passes = 0;
    do {
      std::fill(std::begin(y), std::end(y), 0x7fff);
      ASSERT_TRUE(session.Gemm(*w, reinterpret_cast<uint64_t>(input), reinterpret_cast<uint64_t>(y), 4).ok());
      EXPECT_LT(WorstError(x, weights, {y, y + 4 * kRows}, 4, kRows, kCols, false), Tolerance(false)) << passes;
      ++passes;
    } while (!prepared);
    mover.join();
    ASSERT_TRUE(session.CommitMove().ok());
    EXPECT_EQ(RemoteRows(*w), static_cast<uint64_t>(ratio * kRows));
  }
}

TEST_F(MoveTest, RowsThatAreWrittenMeanwhileArriveWithTheCommit) {
  dak::Session session = Open();
  dak::Tensor kv = Filled(session, "kv", 0);
  dak::TensorMove move = Move(kv, 0.5);
  move.written = true;
  move.stable_rows = 300;
  ASSERT_TRUE(Prepare(session, move).ok());
  // Pages from row 300 on are written after the daemon has copied.
  const std::vector<uint8_t> pages = Pattern(700 * kCols * 2, 99);
  ASSERT_TRUE(kv.Upload(std::span(pages), 300 * kCols * 2).ok());
  ASSERT_TRUE(session.CommitMove().ok());
  std::vector<uint8_t> expected = pattern_;
  std::copy(pages.begin(), pages.end(), expected.begin() + 300 * kCols * 2);
  EXPECT_TRUE(Contents(kv) == expected);
}

TEST_F(MoveTest, AnAbortLeavesEverythingAsItWas) {
  dak::Session session = Open();
  dak::Tensor w = Filled(session, "w", 0.5);
  const auto before = *w.GetParts();
  ASSERT_TRUE(Prepare(session, Move(w, 0.25)).ok());
  ASSERT_TRUE(session.AbortMove().ok());
  const auto after = *w.GetParts();
  ASSERT_EQ(after.size(), before.size());
  EXPECT_EQ(after[0].device_address, before[0].device_address);
  EXPECT_TRUE(Contents(w) == pattern_);
  EXPECT_EQ(session.CommitMove().reason(), "NO_MOVE");
  EXPECT_EQ(session.AbortMove().reason(), "NO_MOVE");
  EXPECT_EQ(daemon_.SessionBytes(), 4 * kMiB);
}

TEST_F(MoveTest, TensorsThatShareASegmentMoveTogetherAndTheSegmentComesBack) {
  dak::Session session = Open();
  const std::vector<dak::TensorSpec> specs = {Matrix("a", kRows, kCols, 0), Matrix("b", kRows, kCols, 0),
                                              Matrix("c", kRows, kCols, 0), Matrix("d", kRows, kCols, 0)};
  auto tensors = session.Allocate(specs);
  ASSERT_TRUE(tensors.ok());
  std::vector<dak::TensorMove> moves;
  for (const dak::Tensor& tensor : *tensors) {
    ASSERT_TRUE(tensor.Upload(std::span(pattern_)).ok());
    moves.push_back(Move(tensor, 0.5));
  }
  const auto info = session.PrepareMove(moves);
  ASSERT_TRUE(info.ok()) << info.status().ToString();
  EXPECT_EQ(info->tensor_count, 4u);
  EXPECT_EQ(info->hbm_to_remote_bytes, 2 * kMiB);
  EXPECT_EQ(info->remote_to_hbm_bytes, 0u);
  EXPECT_EQ(info->within_tier_bytes, 2 * kMiB);
  EXPECT_GT(info->copy_ns, 0u);
  // Others are allocated and freed meanwhile, also in the move's own segments.
  auto more = session.Allocate(Matrix("more", 64, 64, 0.5));
  ASSERT_TRUE(more.ok()) << more.status().ToString();
  ASSERT_TRUE(session.CommitMove().ok());
  ASSERT_TRUE(session.Free(*more).ok());
  for (const dak::Tensor& tensor : *tensors) EXPECT_TRUE(Contents(tensor) == pattern_);
  EXPECT_EQ(daemon_.Pools().at("hbm").session_bytes(), 2 * kMiB);
  ASSERT_TRUE(session.Free(*tensors).ok());
  ExpectPoolsEmpty();
}

TEST_F(MoveTest, ThePlanInForceIsFollowed) {
  dak::Session session = Open();
  const std::vector<dak::TensorSpec> specs = {Matrix("l0", kRows, kCols, 0), Matrix("l1", kRows, kCols, 0)};
  auto tensors = session.Allocate(specs, "model");
  ASSERT_TRUE(tensors.ok());
  EXPECT_EQ(session.PrepareMoveToPlan("model").status().code(), DAK_NOT_FOUND);
  std::vector<dak::Operation> pass(3);
  for (size_t i = 0; i < pass.size(); ++i) pass[i] = {"l" + std::to_string(i), kBytes, 1e3, 0, 1};
  const auto plan = session.PlanPass(pass, 3 * kBytes / 2);
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  const auto info = session.PrepareMoveToPlan("model");
  ASSERT_TRUE(info.ok()) << info.status().ToString();
  ASSERT_GT(info->tensor_count, 0u);
  ASSERT_TRUE(session.CommitMove().ok());
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_GE(static_cast<double>(RemoteRows((*tensors)[i])), plan->ratios[i] * kRows - 1e-6) << i;
    EXPECT_LT(static_cast<double>(RemoteRows((*tensors)[i])), plan->ratios[i] * kRows + 64) << i;
  }
  // At the plan's ratios there is nothing to do.
  const auto again = session.PrepareMoveToPlan("model");
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->tensor_count, 0u);
  EXPECT_EQ(session.CommitMove().reason(), "NO_MOVE");
}

TEST_F(MoveTest, WhatCannotMoveIsRefusedByName) {
  dak::Session session = Open();
  dak::Tensor w = Filled(session, "w", 0);
  EXPECT_EQ(session.PrepareMove({}).status().field(), "moves");  // NULL
  EXPECT_EQ(Prepare(session, Move(dak::Tensor(), 0.5)).status().field(), "moves[0].tensor");
  EXPECT_EQ(Prepare(session, Move(w, 2)).status().field(), "moves[0].offload_ratio");
  ASSERT_TRUE(Prepare(session, Move(w, 0.5)).ok());
  EXPECT_EQ(Prepare(session, Move(w, 0.5)).status().reason(), "MOVE_PENDING");
  EXPECT_EQ(session.Free(w).reason(), "MOVE_PENDING");
  EXPECT_EQ(session.Suspend().reason(), "MOVE_PENDING");
  EXPECT_EQ(session.Publish("default", "p", "f").reason(), "MOVE_PENDING");
  ASSERT_TRUE(session.CommitMove().ok());
  ASSERT_TRUE(session.Publish("default", "p", "f").ok());
  EXPECT_EQ(Prepare(session, Move(w, 0)).status().reason(), "READ_ONLY");
  EXPECT_TRUE(Contents(w) == pattern_);
}

TEST_F(MoveTest, ADaemonThatDiesLeavesThePlaceThatIsInForce) {
  dak::Session session = Open();
  dak::Tensor w = Filled(session, "w", 0);
  dak::Tensor v = Filled(session, "v", 0);
  ASSERT_TRUE(Prepare(session, Move(w, 0.5)).ok());
  daemon_.Kill();
  // The new place is complete and mapped, so the change can be made all the same.
  EXPECT_TRUE(daemon_.WaitUntil([&] { return session.GetInfo()->connected == 0; }));
  EXPECT_TRUE(session.CommitMove().ok());
  EXPECT_EQ(RemoteRows(w), kRows / 2);
  EXPECT_TRUE(Contents(w) == pattern_);
  EXPECT_EQ(Prepare(session, Move(v, 0.5)).status().code(), DAK_UNAVAILABLE);
  EXPECT_TRUE(Contents(v) == pattern_);
}

}  // namespace
}  // namespace dak::testing

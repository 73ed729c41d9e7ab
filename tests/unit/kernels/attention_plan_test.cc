#include "kernels/attention_plan.h"

#include <gtest/gtest.h>

#include <random>

namespace dak::kernels {
namespace {

TEST(PlanAttentionTest, EveryTierWithBlocksGetsCtasThatAllHaveSome) {
  std::mt19937_64 random(20261125);
  for (int i = 0; i < 50'000; ++i) {
    const uint32_t head_dim = std::array{64u, 80u, 96u, 128u}[random() % 4];
    const DeviceTraits device{.multiprocessors = static_cast<uint32_t>(random() % 3 == 0 ? 132 : 1 + random() % 140)};
    const LinkTraits link{.window_bytes = static_cast<double>(random() % 3 == 0 ? 262'144 : random() % 4'000'000)};
    const AttentionPlan plan = PlanAttention(head_dim, device, link);
    ASSERT_GE(plan.ctas, 2u);
    ASSERT_GE(plan.full_remote_ctas, 1u);
    ASSERT_LE(plan.full_remote_ctas, kMaxRemoteCtas);
    ASSERT_LT(plan.full_remote_ctas, plan.ctas);
    ASSERT_GE(plan.inflight_blocks, 1u);
    const auto blocks = [&] {
      return static_cast<uint32_t>(random() % 4 == 0 ? random() % 3 : random() % 2 == 0 ? random() % 300 : random());
    };
    const uint32_t local = blocks();
    const uint32_t remote = blocks();
    const auto tasks = static_cast<uint32_t>(1 + random() % (random() % 2 == 0 ? 200 : 20'000));
    const CtaCounts counts = DivideCtas(plan, tasks, local, remote);
    ASSERT_EQ(counts.local == 0, local == 0);
    ASSERT_EQ(counts.remote == 0, remote == 0);
    ASSERT_LE(counts.local, local);
    ASSERT_LE(counts.remote, remote);
    ASSERT_LE(counts.remote, kMaxRemoteCtas);
    ASSERT_LE(counts.local + counts.remote, plan.ctas);
  }
}

TEST(PlanAttentionTest, AFullLinkIsFilledByFewCtasOfTheDefaultWindow) {
  EXPECT_EQ(PlanAttention(128, {}, {}).full_remote_ctas, 4u);
  EXPECT_EQ(PlanAttention(64, {}, {}).full_remote_ctas, 8u) << "half the bytes a read";
  EXPECT_GT(PlanAttention(128, {}, {.window_bytes = 1e6}).full_remote_ctas, 4u);
}

TEST(PlanAttentionTest, ASmallRemoteShareTakesFewerSms) {
  const AttentionPlan plan = PlanAttention(128, {}, {});
  const CtaCounts small = DivideCtas(plan, 30, 100'000, 100);
  const CtaCounts large = DivideCtas(plan, 30, 100'000, 10'000);
  EXPECT_EQ(small.remote, 1u);
  EXPECT_EQ(large.remote, plan.full_remote_ctas);
  EXPECT_EQ(small.local, 131u);
  EXPECT_EQ(large.local, 132 - large.remote);
}

TEST(PlanAttentionTest, ManyShortRemotePiecesGetMoreCtas) {
  AttentionPlan plan = PlanAttention(128, {}, {});
  // 8 and 32 sequences of 4096 tokens, 8 KV heads, 3.5 of 256 pages remote: a CTA has few pieces.
  for (const uint32_t tasks : {64u, 256u}) {
    const uint32_t local = tasks * 253;
    const uint32_t remote = tasks * 7 / 2;
    const CtaCounts counts = DivideCtas(plan, tasks, local, remote);
    const auto pieces = static_cast<float>(tasks) / static_cast<float>(counts.remote);
    EXPECT_LE(pieces * plan.piece_by_local_time, static_cast<float>(local)) << tasks << " tasks";
    EXPECT_LE(counts.remote, 12u);
    plan.piece_by_local_time = 0;
    EXPECT_EQ(DivideCtas(plan, tasks, local, remote).remote, plan.full_remote_ctas);
    plan = PlanAttention(128, {}, {});
  }
  EXPECT_EQ(DivideCtas(plan, 8, 2024, 24).remote, 8u) << "one piece each";
}

TEST(PlanAttentionTest, AtTheRatioWhereBothSidesTakeEquallyLongTheLinkIsFull) {
  const AttentionPlan plan = PlanAttention(128, {}, {});
  const auto remote = static_cast<uint32_t>(100'000 / plan.remote_by_local_time);
  EXPECT_EQ(DivideCtas(plan, 100, 100'000, remote).remote, plan.full_remote_ctas);
}

TEST(PlanAttentionTest, ShortContextsUseNoMoreCtasThanTheyHaveWork) {
  const CtaCounts counts = DivideCtas(PlanAttention(128, {}, {}), 1, 9, 0);
  EXPECT_EQ(counts.local, 2u);
  EXPECT_EQ(counts.remote, 0u);
}

TEST(PlanAttentionTest, FewTasksGetEquallyManyCtas) {
  const AttentionPlan plan = PlanAttention(128, {}, {});
  EXPECT_EQ(DivideCtas(plan, 8, 2048, 0).local, 128u);
  EXPECT_EQ(DivideCtas(plan, 64, 16'384, 0).local, 128u);
  EXPECT_EQ(DivideCtas(plan, 50, 16'384, 0).local, 132u) << "two a task would leave 32 idle";
  EXPECT_EQ(DivideCtas(plan, 256, 65'536, 0).local, 132u);
}

TEST(KindWorkTest, EveryBlockIsInItsOwnersRangeWhateverTheNumbers) {
  std::mt19937_64 random(20261125);
  for (int i = 0; i < 20'000; ++i) {
    const auto workers = static_cast<uint32_t>(1 + random() % 264);
    const auto least = uint64_t{workers};
    const uint64_t most = random() % 2 == 0 ? 20'000 : (uint64_t{1} << 32) - 1;
    const KindWork work{static_cast<uint32_t>(least + random() % (most - least)), workers};
    EXPECT_EQ(work.BeginOf(0), 0u);
    EXPECT_EQ(work.BeginOf(workers), work.total);
    const auto worker = static_cast<uint32_t>(random() % workers);
    ASSERT_LT(work.BeginOf(worker), work.BeginOf(worker + 1));
    for (const uint32_t block :
         {work.BeginOf(worker), work.BeginOf(worker + 1) - 1, static_cast<uint32_t>(random() % work.total)}) {
      const uint32_t owner = work.OwnerOf(block);
      ASSERT_LE(work.BeginOf(owner), block) << work.total << " by " << workers;
      ASSERT_LT(block, work.BeginOf(owner + 1)) << work.total << " by " << workers;
    }
  }
}

TEST(PlanAttentionTest, ReadsInFlightFollowTheBlocksSize) {
  EXPECT_EQ(PlanAttention(128, {}, {}).inflight_blocks * 2, PlanAttention(64, {}, {}).inflight_blocks);
}

}  // namespace
}  // namespace dak::kernels

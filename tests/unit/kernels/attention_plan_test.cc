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
    ASSERT_GE(plan.mixed_inflight_blocks, 1u);
    ASSERT_GE(plan.local_inflight_blocks, plan.mixed_inflight_blocks);
    const auto blocks = [&] {
      return static_cast<uint32_t>(random() % 4 == 0 ? random() % 3 : random() % 2 == 0 ? random() % 300 : random());
    };
    const uint32_t local = blocks();
    const uint32_t remote = blocks();
    const CtaCounts counts = DivideCtas(plan, local, remote);
    ASSERT_EQ(counts.local == 0, local == 0);
    ASSERT_EQ(counts.remote == 0, remote == 0);
    ASSERT_LE(counts.local, local);
    ASSERT_LE(counts.remote, remote);
    ASSERT_LE(counts.remote, plan.full_remote_ctas);
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
  const CtaCounts small = DivideCtas(plan, 100'000, 100);
  const CtaCounts large = DivideCtas(plan, 100'000, 10'000);
  EXPECT_EQ(small.remote, 1u);
  EXPECT_EQ(large.remote, plan.full_remote_ctas);
  EXPECT_EQ(small.local, 131u);
  EXPECT_EQ(large.local, 132 - large.remote);
}

TEST(PlanAttentionTest, AtTheRatioWhereBothSidesTakeEquallyLongTheLinkIsFull) {
  const AttentionPlan plan = PlanAttention(128, {}, {});
  const auto remote = static_cast<uint32_t>(100'000 / plan.remote_by_local_time);
  EXPECT_EQ(DivideCtas(plan, 100'000, remote).remote, plan.full_remote_ctas);
}

TEST(PlanAttentionTest, ShortContextsUseNoMoreCtasThanTheyHaveWork) {
  const CtaCounts counts = DivideCtas(PlanAttention(128, {}, {}), 9, 0);
  EXPECT_EQ(counts.local, 2u);
  EXPECT_EQ(counts.remote, 0u);
}

TEST(PlanAttentionTest, ReadsInFlightFollowTheBlocksSize) {
  EXPECT_EQ(PlanAttention(128, {}, {}).local_inflight_blocks * 2, PlanAttention(64, {}, {}).local_inflight_blocks);
}

}  // namespace
}  // namespace dak::kernels

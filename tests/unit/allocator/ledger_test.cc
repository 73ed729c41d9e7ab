#include "allocator/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "allocator/base/error_detail.h"

namespace dak {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kG = kGranuleBytes;
constexpr std::array<uint64_t, kTierCount> kUnlimited = {kNoLimit, kNoLimit, kNoLimit};

// HBM 10 granules, host 100 (and a bit that is no granule), no CXL.
class LedgerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(ledger_.OpenSession(1, {6 * kG, kNoLimit, kNoLimit}).ok());
    ASSERT_TRUE(ledger_.OpenSession(2, kUnlimited).ok());
  }
  void TearDown() override { EXPECT_EQ(ledger_.CheckInvariants(), absl::OkStatus()); }

  void Hold(uint64_t session_id, Tier tier, uint64_t granules) {
    absl::StatusOr<Reservation> reservation = ledger_.Reserve(session_id, tier, granules * kG);
    ASSERT_TRUE(reservation.ok()) << reservation.status();
    reservation->Commit();
  }
  Ledger::PoolUsage Pool(Tier tier) const { return ledger_.Pools().at(TierIndex(tier)); }
  uint64_t Used(uint64_t session_id, Tier tier) const { return ledger_.GetQuota(session_id, tier)->used_bytes; }

  void ExpectRefused(const absl::Status& status, absl::StatusCode code, const std::string& reason,
                     uint64_t shortfall_bytes = 0) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_EQ(DetailOf(status).reason, reason) << status;
    EXPECT_EQ(DetailOf(status).shortfall_bytes, shortfall_bytes) << status;
  }

  Ledger ledger_{{10 * kG, 100 * kG + 5, 0}};
};

TEST_F(LedgerTest, RoundsCapacityDownAndLeavesOutAbsentTiers) {
  const std::vector<Ledger::PoolUsage> pools = ledger_.Pools();
  ASSERT_EQ(pools.size(), 2u);
  EXPECT_EQ(pools[0].tier, Tier::kHbm);
  EXPECT_EQ(pools[0].capacity_bytes, 10 * kG);
  EXPECT_EQ(pools[1].tier, Tier::kHost);
  EXPECT_EQ(pools[1].capacity_bytes, 100 * kG);
  EXPECT_EQ(pools[1].free_bytes(), 100 * kG);
}

TEST_F(LedgerTest, ReservationCountsUntilItDies) {
  {
    absl::StatusOr<Reservation> reservation = ledger_.Reserve(1, Tier::kHbm, 4 * kG);
    ASSERT_TRUE(reservation.ok());
    EXPECT_EQ(reservation->bytes(), 4 * kG);
    EXPECT_EQ(Used(1, Tier::kHbm), 4 * kG);
    EXPECT_EQ(Pool(Tier::kHbm).session_bytes, 4 * kG);
    EXPECT_EQ(ledger_.CheckInvariants(), absl::OkStatus());
  }
  EXPECT_EQ(Used(1, Tier::kHbm), 0u);
  EXPECT_EQ(Pool(Tier::kHbm).free_bytes(), 10 * kG);
}

TEST_F(LedgerTest, CommitKeepsTheBytesUntilReleased) {
  Hold(1, Tier::kHbm, 4);
  EXPECT_EQ(Used(1, Tier::kHbm), 4 * kG);
  ASSERT_TRUE(ledger_.Release(1, Tier::kHbm, 3 * kG).ok());
  EXPECT_EQ(Used(1, Tier::kHbm), kG);
  ASSERT_TRUE(ledger_.Release(1, Tier::kHbm, kG).ok());
  EXPECT_EQ(Pool(Tier::kHbm).free_bytes(), 10 * kG);
}

TEST_F(LedgerTest, CommitTwiceCountsOnce) {
  absl::StatusOr<Reservation> reservation = ledger_.Reserve(1, Tier::kHbm, 2 * kG);
  ASSERT_TRUE(reservation.ok());
  reservation->Commit();
  reservation->Commit();
  EXPECT_EQ(Used(1, Tier::kHbm), 2 * kG);
}

TEST_F(LedgerTest, MovedReservationIsSettledOnce) {
  absl::StatusOr<Reservation> first = ledger_.Reserve(1, Tier::kHbm, kG);
  absl::StatusOr<Reservation> second = ledger_.Reserve(1, Tier::kHbm, 2 * kG);
  ASSERT_TRUE(first.ok() && second.ok());
  Reservation moved = *std::move(first);
  EXPECT_EQ(moved.bytes(), kG);
  EXPECT_EQ(Used(1, Tier::kHbm), 3 * kG);
  moved = *std::move(second);  // gives the first one's granule back
  EXPECT_EQ(Used(1, Tier::kHbm), 2 * kG);
  moved = std::move(moved);  // NOLINT: to itself
  EXPECT_EQ(Used(1, Tier::kHbm), 2 * kG);
  moved.Commit();
  moved = Reservation();
  EXPECT_EQ(Used(1, Tier::kHbm), 2 * kG);
}

TEST_F(LedgerTest, RefusesPastTheQuotaAndNamesTheShortfall) {
  Hold(1, Tier::kHbm, 5);
  const absl::Status status = ledger_.Reserve(1, Tier::kHbm, 4 * kG).status();
  ExpectRefused(status, absl::StatusCode::kResourceExhausted, "QUOTA_EXCEEDED", 3 * kG);
  EXPECT_THAT(std::string(status.message()), HasSubstr("hbm"));
  EXPECT_EQ(DetailOf(status).limit, "quota of 12582912 bytes");
  EXPECT_EQ(Used(1, Tier::kHbm), 5 * kG);
  Hold(1, Tier::kHbm, 1);  // to the last granule
}

TEST_F(LedgerTest, RefusesPastThePoolAndNamesTheShortfall) {
  Hold(1, Tier::kHbm, 5);
  const absl::Status status = ledger_.Reserve(2, Tier::kHbm, 9 * kG).status();
  ExpectRefused(status, absl::StatusCode::kResourceExhausted, "POOL_EXHAUSTED", 4 * kG);
  EXPECT_EQ(DetailOf(status).limit, "pool of 20971520 bytes");
  EXPECT_EQ(Used(2, Tier::kHbm), 0u);
  Hold(2, Tier::kHbm, 5);
  EXPECT_EQ(Pool(Tier::kHbm).free_bytes(), 0u);
}

TEST_F(LedgerTest, NamesTheQuotaWhereBothAreTooSmall) {
  ExpectRefused(ledger_.Reserve(1, Tier::kHbm, 20 * kG).status(), absl::StatusCode::kResourceExhausted,
                "QUOTA_EXCEEDED", 14 * kG);
}

TEST_F(LedgerTest, DoesNotOverflowOnTheLargestRequest) {
  Hold(1, Tier::kHbm, 1);
  Hold(2, Tier::kHbm, 1);
  const uint64_t most = kNoLimit - kNoLimit % kG;
  EXPECT_EQ(ledger_.Reserve(1, Tier::kHbm, most).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(ledger_.Reserve(2, Tier::kHbm, most).status()).reason, "POOL_EXHAUSTED");
}

TEST_F(LedgerTest, RefusesPartsOfGranules) {
  for (uint64_t bytes : {uint64_t{1}, kG - 1, kG + 1}) {
    for (const absl::Status& status :
         {ledger_.Reserve(1, Tier::kHbm, bytes).status(), ledger_.Release(1, Tier::kHbm, bytes),
          ledger_.Publish(1, Tier::kHbm, bytes), ledger_.ReleasePublished(Tier::kHbm, bytes)}) {
      ExpectRefused(status, absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE");
      EXPECT_EQ(DetailOf(status).field, "bytes");
      EXPECT_EQ(DetailOf(status).limit, "a multiple of 2097152");
    }
  }
}

TEST_F(LedgerTest, ZeroBytesAreNothing) {
  ASSERT_TRUE(ledger_.SetQuota(1, Tier::kHbm, 0, 0).ok());
  absl::StatusOr<Reservation> reservation = ledger_.Reserve(1, Tier::kHbm, 0);
  ASSERT_TRUE(reservation.ok());
  EXPECT_TRUE(ledger_.Release(1, Tier::kHbm, 0).ok());
  EXPECT_TRUE(ledger_.CloseSession(1).ok());  // it owes nothing
}

TEST_F(LedgerTest, RefusesUnknownSessions) {
  for (const absl::Status& status : {ledger_.Reserve(9, Tier::kHbm, kG).status(), ledger_.Release(9, Tier::kHbm, kG),
                                     ledger_.Publish(9, Tier::kHbm, kG), ledger_.SetQuota(9, Tier::kHbm, 0, 0).status(),
                                     ledger_.GetQuota(9, Tier::kHbm).status(), ledger_.CloseSession(9).status()}) {
    ExpectRefused(status, absl::StatusCode::kNotFound, "UNKNOWN_SESSION");
  }
}

TEST_F(LedgerTest, RefusesTiersWithoutAPool) {
  for (const absl::Status& status :
       {ledger_.Reserve(1, Tier::kCxl, kG).status(), ledger_.Release(1, Tier::kCxl, kG),
        ledger_.Publish(1, Tier::kCxl, kG), ledger_.ReleasePublished(Tier::kCxl, kG),
        ledger_.SetQuota(1, Tier::kCxl, 0, 0).status(), ledger_.GetQuota(1, Tier::kCxl).status()}) {
    ExpectRefused(status, absl::StatusCode::kFailedPrecondition, "TIER_ABSENT");
  }
}

TEST_F(LedgerTest, RefusesWhatIsNoTier) {
  for (int number : {0, 4, -1}) {
    const absl::Status status = ledger_.Reserve(1, static_cast<Tier>(number), kG).status();
    ExpectRefused(status, absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE");
    EXPECT_EQ(DetailOf(status).field, "tier");
  }
}

TEST_F(LedgerTest, RefusesToReleaseMoreThanIsCommitted) {
  Hold(1, Tier::kHbm, 2);
  absl::StatusOr<Reservation> open = ledger_.Reserve(1, Tier::kHbm, kG);
  ASSERT_TRUE(open.ok());
  for (const absl::Status& status : {ledger_.Release(1, Tier::kHbm, 3 * kG), ledger_.Publish(1, Tier::kHbm, 3 * kG)}) {
    ExpectRefused(status, absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE");
    EXPECT_EQ(DetailOf(status).limit, "at most 4194304");
  }
  EXPECT_EQ(Used(1, Tier::kHbm), 3 * kG);
  EXPECT_EQ(Pool(Tier::kHbm).published_bytes, 0u);
}

TEST_F(LedgerTest, PublishedBytesLeaveTheQuotaButNotThePool) {
  Hold(1, Tier::kHbm, 6);
  ASSERT_TRUE(ledger_.Publish(1, Tier::kHbm, 4 * kG).ok());
  EXPECT_EQ(Used(1, Tier::kHbm), 2 * kG);
  EXPECT_EQ(Pool(Tier::kHbm).session_bytes, 2 * kG);
  EXPECT_EQ(Pool(Tier::kHbm).published_bytes, 4 * kG);
  EXPECT_EQ(Pool(Tier::kHbm).free_bytes(), 4 * kG);
  ExpectRefused(ledger_.Reserve(2, Tier::kHbm, 5 * kG).status(), absl::StatusCode::kResourceExhausted, "POOL_EXHAUSTED",
                kG);
  ASSERT_TRUE(ledger_.CloseSession(1).ok());  // they outlive the session
  EXPECT_EQ(Pool(Tier::kHbm).published_bytes, 4 * kG);
  ExpectRefused(ledger_.ReleasePublished(Tier::kHbm, 5 * kG), absl::StatusCode::kInvalidArgument, "OUT_OF_RANGE");
  ASSERT_TRUE(ledger_.ReleasePublished(Tier::kHbm, 4 * kG).ok());
  EXPECT_EQ(Pool(Tier::kHbm).free_bytes(), 10 * kG);
}

TEST_F(LedgerTest, OpensASessionOnce) {
  EXPECT_EQ(ledger_.OpenSession(1, kUnlimited).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ledger_.GetQuota(1, Tier::kHbm)->limit_bytes, 6 * kG);  // unchanged
}

TEST_F(LedgerTest, ClosingReturnsAllThatIsHeld) {
  Hold(1, Tier::kHbm, 2);
  Hold(1, Tier::kHost, 7);
  Hold(2, Tier::kHost, 1);
  const auto returned = ledger_.CloseSession(1);
  ASSERT_TRUE(returned.ok());
  EXPECT_EQ(*returned, (std::array<uint64_t, kTierCount>{2 * kG, 7 * kG, 0}));
  EXPECT_EQ(Pool(Tier::kHbm).free_bytes(), 10 * kG);
  EXPECT_EQ(Pool(Tier::kHost).session_bytes, kG);
  ASSERT_TRUE(ledger_.OpenSession(1, kUnlimited).ok());  // a new account
  EXPECT_EQ(Used(1, Tier::kHost), 0u);
}

TEST_F(LedgerTest, RefusesToCloseOverAnOpenReservation) {
  absl::StatusOr<Reservation> open = ledger_.Reserve(1, Tier::kHost, kG);
  ASSERT_TRUE(open.ok());
  ExpectRefused(ledger_.CloseSession(1).status(), absl::StatusCode::kFailedPrecondition, "RESERVATION_OPEN");
  EXPECT_EQ(Used(1, Tier::kHost), kG);
  *open = Reservation();
  EXPECT_TRUE(ledger_.CloseSession(1).ok());
}

TEST_F(LedgerTest, QuotaUnderWhatIsHeldTakesNothingAway) {
  Hold(1, Tier::kHbm, 5);
  const absl::StatusOr<Ledger::Quota> quota = ledger_.SetQuota(1, Tier::kHbm, 2 * kG, 0);
  ASSERT_TRUE(quota.ok());
  EXPECT_EQ(quota->overage_bytes(), 3 * kG);
  EXPECT_EQ(quota->used_bytes, 5 * kG);
  ExpectRefused(ledger_.Reserve(1, Tier::kHbm, kG).status(), absl::StatusCode::kResourceExhausted, "QUOTA_EXCEEDED",
                4 * kG);
  ASSERT_TRUE(ledger_.Release(1, Tier::kHbm, 4 * kG).ok());
  EXPECT_EQ(ledger_.GetQuota(1, Tier::kHbm)->overage_bytes(), 0u);
  Hold(1, Tier::kHbm, 1);
}

TEST_F(LedgerTest, QuotaChangesCountRevisions) {
  EXPECT_EQ(ledger_.GetQuota(1, Tier::kHbm)->revision, 1u);
  EXPECT_EQ(ledger_.SetQuota(1, Tier::kHbm, 3 * kG, 1)->revision, 2u);
  const absl::Status stale = ledger_.SetQuota(1, Tier::kHbm, 9 * kG, 1).status();
  ExpectRefused(stale, absl::StatusCode::kAborted, "STALE_REVISION");
  EXPECT_EQ(DetailOf(stale).field, "expected_revision");
  EXPECT_EQ(ledger_.GetQuota(1, Tier::kHbm)->limit_bytes, 3 * kG);
  EXPECT_EQ(ledger_.SetQuota(1, Tier::kHbm, 4 * kG, 0)->revision, 3u);
  EXPECT_EQ(ledger_.GetQuota(1, Tier::kHost)->revision, 1u);  // each tier its own
}

// A driver that fails at every point of an allocation over several tiers: whatever was reserved comes back.
TEST_F(LedgerTest, RollsBackOnDriverFailure) {
  const std::vector<std::pair<Tier, uint64_t>> wanted = {{Tier::kHbm, 3 * kG}, {Tier::kHost, 8 * kG}, {Tier::kHbm, kG}};
  for (size_t fails_at = 0; fails_at <= wanted.size(); ++fails_at) {
    const auto allocate = [&]() -> absl::Status {
      std::vector<Reservation> reservations;
      for (size_t i = 0; i < wanted.size(); ++i) {
        absl::StatusOr<Reservation> reservation = ledger_.Reserve(1, wanted[i].first, wanted[i].second);
        if (!reservation.ok()) return reservation.status();
        reservations.push_back(*std::move(reservation));
        if (i == fails_at) return absl::InternalError("driver");
      }
      for (Reservation& reservation : reservations) reservation.Commit();
      return absl::OkStatus();
    };
    EXPECT_EQ(allocate().ok(), fails_at == wanted.size());
    EXPECT_EQ(ledger_.CheckInvariants(), absl::OkStatus());
    EXPECT_EQ(Used(1, Tier::kHbm), fails_at == wanted.size() ? 4 * kG : 0);
    EXPECT_EQ(Used(1, Tier::kHost), fails_at == wanted.size() ? 8 * kG : 0);
  }
}

}  // namespace
}  // namespace dak

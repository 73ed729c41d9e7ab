// Who holds how many bytes of which pool: capacity and quotas, counted exactly.
//
// A pool is one tier's memory on this node, in granules. The ledger holds no memory: it decides whether memory may be
// created. Use it as reserve, act, roll back:
//
//   DAK_ASSIGN_OR_RETURN(Reservation r, ledger.Reserve(session, Tier::kHbm, bytes));
//   ... create the memory with the driver; on failure `r` gives everything back when it dies ...
//   r.Commit();               // from here on Release() is owed
//
// Every byte of a pool is free, a session's, or published: capacity = free + sessions' + published.
//
// Thread safety: all methods may be called from any thread.
// Errors: RESOURCE_EXHAUSTED with reason QUOTA_EXCEEDED or POOL_EXHAUSTED and the shortfall in bytes; NOT_FOUND for
// a session that isn't there (UNKNOWN_SESSION); FAILED_PRECONDITION with TIER_ABSENT for a tier without a pool;
// INVALID_ARGUMENT for bytes that aren't whole granules. A call that fails changed nothing. Where both the quota and
// the pool are too small, the quota is named. See allocator/base/error_detail.h.
#ifndef DAK_ALLOCATOR_LEDGER_H_
#define DAK_ALLOCATOR_LEDGER_H_

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "allocator/base/tier.h"

namespace dak {

inline constexpr uint64_t kGranuleBytes = uint64_t{2} << 20;
inline constexpr uint64_t kNoLimit = ~uint64_t{0};

class Ledger;

// Bytes set aside but not yet backed by memory. Move-only; gives them back unless committed. Must die before its
// Ledger does, and before its session is closed.
class Reservation {
 public:
  Reservation() = default;
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation();
  // The memory exists now: the bytes count until Ledger::Release or Ledger::CloseSession.
  void Commit();
  uint64_t bytes() const { return bytes_; }

 private:
  friend class Ledger;
  Reservation(Ledger* ledger, uint64_t session_id, Tier tier, uint64_t bytes)
      : ledger_(ledger), session_id_(session_id), tier_(tier), bytes_(bytes) {}
  Ledger* ledger_ = nullptr;  // null: nothing is owed
  uint64_t session_id_ = 0;
  Tier tier_ = Tier::kHbm;
  uint64_t bytes_ = 0;
};

class Ledger {
 public:
  struct PoolUsage {
    Tier tier = Tier::kHbm;
    uint64_t capacity_bytes = 0;
    uint64_t session_bytes = 0;  // reserved ones included
    uint64_t published_bytes = 0;
    uint64_t free_bytes() const { return capacity_bytes - session_bytes - published_bytes; }
  };
  struct Quota {
    uint64_t limit_bytes = kNoLimit;
    uint64_t used_bytes = 0;  // reserved ones included
    uint64_t revision = 1;
    uint64_t overage_bytes() const { return used_bytes > limit_bytes ? used_bytes - limit_bytes : 0; }
  };

  // Capacity by TierIndex, bytes, rounded down to granules; 0: the tier has no pool.
  explicit Ledger(std::array<uint64_t, kTierCount> capacity_bytes);
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // ALREADY_EXISTS if the session is there.
  absl::Status OpenSession(uint64_t session_id, std::array<uint64_t, kTierCount> limit_bytes);
  // Returns everything the session holds to the pools: bytes by TierIndex. Reservations still open must have died
  // before (checked: FAILED_PRECONDITION with RESERVATION_OPEN).
  absl::StatusOr<std::array<uint64_t, kTierCount>> CloseSession(uint64_t session_id);

  absl::StatusOr<Reservation> Reserve(uint64_t session_id, Tier tier, uint64_t bytes);
  // Gives back committed bytes of a session. INVALID_ARGUMENT if it holds fewer.
  absl::Status Release(uint64_t session_id, Tier tier, uint64_t bytes);
  // Moves committed bytes of a session to the published state: they leave its quota.
  absl::Status Publish(uint64_t session_id, Tier tier, uint64_t bytes);
  absl::Status ReleasePublished(Tier tier, uint64_t bytes);

  // A limit under what is held is kept and takes nothing away. `expected_revision` 0 means any; ABORTED
  // (STALE_REVISION) if another. Every change counts the revision up by one.
  absl::StatusOr<Quota> SetQuota(uint64_t session_id, Tier tier, uint64_t limit_bytes, uint64_t expected_revision);
  absl::StatusOr<Quota> GetQuota(uint64_t session_id, Tier tier) const;
  // Pools that exist, in tier order.
  std::vector<PoolUsage> Pools() const;

  // Checks under the lock that every pool's account equals its sessions' and fits its capacity: for tests. INTERNAL
  // names what is broken.
  absl::Status CheckInvariants() const;

 private:
  friend class Reservation;
  struct SessionAccount {
    std::array<Quota, kTierCount> quotas;
    std::array<uint64_t, kTierCount> reserved_bytes{};
  };
  // The session's account, after checking the tier and the session.
  absl::StatusOr<SessionAccount*> Find(uint64_t session_id, Tier tier) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckTier(Tier tier) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes committed bytes out of a session's account; they are then nobody's.
  absl::Status Take(uint64_t session_id, Tier tier, uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Settle(uint64_t session_id, Tier tier, uint64_t bytes, bool commit);

  mutable absl::Mutex mutex_;
  std::array<PoolUsage, kTierCount> pools_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, SessionAccount> sessions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dak

#endif  // DAK_ALLOCATOR_LEDGER_H_

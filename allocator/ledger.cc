#include "allocator/ledger.h"

#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak {
namespace {

absl::Status CheckGranules(uint64_t bytes) {
  if (bytes % kGranuleBytes == 0) return absl::OkStatus();
  return InvalidField("bytes", absl::StrCat(bytes, " isn't whole granules"),
                      absl::StrCat("a multiple of ", kGranuleBytes));
}

uint64_t SaturatingAdd(uint64_t a, uint64_t b) {
  const uint64_t most = std::numeric_limits<uint64_t>::max();
  return b > most - a ? most : a + b;
}

absl::Status Exhausted(absl::string_view reason, absl::string_view what, Tier tier, uint64_t bytes,
                       uint64_t limit_bytes, uint64_t shortfall_bytes) {
  return WithDetail(absl::ResourceExhaustedError(absl::StrCat(TierName(tier), ": ", bytes, " bytes don't fit the ",
                                                              what, ", ", shortfall_bytes, " too few")),
                    {.reason = std::string(reason),
                     .limit = absl::StrCat(what, " of ", limit_bytes, " bytes"),
                     .shortfall_bytes = shortfall_bytes});
}

absl::Status UnknownSession(uint64_t session_id) {
  return WithDetail(absl::NotFoundError(absl::StrCat("no session ", session_id)), {.reason = "UNKNOWN_SESSION"});
}

}  // namespace

Reservation::Reservation(Reservation&& other) noexcept
    : ledger_(std::exchange(other.ledger_, nullptr)),
      session_id_(other.session_id_),
      tier_(other.tier_),
      bytes_(std::exchange(other.bytes_, 0)) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  if (this == &other) return *this;
  if (ledger_ != nullptr) ledger_->Settle(session_id_, tier_, bytes_, /*commit=*/false);
  ledger_ = std::exchange(other.ledger_, nullptr);
  session_id_ = other.session_id_;
  tier_ = other.tier_;
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

Reservation::~Reservation() {
  if (ledger_ != nullptr) ledger_->Settle(session_id_, tier_, bytes_, /*commit=*/false);
}

void Reservation::Commit() {
  if (ledger_ == nullptr) return;
  std::exchange(ledger_, nullptr)->Settle(session_id_, tier_, bytes_, /*commit=*/true);
}

Ledger::Ledger(std::array<uint64_t, kTierCount> capacity_bytes) {
  for (Tier tier : kAllTiers) {
    const uint64_t bytes = capacity_bytes[TierIndex(tier)];
    pools_[TierIndex(tier)] = {.tier = tier, .capacity_bytes = bytes - bytes % kGranuleBytes};
  }
}

absl::Status Ledger::CheckTier(Tier tier) const {
  const size_t index = TierIndex(tier);
  if (index >= kTierCount) {
    return InvalidField("tier", absl::StrCat(static_cast<int>(tier), " is no tier"), "hbm, host or cxl");
  }
  if (pools_[index].capacity_bytes != 0) return absl::OkStatus();
  return WithDetail(absl::FailedPreconditionError(absl::StrCat("this node has no ", TierName(tier), " pool")),
                    {.reason = "TIER_ABSENT"});
}

absl::StatusOr<Ledger::SessionAccount*> Ledger::Find(uint64_t session_id, Tier tier) {
  DAK_RETURN_IF_ERROR(CheckTier(tier));
  const auto found = sessions_.find(session_id);
  if (found == sessions_.end()) return UnknownSession(session_id);
  return &found->second;
}

absl::Status Ledger::OpenSession(uint64_t session_id, std::array<uint64_t, kTierCount> limit_bytes) {
  absl::MutexLock lock(&mutex_);
  const auto [entry, is_new] = sessions_.try_emplace(session_id);
  if (!is_new) return absl::AlreadyExistsError(absl::StrCat("session ", session_id, " is there"));
  for (size_t i = 0; i < kTierCount; ++i) entry->second.quotas[i].limit_bytes = limit_bytes[i];
  return absl::OkStatus();
}

absl::StatusOr<std::array<uint64_t, kTierCount>> Ledger::CloseSession(uint64_t session_id) {
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(session_id);
  if (found == sessions_.end()) return UnknownSession(session_id);
  for (Tier tier : kAllTiers) {
    const uint64_t reserved_bytes = found->second.reserved_bytes[TierIndex(tier)];
    if (reserved_bytes == 0) continue;
    return WithDetail(absl::FailedPreconditionError(absl::StrCat("session ", session_id, " has ", reserved_bytes,
                                                                 " bytes of ", TierName(tier), " reserved")),
                      {.reason = "RESERVATION_OPEN"});
  }
  std::array<uint64_t, kTierCount> returned{};
  for (size_t i = 0; i < kTierCount; ++i) {
    returned[i] = found->second.quotas[i].used_bytes;
    pools_[i].session_bytes -= returned[i];
  }
  sessions_.erase(found);
  return returned;
}

absl::StatusOr<Reservation> Ledger::Reserve(uint64_t session_id, Tier tier, uint64_t bytes) {
  DAK_RETURN_IF_ERROR(CheckGranules(bytes));
  absl::MutexLock lock(&mutex_);
  DAK_ASSIGN_OR_RETURN(SessionAccount * account, Find(session_id, tier));
  Quota& quota = account->quotas[TierIndex(tier)];
  PoolUsage& pool = pools_[TierIndex(tier)];
  const uint64_t wanted_bytes = SaturatingAdd(quota.used_bytes, bytes);
  if (bytes != 0 && wanted_bytes > quota.limit_bytes) {
    return Exhausted("QUOTA_EXCEEDED", "quota", tier, bytes, quota.limit_bytes, wanted_bytes - quota.limit_bytes);
  }
  if (bytes > pool.free_bytes()) {
    return Exhausted("POOL_EXHAUSTED", "pool", tier, bytes, pool.capacity_bytes, bytes - pool.free_bytes());
  }
  quota.used_bytes += bytes;
  pool.session_bytes += bytes;
  account->reserved_bytes[TierIndex(tier)] += bytes;
  return Reservation(this, session_id, tier, bytes);
}

void Ledger::Settle(uint64_t session_id, Tier tier, uint64_t bytes, bool commit) {
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(session_id);
  // A reservation of 0 bytes doesn't hold its session open.
  if (found == sessions_.end()) return;
  found->second.reserved_bytes[TierIndex(tier)] -= bytes;
  if (commit) return;
  found->second.quotas[TierIndex(tier)].used_bytes -= bytes;
  pools_[TierIndex(tier)].session_bytes -= bytes;
}

absl::Status Ledger::Take(uint64_t session_id, Tier tier, uint64_t bytes) {
  DAK_ASSIGN_OR_RETURN(SessionAccount * account, Find(session_id, tier));
  Quota& quota = account->quotas[TierIndex(tier)];
  const uint64_t committed_bytes = quota.used_bytes - account->reserved_bytes[TierIndex(tier)];
  if (bytes > committed_bytes) {
    return InvalidField("bytes", absl::StrCat(bytes, " is more than session ", session_id, " holds"),
                        absl::StrCat("at most ", committed_bytes));
  }
  quota.used_bytes -= bytes;
  pools_[TierIndex(tier)].session_bytes -= bytes;
  return absl::OkStatus();
}

absl::Status Ledger::Release(uint64_t session_id, Tier tier, uint64_t bytes) {
  DAK_RETURN_IF_ERROR(CheckGranules(bytes));
  absl::MutexLock lock(&mutex_);
  return Take(session_id, tier, bytes);
}

absl::Status Ledger::Publish(uint64_t session_id, Tier tier, uint64_t bytes) {
  DAK_RETURN_IF_ERROR(CheckGranules(bytes));
  absl::MutexLock lock(&mutex_);
  DAK_RETURN_IF_ERROR(Take(session_id, tier, bytes));
  pools_[TierIndex(tier)].published_bytes += bytes;
  return absl::OkStatus();
}

absl::Status Ledger::ReleasePublished(Tier tier, uint64_t bytes) {
  DAK_RETURN_IF_ERROR(CheckGranules(bytes));
  absl::MutexLock lock(&mutex_);
  DAK_RETURN_IF_ERROR(CheckTier(tier));
  PoolUsage& pool = pools_[TierIndex(tier)];
  if (bytes > pool.published_bytes) {
    return InvalidField("bytes", absl::StrCat(bytes, " is more than what is published"),
                        absl::StrCat("at most ", pool.published_bytes));
  }
  pool.published_bytes -= bytes;
  return absl::OkStatus();
}

absl::StatusOr<Ledger::Quota> Ledger::SetQuota(uint64_t session_id, Tier tier, uint64_t limit_bytes,
                                               uint64_t expected_revision) {
  absl::MutexLock lock(&mutex_);
  DAK_ASSIGN_OR_RETURN(SessionAccount * account, Find(session_id, tier));
  Quota& quota = account->quotas[TierIndex(tier)];
  if (expected_revision != 0 && expected_revision != quota.revision) {
    return WithDetail(
        absl::AbortedError(absl::StrCat("the quota's revision is ", quota.revision, ", not ", expected_revision)),
        {.field = "expected_revision", .reason = "STALE_REVISION", .limit = absl::StrCat("revision ", quota.revision)});
  }
  quota.limit_bytes = limit_bytes;
  ++quota.revision;
  return quota;
}

absl::StatusOr<Ledger::Quota> Ledger::GetQuota(uint64_t session_id, Tier tier) const {
  absl::MutexLock lock(&mutex_);
  DAK_RETURN_IF_ERROR(CheckTier(tier));
  const auto found = sessions_.find(session_id);
  if (found == sessions_.end()) return UnknownSession(session_id);
  return found->second.quotas[TierIndex(tier)];
}

std::vector<Ledger::PoolUsage> Ledger::Pools() const {
  absl::MutexLock lock(&mutex_);
  std::vector<PoolUsage> pools;
  for (const PoolUsage& pool : pools_) {
    if (pool.capacity_bytes != 0) pools.push_back(pool);
  }
  return pools;
}

absl::Status Ledger::CheckInvariants() const {
  absl::MutexLock lock(&mutex_);
  for (const PoolUsage& pool : pools_) {
    const size_t index = TierIndex(pool.tier);
    uint64_t session_bytes = 0;
    for (const auto& [session_id, account] : sessions_) {
      if (account.reserved_bytes[index] > account.quotas[index].used_bytes) {
        return absl::InternalError(absl::StrCat("session ", session_id, " has reserved more than it uses"));
      }
      session_bytes += account.quotas[index].used_bytes;
    }
    if (session_bytes != pool.session_bytes) {
      return absl::InternalError(absl::StrCat(TierName(pool.tier), ": sessions hold ", session_bytes,
                                              " bytes, the pool says ", pool.session_bytes));
    }
    if (pool.session_bytes > pool.capacity_bytes || pool.published_bytes > pool.capacity_bytes - pool.session_bytes) {
      return absl::InternalError(absl::StrCat(TierName(pool.tier), ": more is held than there is"));
    }
  }
  return absl::OkStatus();
}

}  // namespace dak

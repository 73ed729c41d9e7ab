// Tiers: where bytes live. Values equal dak.v1.Tier's.
#ifndef DAK_ALLOCATOR_BASE_TIER_H_
#define DAK_ALLOCATOR_BASE_TIER_H_

#include <array>
#include <cstddef>

namespace dak {

enum class Tier : int { kHbm = 1, kHost = 2, kCxl = 3 };

inline constexpr std::array<Tier, 3> kAllTiers = {Tier::kHbm, Tier::kHost, Tier::kCxl};
inline constexpr size_t kTierCount = kAllTiers.size();

// 0, 1, 2: for arrays indexed by tier.
constexpr size_t TierIndex(Tier tier) { return static_cast<size_t>(tier) - 1; }
constexpr bool IsRemote(Tier tier) { return tier != Tier::kHbm; }
// "hbm", "host", "cxl": in configuration, labels and tables.
constexpr const char* TierName(Tier tier) { return tier == Tier::kHbm ? "hbm" : tier == Tier::kHost ? "host" : "cxl"; }

}  // namespace dak

#endif  // DAK_ALLOCATOR_BASE_TIER_H_

#include "daemon/congestion/division.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace dak::congestion {
namespace {

// Shares this near to whole tiles are left alone; for that the target may be missed by a quarter or passed by half.
constexpr double kSteadyError = 0.02;
constexpr double kSteadyLeast = 0.75;
constexpr double kSteadyMost = 1.5;

struct Hungry {
  Share* share = nullptr;
  double ideal_tiles = 0;
  double wanted_tiles = 0;  // with what is owed
  int64_t tiles = 0;
  double Lost() const { return wanted_tiles - static_cast<double>(tiles); }
};

double WeightOf(const std::vector<Hungry>& hungry) {
  double weight = 0;
  for (const Hungry& h : hungry) weight += h.share->weight;
  return weight;
}

// `tiles` by weight, at least one each: who would get less has one, and the others share the rest.
void SetIdeals(double tiles, std::vector<Hungry>& hungry) {
  std::stable_sort(hungry.begin(), hungry.end(),
                   [](const Hungry& a, const Hungry& b) { return a.share->weight < b.share->weight; });
  double weight = WeightOf(hungry);
  for (Hungry& h : hungry) {
    h.ideal_tiles = std::max(1.0, tiles * h.share->weight / weight);
    if (h.ideal_tiles > 1.0) continue;
    tiles -= 1.0;
    weight -= h.share->weight;
  }
}

// Whole tiles that add up to `total`: rounded down, and the rest to those who lose most by it.
void Round(int64_t total, std::vector<Hungry>& hungry) {
  int64_t left = total;
  for (Hungry& h : hungry) {
    h.wanted_tiles = h.ideal_tiles + h.share->carry_tiles;
    h.tiles = std::max<int64_t>(1, static_cast<int64_t>(std::floor(h.wanted_tiles + 1e-9)));
    left -= h.tiles;
  }
  std::stable_sort(hungry.begin(), hungry.end(), [](const Hungry& a, const Hungry& b) { return a.Lost() > b.Lost(); });
  for (size_t i = 0; left > 0; i = (i + 1) % hungry.size(), --left) ++hungry[i].tiles;
  // Old carries may have promised too much: take it from those who lose least, never the last tile.
  for (; left < 0; ++left) {
    Hungry* least = nullptr;
    for (Hungry& h : hungry) {
      if (h.tiles > 1 && (least == nullptr || h.Lost() < least->Lost())) least = &h;
    }
    --least->tiles;
  }
}

// The number of tiles nearest to `wanted`, within [least, most], that makes everyone's share nearly whole, so that
// windows don't change from tick to tick; `wanted` if there is none.
int64_t SteadyTiles(int64_t wanted, int64_t least, int64_t most, double weight, const std::vector<Hungry>& hungry) {
  const auto steady = [&](int64_t tiles) {
    return tiles >= least && tiles <= most && std::all_of(hungry.begin(), hungry.end(), [&](const Hungry& h) {
             const double ideal = static_cast<double>(tiles) * h.share->weight / weight;
             return std::abs(std::round(ideal) - ideal) <= kSteadyError * ideal;
           });
  };
  for (int64_t away = 0; away <= std::max(most - wanted, wanted - least); ++away) {
    if (steady(wanted + away)) return wanted + away;
    if (steady(wanted - away)) return wanted - away;
  }
  return wanted;
}

// The hungry ones' part of the target; returns the bytes given.
double DivideAmongHungry(const Budget& budget, double bytes, double room_bytes, bool settle_rounding,
                         std::vector<Hungry>& hungry) {
  if (hungry.empty()) return 0;
  const auto tile = static_cast<double>(budget.tile_bytes);
  const auto count = static_cast<int64_t>(hungry.size());
  uint32_t lightest = hungry[0].share->weight;
  for (const Hungry& h : hungry) lightest = std::min(lightest, h.share->weight);
  // Enough tiles that the lightest session's share is one, if there is room.
  const double weight = WeightOf(hungry);
  const auto fair = static_cast<int64_t>(std::ceil(weight / lightest - 1e-9));
  const auto room = static_cast<int64_t>(room_bytes / tile);
  const auto target = static_cast<int64_t>(bytes / tile);
  const int64_t wanted = std::max(count, std::min(std::max(target, fair), room));
  const double enough_bytes = std::max(bytes * kSteadyLeast, budget.enough_bytes);
  const int64_t least = std::min(wanted, std::max(fair, static_cast<int64_t>(std::ceil(enough_bytes / tile))));
  const int64_t most = std::min(static_cast<int64_t>(bytes / tile * kSteadyMost), room);
  const int64_t total = SteadyTiles(wanted, least, most, weight, hungry);
  SetIdeals(static_cast<double>(total), hungry);
  Round(total, hungry);
  for (Hungry& h : hungry) {
    h.share->window_bytes = static_cast<uint64_t>(h.tiles) * budget.tile_bytes;
    if (settle_rounding) {
      h.share->carry_tiles = std::clamp(h.Lost(), -1.0, 1.0);
    }
  }
  return static_cast<double>(total) * tile;
}

}  // namespace

Division Divide(const Budget& budget, bool settle_rounding, absl::Span<Share> shares) {
  Division division;
  std::vector<Hungry> hungry;
  hungry.reserve(shares.size());
  double active_weight = 0;
  for (Share& share : shares) {
    if (share.hungry) hungry.push_back({.share = &share});
    if (share.hungry || share.used_bytes > 0) active_weight += share.weight;
  }
  const auto fair_bytes = [&](const Share& share) {
    const double weight = active_weight + (share.used_bytes > 0 ? 0.0 : share.weight);
    return budget.target_bytes * share.weight / weight;
  };
  for (const Share& share : shares) {
    if (!share.hungry) division.modest_bytes += std::min(share.used_bytes, fair_bytes(share));
  }
  division.hungry_bytes =
      DivideAmongHungry(budget, budget.target_bytes - division.modest_bytes, budget.cap_bytes, settle_rounding, hungry);
  division.window_bytes = division.hungry_bytes;

  // A first tile for each, then up to the fair share by weight.
  const auto tile = static_cast<double>(budget.tile_bytes);
  double modest_weight = 0;
  for (Share& share : shares) {
    if (share.hungry) continue;
    share.carry_tiles = 0;
    const bool fits = division.window_bytes + tile <= budget.cap_bytes;
    share.window_bytes = fits ? budget.tile_bytes : 0;
    division.window_bytes += static_cast<double>(share.window_bytes);
    modest_weight += share.weight;
  }
  const double room_bytes = budget.cap_bytes - division.window_bytes;
  for (Share& share : shares) {
    if (share.hungry || share.window_bytes == 0) continue;
    const double more_bytes = std::min(fair_bytes(share) - tile, room_bytes * share.weight / modest_weight);
    if (more_bytes < tile) continue;
    const auto more = static_cast<uint64_t>(more_bytes / tile) * budget.tile_bytes;
    share.window_bytes += more;
    division.window_bytes += static_cast<double>(more);
  }
  return division;
}

}  // namespace dak::congestion

#include "tests/unit/planner/random_cases.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace dak::planner {
namespace {

class Maker {
 public:
  Maker(std::mt19937_64& random, const CaseSize& size) : random_(random), size_(size) {}

  RandomCase Make() {
    RandomCase made;
    MakeProfile(made.profile);
    const size_t passes = 1 + Below(size_.max_passes);
    style_ = Below(4);
    scale_ = Log(1, 6e7);
    for (size_t p = 0; p < passes; ++p) made.passes.push_back(MakePass(made.profile, p));
    LimitSharedMemory(made);
    if (size_.limited_tiers) LimitTiers(made);
    return made;
  }

 private:
  uint64_t Below(uint64_t n) { return std::uniform_int_distribution<uint64_t>(0, n - 1)(random_); }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  double Real(double low, double high) { return std::uniform_real_distribution<double>(low, high)(random_); }
  double Log(double low, double high) { return std::exp2(Real(std::log2(low), std::log2(high))); }
  static double Whole(double value) { return std::max(1.0, std::floor(value)); }

  void MakeProfile(Profile& profile) {
    profile.hbm_bytes_per_s = OneIn(3) ? 2990e9 : Whole(Log(1e9, 1e13));
    profile.link_bytes_per_s = OneIn(3) ? 51.1e9 : Whole(profile.hbm_bytes_per_s * Log(0.005, 2));
    profile.flops_per_s = OneIn(3) ? 798e12 : Whole(Log(1e9, 1e16));
    const size_t tiers = 1 + Below(size_.max_tiers);
    for (size_t k = 0; k < tiers; ++k) {
      RemoteTier tier{.name = absl::StrCat("tier", k)};
      if (!OneIn(3)) tier.bytes_per_s = Whole(profile.link_bytes_per_s * (OneIn(4) ? 1 : Log(0.05, 3)));
      if (k > 0 && OneIn(4)) tier.bytes_per_s = profile.remote_tiers[0].bytes_per_s;
      profile.remote_tiers.push_back(tier);
    }
    if (size_.own_links) MakeOwnLinks(profile);
    if (OneIn(3)) MakeBatchRates(profile);
  }

  // At most one tier keeps to the shared link.
  void MakeOwnLinks(Profile& profile) {
    const size_t shared = Below(profile.remote_tiers.size() + 1);  // one too many: none
    for (size_t k = 0; k < profile.remote_tiers.size(); ++k) {
      RemoteTier& tier = profile.remote_tiers[k];
      tier.own_link = k != shared;
      if (tier.own_link && tier.bytes_per_s == 0) tier.bytes_per_s = Whole(profile.link_bytes_per_s * Log(0.05, 3));
    }
  }

  // Better and worse than the plain rates.
  void MakeBatchRates(Profile& profile) {
    const size_t count = 1 + Below(3);
    for (size_t i = 0; i < count; ++i) {
      profile.batch_rates.push_back({.batch = (i + 1) * 8,
                                     .hbm_bytes_per_s = Whole(profile.hbm_bytes_per_s * Log(0.1, 2)),
                                     .flops_per_s = Whole(profile.flops_per_s * Log(0.1, 2)),
                                     .operation_s = OneIn(2) ? 0 : Log(1e-9, 1e-4),
                                     .link_bytes_per_s = OneIn(2) ? 0 : Whole(profile.link_bytes_per_s * Log(0.1, 1)),
                                     .remote_s = OneIn(2) ? 0 : std::floor(Log(1, 1 << 26)) / (1 << 30)});
    }
  }

  uint64_t Bytes() {
    if (OneIn(12)) return 0;
    if (size_.extreme) return static_cast<uint64_t>(Log(1, 7e13));
    switch (style_) {
      case 0:
        return uint64_t{1} << 25;  // all the same
      case 1:
        return 1 + Below(64);  // tiny
      case 2:
        return Magnitude(scale_, 1e3);  // one large or small scale, widely spread
      default:
        return static_cast<uint64_t>(Log(1e6, 1e9));
    }
  }

  uint64_t Magnitude(double scale, double spread) {
    return static_cast<uint64_t>(std::max(1.0, Log(scale / spread, scale * spread)));
  }

  // Experts and embeddings store more than is read, several passes over a matrix read more than is stored.
  uint64_t Stored(uint64_t read) {
    if (size_.extreme) return Bytes() + 1;
    if (OneIn(4)) return 1000 * read + Below(100);
    return OneIn(2) ? read * (1 + Below(8)) : read / (1 + Below(8)) + 1;
  }

  Operation MakeOperation(const Profile& profile, size_t index) {
    Operation operation{.name = absl::StrCat("op", index), .bytes = Bytes()};
    if (OneIn(4)) operation.stored_bytes = Stored(operation.bytes);
    if (!profile.batch_rates.empty()) operation.batch = Below(30);
    const double hbm_s = static_cast<double>(operation.bytes) / profile.hbm_bytes_per_s;
    if (!OneIn(4)) operation.flops = std::floor(hbm_s * profile.flops_per_s * (OneIn(5) ? 1 : Log(0.01, 100)));
    if (OneIn(3)) {
      const uint64_t low = Below(65);
      const uint64_t high = OneIn(4) ? low : low + Below(65 - low);
      operation.min_ratio = static_cast<double>(low) / 64;
      operation.max_ratio = static_cast<double>(high) / 64;
    }
    return operation;
  }

  Pass MakePass(const Profile& profile, size_t index) {
    Pass pass;
    pass.session_id = index + 1;
    pass.weight = OneIn(3) ? 100 : Whole(Log(1, 1000));
    const size_t operations = 1 + Below(size_.max_operations);
    for (size_t i = 0; i < operations; ++i) pass.operations.push_back(MakeOperation(profile, i));
    const Bounds bounds = BoundsOf(pass);
    pass.hbm_budget_bytes = bounds.stored - Remote(0, bounds.most_remote);
    return pass;
  }

  struct Bounds {
    uint64_t stored = 0;
    uint64_t most_remote = 0;   // rounded down
    uint64_t least_remote = 0;  // rounded up
  };
  static Bounds BoundsOf(const Pass& pass) {
    Bounds bounds;
    double most = 0;
    double least = 0;
    for (const Operation& operation : pass.operations) {
      const uint64_t stored = operation.stored_bytes == 0 ? operation.bytes : operation.stored_bytes;
      bounds.stored += stored;
      most += static_cast<double>(stored) * operation.max_ratio;
      least += static_cast<double>(stored) * operation.min_ratio;
    }
    bounds.most_remote = static_cast<uint64_t>(most);
    bounds.least_remote = static_cast<uint64_t>(std::ceil(least));
    return bounds;
  }

  // What must be remote: anything between the bounds, often a bound itself, now and then more than the upper one.
  uint64_t Remote(uint64_t low, uint64_t high) {
    if (OneIn(6)) return low;
    if (OneIn(6)) return high;
    return low + Below(high - low + 1);
  }

  void LimitSharedMemory(RandomCase& made) {
    if (made.passes.size() < 2 || OneIn(2)) return;
    Bounds all;
    for (const Pass& pass : made.passes) {
      const Bounds bounds = BoundsOf(pass);
      all.stored += bounds.stored;
      all.most_remote += bounds.most_remote;
    }
    made.hbm_capacity_bytes = all.stored - Remote(0, all.most_remote);
  }

  // Together they always hold what must be remote, now and then exactly; any one of them may hold nothing.
  void LimitTiers(RandomCase& made) {
    uint64_t stored = 0;
    uint64_t needed = 0;
    for (const Pass& pass : made.passes) {
      const Bounds bounds = BoundsOf(pass);
      stored += bounds.stored;
      needed += std::max(bounds.least_remote, bounds.stored - std::min(bounds.stored, pass.hbm_budget_bytes));
    }
    needed = std::max(needed, stored - std::min(stored, made.hbm_capacity_bytes));
    uint64_t left = needed;
    for (size_t k = 0; k < made.profile.remote_tiers.size(); ++k) {
      uint64_t& capacity = made.profile.remote_tiers[k].capacity_bytes;
      if (k + 1 == made.profile.remote_tiers.size()) {
        if (!OneIn(3)) capacity = OneIn(3) ? left : left + Below(stored + 1);
      } else {
        capacity = Below(std::max(left, stored / 2) + 1);
        left -= std::min(left, capacity);
      }
    }
    std::shuffle(made.profile.remote_tiers.begin(), made.profile.remote_tiers.end(), random_);
  }

  std::mt19937_64& random_;
  CaseSize size_;
  uint64_t style_ = 0;
  double scale_ = 1;
};

}  // namespace

RandomCase MakeCase(std::mt19937_64& random, const CaseSize& size) { return Maker(random, size).Make(); }

std::string Describe(const RandomCase& random_case) {
  const Profile& profile = random_case.profile;
  std::string text = absl::StrCat("hbm ", profile.hbm_bytes_per_s, " link ", profile.link_bytes_per_s, " flops ",
                                  profile.flops_per_s, " hbm capacity ", random_case.hbm_capacity_bytes, "\n");
  for (const BatchRate& rate : profile.batch_rates) {
    absl::StrAppend(&text, "  batch ", rate.batch, " hbm ", rate.hbm_bytes_per_s, " flops ", rate.flops_per_s, " own ",
                    rate.operation_s, " link ", rate.link_bytes_per_s, " remote ", rate.remote_s, "\n");
  }
  for (const RemoteTier& tier : profile.remote_tiers) {
    absl::StrAppend(&text, "  tier rate ", tier.bytes_per_s, tier.own_link ? " own link" : "", " capacity ",
                    tier.capacity_bytes, "\n");
  }
  for (const Pass& pass : random_case.passes) {
    absl::StrAppend(&text, "pass weight ", pass.weight, " budget ", pass.hbm_budget_bytes, "\n");
    for (const Operation& operation : pass.operations) {
      absl::StrAppend(&text, "  batch ", operation.batch, " bytes ", operation.bytes, " stored ",
                      operation.stored_bytes, " flops ", operation.flops, " ratio ", operation.min_ratio, " to ",
                      operation.max_ratio, "\n");
    }
  }
  return text;
}

}  // namespace dak::planner

#include "tests/unit/planner/lp_oracle.h"

#include <glpk.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

namespace dak::planner {
namespace {

constexpr double kRatioUnits = 64;
constexpr double kStartUnits = 1 << 30;  // a second's parts in which random cases give remote_s

double Whole(double value) {
  if (value == std::floor(value)) return value;
  std::fprintf(stderr, "the oracle needs whole numbers, not %.17g\n", value);
  std::abort();
}

double StoredBytes(const Operation& operation) {
  return static_cast<double>(operation.stored_bytes == 0 ? operation.bytes : operation.stored_bytes);
}

// Columns: for each operation its time in seconds, then its share on each tier.
class Program {
 public:
  Program(const Profile& profile, absl::Span<const Pass> passes) : profile_(profile), passes_(passes) {
    glp_term_out(GLP_OFF);
    glp_set_obj_dir(problem_.get(), GLP_MIN);
    for (const Pass& pass : passes) {
      weights_ += Whole(pass.weight);
      for (const Operation& operation : pass.operations) total_bytes_ += StoredBytes(operation);
    }
  }

  std::optional<double> Solve(uint64_t hbm_capacity_bytes) {
    for (const Pass& pass : passes_) AddPass(pass);
    AddRow(all_remote_, GLP_LO, total_bytes_ - std::min(total_bytes_, static_cast<double>(hbm_capacity_bytes)));
    for (size_t k = 0; k < profile_.remote_tiers.size(); ++k) {
      const uint64_t capacity = profile_.remote_tiers[k].capacity_bytes;
      if (capacity != kUnlimitedBytes) AddRow(on_tier_[k], GLP_UP, static_cast<double>(capacity));
    }
    glp_smcp parameters;
    glp_init_smcp(&parameters);
    parameters.msg_lev = GLP_MSG_OFF;
    if (glp_exact(problem_.get(), &parameters) != 0) return std::nullopt;
    if (glp_get_status(problem_.get()) != GLP_OPT) return std::nullopt;
    return glp_get_obj_val(problem_.get()) + own_s_;
  }

 private:
  struct Terms {
    std::vector<int> columns{0};  // GLPK counts from 1
    std::vector<double> factors{0};
    void Add(int column, double factor) {
      if (factor == 0) return;
      columns.push_back(column);
      factors.push_back(Whole(factor));
    }
  };

  int AddColumn(double cost) {
    const int column = glp_add_cols(problem_.get(), 1);
    glp_set_col_bnds(problem_.get(), column, GLP_LO, 0, 0);
    glp_set_obj_coef(problem_.get(), column, cost);
    return column;
  }
  void AddRow(const Terms& terms, int kind, double bound) {
    const int row = glp_add_rows(problem_.get(), 1);
    glp_set_row_bnds(problem_.get(), row, kind, Whole(bound), Whole(bound));
    glp_set_mat_row(problem_.get(), row, static_cast<int>(terms.columns.size()) - 1, terms.columns.data(),
                    terms.factors.data());
  }

  void AddPass(const Pass& pass) {
    Terms remote;
    double bytes = 0;
    for (const Operation& operation : pass.operations) {
      bytes += StoredBytes(operation);
      AddOperation(operation, pass.weight, remote);
    }
    AddRow(remote, GLP_LO, bytes - std::min(bytes, static_cast<double>(pass.hbm_budget_bytes)));
  }

  BatchRate BatchRateOf(uint64_t batch) const {
    BatchRate found{.hbm_bytes_per_s = profile_.hbm_bytes_per_s, .flops_per_s = profile_.flops_per_s};
    if (batch == 0) return found;
    uint64_t before = 0;
    for (const BatchRate& rate : profile_.batch_rates) {
      if (batch > before) found = rate;
      before = rate.batch;
    }
    return found;
  }

  // Seconds as a fraction of whole numbers: remote_s, but at most what the operation takes with nothing remote.
  static std::pair<double, double> RemoteStart(const Operation& operation, const BatchRate& rate) {
    const double read = static_cast<double>(operation.bytes);
    const double compute_s = operation.flops / rate.flops_per_s;
    const double hbm_s = read / rate.hbm_bytes_per_s;
    if (rate.remote_s <= std::max(compute_s, hbm_s)) return {rate.remote_s * kStartUnits, kStartUnits};
    if (compute_s > hbm_s) return {operation.flops, rate.flops_per_s};
    return {read, rate.hbm_bytes_per_s};
  }

  // A session's share of a rate is weight / weights_; rows that have one are multiplied by weights_.
  void AddOperation(const Operation& operation, double weight, Terms& remote) {
    const double read = static_cast<double>(operation.bytes);
    const int time = AddColumn(weight);
    const BatchRate rate = BatchRateOf(operation.batch);
    own_s_ += weight * rate.operation_s;
    Terms compute;
    compute.Add(time, rate.flops_per_s);
    AddRow(compute, GLP_LO, operation.flops);
    Terms ratio;
    Terms hbm;
    Terms link;
    hbm.Add(time, rate.hbm_bytes_per_s);
    // Remote reads start after start / unit seconds and run at link / link_bytes_per_s of every rate; rows are
    // multiplied out so that all is whole.
    const double link_rate = rate.link_bytes_per_s == 0 ? profile_.link_bytes_per_s : rate.link_bytes_per_s;
    const auto [start, unit] = RemoteStart(operation, rate);
    link.Add(time, -unit * link_rate * weight);
    for (size_t k = 0; k < profile_.remote_tiers.size(); ++k) {
      const int tier = AddColumn(0);
      ratio.Add(tier, kRatioUnits);
      remote.Add(tier, StoredBytes(operation));
      all_remote_.Add(tier, StoredBytes(operation));
      on_tier_[k].Add(tier, StoredBytes(operation));
      hbm.Add(tier, read);
      if (!profile_.remote_tiers[k].own_link) link.Add(tier, unit * read * weights_);
      const double own_rate = profile_.remote_tiers[k].bytes_per_s;
      if (own_rate == 0) continue;
      Terms own;
      own.Add(time, -unit * link_rate * own_rate * weight);
      own.Add(tier, unit * profile_.link_bytes_per_s * read * weights_);
      AddRow(own, GLP_UP, -start * link_rate * own_rate * weight);
    }
    AddRow(ratio, GLP_LO, kRatioUnits * operation.min_ratio);
    AddRow(ratio, GLP_UP, kRatioUnits * operation.max_ratio);
    AddRow(hbm, GLP_LO, read);
    AddRow(link, GLP_UP, -start * link_rate * weight);
  }

  struct Delete {
    void operator()(glp_prob* problem) const { glp_delete_prob(problem); }
  };
  const Profile& profile_;
  absl::Span<const Pass> passes_;
  std::unique_ptr<glp_prob, Delete> problem_{glp_create_prob()};
  double weights_ = 0;
  double total_bytes_ = 0;
  double own_s_ = 0;  // weighted; it is in every plan alike
  Terms all_remote_;
  Terms on_tier_[kMaxRemoteTiers];
};

}  // namespace

std::optional<double> LeastWeightedSeconds(const Profile& profile, absl::Span<const Pass> passes,
                                           uint64_t hbm_capacity_bytes) {
  return Program(profile, passes).Solve(hbm_capacity_bytes);
}

}  // namespace dak::planner

#include "daemon/profile/measure.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "allocator/base/status_macros.h"

namespace dak::daemon {
namespace {

constexpr uint64_t kKiB = 1024;
// All CTAs hold equally many chunks in each (kernels/probe_cuda.cc).
constexpr uint64_t kLinkSteps[] = {8 * kKiB,   16 * kKiB,  24 * kKiB,  32 * kKiB,  64 * kKiB,  96 * kKiB,
                                   128 * kKiB, 160 * kKiB, 192 * kKiB, 256 * kKiB, 384 * kKiB, 512 * kKiB};
constexpr uint64_t kCliffSteps[] = {512 * kKiB,  1024 * kKiB, 1536 * kKiB, 2048 * kKiB,
                                    3072 * kKiB, 4096 * kKiB, 8192 * kKiB};
constexpr uint32_t kBatches[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048};
// Two sizes of W tell the time a byte from the time a launch. Both are larger than L2 together with their neighbours.
constexpr uint64_t kColumns = 4096;
constexpr uint64_t kFewRows = 4096;
constexpr uint64_t kManyRows = 28'672;
constexpr double kElementBytes = 2;
// From this batch on products may take more power than the GPU is allowed, and its clock falls within some 30 ms. The
// larger the batch, the more; at 64 nothing was seen of it.
constexpr uint64_t kLeastHotBatch = 128;
constexpr double kSteadyS = 0.1;
constexpr double kUsualHeat = 1.1;  // times as long; more is taken again, since something else may have made it longer
constexpr double kStillSteadyS = 0.03;  // the GPU is hot by then
// The least of a few takes, since others on the machine only make one longer; no more of them when two agree.
constexpr int kMostTakes = 4;
constexpr double kAgreement = 0.02;
constexpr double kBoundByLink = 1.5;     // remote reads take at least so many times as long as all of W in HBM
constexpr double kWindowInDelays = 2;    // where the controller holds the sum of windows
constexpr double kLeastBytesPerS = 1e6;  // what no device that dak runs on is under, and over
constexpr double kMostBytesPerS = 1e15;
constexpr double kLeastFlopsPerS = 1e9;
constexpr double kMostFlopsPerS = 1e18;
constexpr double kLeastRoundTripS = 1e-7;
constexpr double kMostRoundTripS = 1e-3;

absl::StatusOr<double> Plausible(absl::string_view what, absl::StatusOr<double> value, double least, double most) {
  if (!value.ok()) {
    return absl::Status(value.status().code(), absl::StrCat(what, ": ", value.status().message()));
  }
  if (std::isfinite(*value) && *value >= least && *value <= most) return value;
  return absl::InternalError(absl::StrCat(what, ": ", *value, " can't be true"));
}

absl::StatusOr<double> Rate(absl::string_view what, absl::StatusOr<double> value) {
  return Plausible(what, std::move(value), kLeastBytesPerS, kMostBytesPerS);
}

class Measuring {
 public:
  Measuring(kernels::Probe& probe, const planner::Profile& otherwise, const MeasureOptions& options)
      : probe_(probe), options_(options), begin_s_(options.seconds_now()) {
    result_.profile = otherwise;
    result_.profile.batch_rates.clear();
  }

  absl::StatusOr<Measurement> Run() {
    DAK_RETURN_IF_ERROR(MeasureNeeded());
    LeaveOutIfBad("rates by batch", MeasureBatches());
    LeaveOutIfBad("cliff", MeasureCliff());
    LeaveOutIfBad("rates under a load that lasts", MeasureSteady());
    result_.seconds = Elapsed();
    return std::move(result_);
  }

  absl::StatusOr<planner::RemoteTier> RunPath(const std::string& name) {
    DAK_RETURN_IF_ERROR(MeasureLink());
    DAK_RETURN_IF_ERROR(MeasureRoundTrip());
    const planner::Profile& profile = result_.profile;
    return planner::RemoteTier{.name = name,
                               .bytes_per_s = profile.link_bytes_per_s,
                               .round_trip_ns = profile.round_trip_ns,
                               .knee_bytes = profile.knee_bytes};
  }

 private:
  double Elapsed() const { return options_.seconds_now() - begin_s_; }

  absl::Status CheckTime() const {
    if (Elapsed() < options_.budget_s) return absl::OkStatus();
    return absl::DeadlineExceededError(absl::StrCat("not measured within ", options_.budget_s, " s"));
  }

  void LeaveOutIfBad(absl::string_view what, const absl::Status& status) {
    if (!status.ok()) result_.left_out.push_back(absl::StrCat(what, ": ", status.message()));
  }

  absl::Status MeasureNeeded() {
    planner::Profile& profile = result_.profile;
    DAK_ASSIGN_OR_RETURN(profile.hbm_bytes_per_s, Rate("HBM", probe_.HbmBytesPerS()));
    options_.log(absl::StrFormat("HBM %.0f GB/s", profile.hbm_bytes_per_s * 1e-9));
    DAK_RETURN_IF_ERROR(MeasureLink());
    DAK_RETURN_IF_ERROR(MeasureRoundTrip());
    DAK_ASSIGN_OR_RETURN(profile.copy_engine_bytes_per_s, Rate("copy to HBM", probe_.CopyEngineBytesPerS(true)));
    DAK_ASSIGN_OR_RETURN(profile.copy_to_host_bytes_per_s, Rate("copy to host", probe_.CopyEngineBytesPerS(false)));
    options_.log(absl::StrFormat("copy engine %.1f GB/s to HBM, %.1f GB/s to host",
                                 profile.copy_engine_bytes_per_s * 1e-9, profile.copy_to_host_bytes_per_s * 1e-9));
    DAK_RETURN_IF_ERROR(CheckTime());
    DAK_ASSIGN_OR_RETURN(profile.flops_per_s,
                         Plausible("tensor cores", probe_.FlopsPerS(), kLeastFlopsPerS, kMostFlopsPerS));
    options_.log(absl::StrFormat("tensor cores %.0f TFLOP/s", profile.flops_per_s * 1e-12));
    return absl::OkStatus();
  }

  absl::Status MeasureRoundTrip() {
    DAK_RETURN_IF_ERROR(CheckTime());
    DAK_ASSIGN_OR_RETURN(const double trip_s,
                         Plausible("round trip", probe_.RoundTripSeconds(), kLeastRoundTripS, kMostRoundTripS));
    result_.profile.round_trip_ns = static_cast<uint64_t>(std::llround(trip_s * 1e9));
    options_.log(absl::StrFormat("round trip %.2f us", trip_s * 1e6));
    return absl::OkStatus();
  }

  absl::Status MeasureLink() {
    planner::Profile& profile = result_.profile;
    std::vector<double> rates;
    for (const uint64_t inflight_bytes : kLinkSteps) {
      DAK_RETURN_IF_ERROR(CheckTime());
      DAK_ASSIGN_OR_RETURN(const double rate, Rate(absl::StrCat("link with ", inflight_bytes, " bytes in flight"),
                                                   probe_.LinkBytesPerS(inflight_bytes)));
      rates.push_back(rate);
    }
    profile.link_bytes_per_s = *std::max_element(rates.begin(), rates.end());
    const auto full = std::find_if(rates.begin(), rates.end(),
                                   [&](double rate) { return rate >= kKneeShare * profile.link_bytes_per_s; });
    profile.knee_bytes = kLinkSteps[full - rates.begin()];
    options_.log(absl::StrFormat("link %.1f GB/s, full with %d KiB in flight", profile.link_bytes_per_s * 1e-9,
                                 profile.knee_bytes / kKiB));
    return absl::OkStatus();
  }

  // The most bytes in flight at which HBM still keeps its rate, before the first at which it doesn't.
  absl::Status MeasureCliff() {
    DAK_RETURN_IF_ERROR(CheckTime());
    const uint64_t knee_bytes = result_.profile.knee_bytes;
    DAK_ASSIGN_OR_RETURN(const double beside_full_link,
                         Rate("HBM beside the link", probe_.HbmBytesPerSBeside(knee_bytes)));
    uint64_t cliff_bytes = knee_bytes;
    for (const uint64_t inflight_bytes : kCliffSteps) {
      if (inflight_bytes <= knee_bytes) continue;
      DAK_RETURN_IF_ERROR(CheckTime());
      DAK_ASSIGN_OR_RETURN(const double rate, Rate("HBM beside the link", probe_.HbmBytesPerSBeside(inflight_bytes)));
      options_.log(absl::StrFormat("HBM %.0f GB/s beside %d KiB in flight", rate * 1e-9, inflight_bytes / kKiB));
      if (rate < kCliffShare * beside_full_link) break;
      cliff_bytes = inflight_bytes;
    }
    result_.profile.cliff_bytes = cliff_bytes;
    return absl::OkStatus();
  }

  absl::Status MeasureBatches() {
    std::vector<planner::BatchRate>& rates = result_.profile.batch_rates;
    absl::Status status = CheckTime();
    for (size_t i = 0; i < std::size(kBatches) && status.ok(); ++i) {
      const absl::StatusOr<planner::BatchRate> rate = MeasureBatch(kBatches[i]);
      // Past the kernels' largest batch, or what the probe's memory holds.
      if (rate.status().code() == absl::StatusCode::kInvalidArgument && i > 0) return absl::OkStatus();
      status = rate.ok() ? CheckTime() : rate.status();
      if (!rate.ok()) break;
      rates.push_back(*rate);
      options_.log(absl::StrFormat(
          "batch %d: HBM %.0f GB/s, %.0f TFLOP/s, link %.1f GB/s, %.2f us an operation, %.2f us before remote reads",
          rate->batch, rate->hbm_bytes_per_s * 1e-9, rate->flops_per_s * 1e-12, rate->link_bytes_per_s * 1e-9,
          rate->operation_s * 1e6, rate->remote_s * 1e6));
    }
    // A part would stand for larger batches, too.
    if (!status.ok()) rates.clear();
    return status;
  }

  absl::StatusOr<double> GemmSeconds(uint32_t batch, uint64_t rows, uint64_t remote_rows, uint64_t other_rows = 0) {
    return LeastOf([&](int) { return TakeGemm(batch, rows, remote_rows, other_rows); });
  }

  // Of a few takes, no more of them when two agree, when one is no longer than `enough_s`, or when the time is up.
  template <class Take>
  absl::StatusOr<double> LeastOf(const Take& take, double enough_s = 0) {
    double least_s = std::numeric_limits<double>::infinity();
    for (int i = 0; i < kMostTakes; ++i) {
      DAK_ASSIGN_OR_RETURN(const double seconds, take(i));
      const bool agrees = std::abs(seconds - least_s) <= kAgreement * seconds;
      least_s = std::min(least_s, seconds);
      if (agrees || least_s <= enough_s || !CheckTime().ok()) break;
    }
    return least_s;
  }

  absl::StatusOr<double> TakeGemm(uint32_t batch, uint64_t rows, uint64_t remote_rows, uint64_t other_rows,
                                  double steady_s = 0) {
    const planner::Profile& profile = result_.profile;
    const double delay_bytes = profile.link_bytes_per_s * static_cast<double>(profile.round_trip_ns) * 1e-9;
    return Plausible(absl::StrCat("GEMM of batch ", batch),
                     probe_.GemmSeconds({.batch = batch,
                                         .n = rows,
                                         .k = kColumns,
                                         .remote_rows = remote_rows,
                                         .window_bytes = static_cast<uint64_t>(kWindowInDelays * delay_bytes),
                                         .other_n = other_rows,
                                         .steady_s = steady_s}),
                     1e-7, 1);
  }

  // A line through two sizes in HBM. What is missing to the roofline is charged to the side that bounds: HBM below the
  // ridge, the tensor cores above.
  absl::StatusOr<planner::BatchRate> MeasureBatch(uint32_t batch) {
    DAK_ASSIGN_OR_RETURN(const double few_s, GemmSeconds(batch, kFewRows, 0));
    DAK_ASSIGN_OR_RETURN(const double many_s, GemmSeconds(batch, kManyRows, 0));
    if (many_s <= few_s) {
      return absl::InternalError(absl::StrCat("GEMM of batch ", batch, ": more rows don't take longer"));
    }
    const planner::Profile& profile = result_.profile;
    const double row_s = std::min((many_s - few_s) / (kManyRows - kFewRows), many_s / kManyRows);
    planner::BatchRate rate;
    rate.batch = batch;
    rate.hbm_bytes_per_s = profile.hbm_bytes_per_s;
    rate.flops_per_s = profile.flops_per_s;
    rate.operation_s = std::max(0.0, few_s - row_s * kFewRows);
    Charge(row_s, &rate);
    DAK_RETURN_IF_ERROR(MeasureRemote(few_s, &rate));
    // Operations of a pass follow others, which may run with other kernels: what that costs each.
    DAK_ASSIGN_OR_RETURN(const double in_turn_s, GemmSeconds(batch, kFewRows, 0, kManyRows));
    rate.operation_s += std::max(0.0, in_turn_s - (few_s + many_s) / 2);
    cold_.push_back({.row_s = row_s, .in_turn_s = in_turn_s});
    return rate;
  }

  // What lasting load costs, charged to the side that bounds: for all batches or for none. After all else, which would
  // find the GPU hot.
  absl::Status MeasureSteady() {
    std::vector<planner::BatchRate> rates = result_.profile.batch_rates;
    for (size_t i = 0; i < rates.size(); ++i) {
      planner::BatchRate& rate = rates[i];
      if (rate.batch < kLeastHotBatch) continue;
      const auto [row_s, in_turn_s] = cold_[i];
      DAK_RETURN_IF_ERROR(CheckTime());
      DAK_ASSIGN_OR_RETURN(const double steady_s, SteadySeconds(static_cast<uint32_t>(rate.batch), in_turn_s));
      Charge(row_s + std::max(0.0, steady_s - in_turn_s) / ((kFewRows + kManyRows) / 2.0), &rate);
      options_.log(absl::StrFormat("batch %d under a load that lasts: HBM %.0f GB/s, %.0f TFLOP/s", rate.batch,
                                   rate.hbm_bytes_per_s * 1e-9, rate.flops_per_s * 1e-12));
    }
    result_.profile.batch_rates = std::move(rates);
    return absl::OkStatus();
  }

  // Of both sizes in turn. A take that is as usual is enough.
  absl::StatusOr<double> SteadySeconds(uint32_t batch, double cold_s) {
    const auto take = [&](int i) { return TakeGemm(batch, kFewRows, 0, kManyRows, i == 0 ? kSteadyS : kStillSteadyS); };
    return LeastOf(take, kUsualHeat * cold_s);
  }

  // Makes the side that bounds, by the roofline, such that a row takes so long.
  void Charge(double row_s, planner::BatchRate* rate) const {
    const double flops_per_byte = 2.0 * static_cast<double>(rate->batch) / kElementBytes;
    if (flops_per_byte * result_.profile.hbm_bytes_per_s < result_.profile.flops_per_s) {
      rate->hbm_bytes_per_s = kColumns * kElementBytes / row_s;
    } else {
      rate->flops_per_s = 2.0 * static_cast<double>(rate->batch) * kColumns / row_s;
    }
  }

  // The same for remote rows, both times so many that the link bounds.
  absl::Status MeasureRemote(double local_s, planner::BatchRate* rate) {
    const double link = result_.profile.link_bytes_per_s;
    constexpr double kRowBytes = kColumns * kElementBytes;
    uint64_t rows = kFewRows / 16;
    while (rows < kFewRows / 2 && static_cast<double>(rows) * kRowBytes < kBoundByLink * local_s * link) rows *= 2;
    const uint64_t more_rows = kFewRows / 2 - 64;  // some stay in HBM
    const auto batch = static_cast<uint32_t>(rate->batch);
    DAK_ASSIGN_OR_RETURN(const double few_s, GemmSeconds(batch, kFewRows, rows));
    DAK_ASSIGN_OR_RETURN(const double many_s, GemmSeconds(batch, kFewRows, rows + more_rows));
    if (many_s <= few_s) {
      return absl::InternalError(absl::StrCat("GEMM of batch ", batch, ": more remote rows don't take longer"));
    }
    rate->link_bytes_per_s = std::min(link, static_cast<double>(more_rows) * kRowBytes / (many_s - few_s));
    const double reads_s = static_cast<double>(rows) * kRowBytes / rate->link_bytes_per_s;
    rate->remote_s = std::max(0.0, few_s - rate->operation_s - reads_s);
    return absl::OkStatus();
  }

  kernels::Probe& probe_;
  const MeasureOptions& options_;
  const double begin_s_;
  Measurement result_;
  struct Cold {
    double row_s = 0;
    double in_turn_s = 0;  // of both sizes
  };
  std::vector<Cold> cold_;  // by batch, before the GPU was hot
};

}  // namespace

absl::StatusOr<planner::RemoteTier> MeasurePath(kernels::Probe& probe, const std::string& name,
                                                const MeasureOptions& options) {
  return Measuring(probe, {}, options).RunPath(name);
}

absl::StatusOr<Measurement> MeasureProfile(kernels::Probe& probe, const planner::Profile& otherwise,
                                           const MeasureOptions& options) {
  return Measuring(probe, otherwise, options).Run();
}

}  // namespace dak::daemon

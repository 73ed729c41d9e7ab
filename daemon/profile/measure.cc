#include "daemon/profile/measure.h"

#include <algorithm>
#include <cmath>
#include <utility>

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
    result_.seconds = Elapsed();
    return std::move(result_);
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
    DAK_RETURN_IF_ERROR(CheckTime());
    DAK_ASSIGN_OR_RETURN(const double trip_s,
                         Plausible("round trip", probe_.RoundTripSeconds(), kLeastRoundTripS, kMostRoundTripS));
    profile.round_trip_ns = static_cast<uint64_t>(std::llround(trip_s * 1e9));
    DAK_ASSIGN_OR_RETURN(profile.copy_engine_bytes_per_s, Rate("copy to HBM", probe_.CopyEngineBytesPerS(true)));
    DAK_ASSIGN_OR_RETURN(profile.copy_to_host_bytes_per_s, Rate("copy to host", probe_.CopyEngineBytesPerS(false)));
    options_.log(absl::StrFormat("round trip %.2f us, copy engine %.1f GB/s to HBM, %.1f GB/s to host", trip_s * 1e6,
                                 profile.copy_engine_bytes_per_s * 1e-9, profile.copy_to_host_bytes_per_s * 1e-9));
    DAK_RETURN_IF_ERROR(CheckTime());
    DAK_ASSIGN_OR_RETURN(profile.flops_per_s,
                         Plausible("tensor cores", probe_.FlopsPerS(), kLeastFlopsPerS, kMostFlopsPerS));
    options_.log(absl::StrFormat("tensor cores %.0f TFLOP/s", profile.flops_per_s * 1e-12));
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
    std::vector<planner::BatchRate> rates;
    for (const uint32_t batch : kBatches) {
      DAK_RETURN_IF_ERROR(CheckTime());
      const absl::StatusOr<double> few = probe_.GemmSeconds(batch, kFewRows, kColumns);
      const absl::StatusOr<double> many = probe_.GemmSeconds(batch, kManyRows, kColumns);
      // Past the kernels' largest batch, or what the probe's memory holds.
      const absl::Status& refused = few.ok() ? many.status() : few.status();
      if (refused.code() == absl::StatusCode::kInvalidArgument && !rates.empty()) break;
      DAK_ASSIGN_OR_RETURN(const planner::BatchRate rate, RateOf(batch, few, many));
      options_.log(absl::StrFormat("batch %d: HBM %.0f GB/s, %.0f TFLOP/s, %.2f us an operation", batch,
                                   rate.hbm_bytes_per_s * 1e-9, rate.flops_per_s * 1e-12, rate.operation_s * 1e6));
      rates.push_back(rate);
    }
    result_.profile.batch_rates = std::move(rates);
    return absl::OkStatus();
  }

  // A line through both sizes. What is missing to the roofline is charged to the side that bounds: HBM below the ridge,
  // the tensor cores above.
  absl::StatusOr<planner::BatchRate> RateOf(uint32_t batch, const absl::StatusOr<double>& few,
                                            const absl::StatusOr<double>& many) const {
    const std::string name = absl::StrCat("GEMM of batch ", batch);
    DAK_ASSIGN_OR_RETURN(const double few_s, Plausible(name, few, 1e-7, 1));
    DAK_ASSIGN_OR_RETURN(const double many_s, Plausible(name, many, 1e-7, 1));
    if (many_s <= few_s) return absl::InternalError(absl::StrCat(name, ": more rows don't take longer"));
    const planner::Profile& profile = result_.profile;
    constexpr double kElementBytes = 2;
    const double row_s = std::min((many_s - few_s) / (kManyRows - kFewRows), many_s / kManyRows);
    const double bytes_per_s = kColumns * kElementBytes / row_s;
    const double flops_per_s = 2.0 * batch * kColumns / row_s;
    const double flops_per_byte = 2.0 * batch / kElementBytes;
    planner::BatchRate rate = {.batch = batch,
                               .hbm_bytes_per_s = profile.hbm_bytes_per_s,
                               .flops_per_s = profile.flops_per_s,
                               .operation_s = std::max(0.0, few_s - row_s * kFewRows)};
    if (flops_per_byte * profile.hbm_bytes_per_s < profile.flops_per_s) {
      rate.hbm_bytes_per_s = bytes_per_s;
    } else {
      rate.flops_per_s = flops_per_s;
    }
    return rate;
  }

  kernels::Probe& probe_;
  const MeasureOptions& options_;
  const double begin_s_;
  Measurement result_;
};

}  // namespace

absl::StatusOr<Measurement> MeasureProfile(kernels::Probe& probe, const planner::Profile& otherwise,
                                           const MeasureOptions& options) {
  return Measuring(probe, otherwise, options).Run();
}

}  // namespace dak::daemon

#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "daemon/planner/plan_report.h"
#include "daemon/planner/size_text.h"

namespace dak::planner {
namespace {

std::string LayersText(const OperationGroup& group) {
  if (group.first_layer == kNoLayer) return "-";
  if (group.first_layer == group.last_layer) return absl::StrCat(group.first_layer);
  return absl::StrCat(group.first_layer, "-", group.last_layer);
}

void WriteLimit(const char* name, double rate, std::ostream& out) {
  if (rate > 0) out << absl::StrFormat(", %s %.4g GB/s", name, rate / 1e9);
}

void WriteHead(const PlanQuestion& question, const PlanReport& report, std::ostream& out) {
  const ModelConfig& config = question.config;
  const double billions = static_cast<double>(ParameterCount(config)) / 1e9;
  out << absl::StrFormat("model    %s, %d layers, %.2f billion parameters of %d bytes\n", config.model_type,
                         config.layers, billions, question.shape.weight_element_bytes);
  out << absl::StrFormat("pass     decode, batch %d, context %d tokens\n", question.shape.batch,
                         question.shape.context_tokens);
  out << absl::StrFormat("machine  %s: HBM %.4g GB/s", question.profile_name, question.profile.hbm_bytes_per_s / 1e9);
  WriteLimit("link", question.profile.link_bytes_per_s, out);
  WriteLimit("copy engine", question.profile.copy_engine_bytes_per_s, out);
  out << absl::StrFormat(", %.4g TFLOP/s\n", question.profile.flops_per_s / 1e12);
  out << "memory   " << FormatSize(report.weight_bytes) << " weights + " << FormatSize(report.kv_bytes)
      << " KV cache + " << FormatSize(question.reserve_bytes) << " reserve = " << FormatSize(report.needed_bytes)
      << "\n";
  out << "HBM      " << FormatSize(question.hbm_bytes) << ": ";
  if (report.over_hbm_bytes == 0) {
    out << "everything fits, " << FormatSize(question.hbm_bytes - report.needed_bytes) << " to spare\n";
  } else {
    out << FormatSize(report.over_hbm_bytes) << " too little\n";
  }
}

void WriteGroups(const PlanReport& report, std::ostream& out) {
  out << absl::StrFormat("\n%-10s %-8s %6s %12s %12s %8s %10s\n", "operation", "layers", "count", "bytes", "remote",
                         "ratio", "ms");
  for (const OperationGroup& group : report.groups) {
    const double ratio =
        group.stored_bytes == 0 ? 0 : static_cast<double>(group.remote_bytes) / static_cast<double>(group.stored_bytes);
    out << absl::StrFormat("%-10s %-8s %6d %12s %12s %7.2f%% %10.3f\n", KindName(group.kind), LayersText(group),
                           group.operations, FormatSize(group.stored_bytes), FormatSize(group.remote_bytes),
                           100 * ratio, 1e3 * group.seconds);
  }
}

void WriteTime(const PlanQuestion& question, const char* name, double pass_s, const std::string& note,
               std::ostream& out) {
  out << absl::StrFormat("%-22s %10.3f %10.1f  %s\n", name, 1e3 * pass_s,
                         static_cast<double>(question.shape.batch) / pass_s, note);
}

void WriteTimes(const PlanQuestion& question, const PlanReport& report, std::ostream& out) {
  out << absl::StrFormat("\n%-22s %10s %10s\n", "predicted, same HBM", "ms a token", "tokens/s");
  WriteTime(question, "dak", report.pass_s, absl::StrCat(FormatSize(report.remote_bytes), " remote"), out);
  WriteTime(question, "one ratio for all", report.uniform_s,
            absl::StrFormat("%.2f times dak's", report.uniform_s / report.pass_s), out);
  const PrefetchEstimate& prefetch = report.prefetch;
  if (!prefetch.known) {
    out << absl::StrFormat("%-22s the profile has no copy-engine rate\n", "prefetch");
  } else if (prefetch.shortfall_bytes > 0) {
    out << absl::StrFormat("%-22s doesn't fit: %s too much with every layer on the host and %s of buffers\n",
                           "prefetch", FormatSize(prefetch.shortfall_bytes), FormatSize(prefetch.buffer_bytes));
  } else {
    WriteTime(
        question, "prefetch", prefetch.pass_s,
        absl::StrFormat("%.2f times dak's; %d layers on the host, %s of buffers in HBM",
                        prefetch.pass_s / report.pass_s, prefetch.layers_offloaded, FormatSize(prefetch.buffer_bytes)),
        out);
  }
  WriteTime(question, "all in HBM", report.all_hbm_s, report.over_hbm_bytes == 0 ? "" : "if it fitted", out);
}

}  // namespace

void WriteReportText(const PlanQuestion& question, const PlanReport& report, std::ostream& out) {
  WriteHead(question, report, out);
  if (!report.does_not_fit.empty()) {
    out << "\nDoes not fit: " << report.does_not_fit << ".\n";
    return;
  }
  WriteGroups(report, out);
  WriteTimes(question, report, out);
}

}  // namespace dak::planner

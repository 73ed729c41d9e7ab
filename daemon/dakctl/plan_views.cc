// The machine's profile and a session's plan as text.
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "daemon/dakctl/table.h"
#include "daemon/dakctl/views.h"

namespace dak::dakctl {
namespace {

constexpr uint64_t kNsPerS = 1'000'000'000;

// "measured 2h 13m ago in 1.4 s", "default"
std::string Origin(const v1::Profile& profile) {
  std::string text = Printable(profile.source());
  if (profile.measured_unix_s() == 0) return text;
  absl::StrAppend(&text, profile.source() == "measured" ? " " : ", measured ", Age(profile.age_s() * kNsPerS), " ago");
  if (profile.measuring_s() > 0) absl::StrAppend(&text, " in ", Duration(profile.measuring_s()));
  if (profile.from_cache()) text += ", by an earlier run";
  return text;
}

std::string Teraflops(double flops_per_s) { return absl::StrFormat("%.0f TFLOP/s", flops_per_s * 1e-12); }

// Of a path, the end of its line.
std::string PathText(double bytes_per_s, uint64_t knee_bytes, uint64_t round_trip_ns, const Format& format) {
  std::string text = format.Rate(bytes_per_s);
  if (knee_bytes > 0) absl::StrAppend(&text, ", full with ", format.Bytes(knee_bytes), " in flight");
  if (round_trip_ns > 0) absl::StrAppend(&text, ", round trip ", Duration(static_cast<double>(round_trip_ns) * 1e-9));
  return text + "\n";
}

void AppendLink(const v1::LinkProfile& link, const Format& format, std::string* text) {
  absl::StrAppendFormat(text, "link %-9d", link.link());
  absl::StrAppend(text, PathText(link.bytes_per_s(), link.knee_bytes(), link.round_trip_ns(), format));
  if (!link.tiers().empty()) absl::StrAppend(text, "  reads of    ", TiersText(link.tiers()), "\n");
  for (const v1::TierRate& rate : link.rates()) {
    absl::StrAppendFormat(text, "  %-12s", TierText(rate.tier()));
    absl::StrAppend(text, PathText(rate.bytes_per_s(), rate.knee_bytes(), rate.round_trip_ns(), format));
  }
  absl::StrAppend(text, "  cliff       ", format.Bytes(link.cliff_bytes()), " in flight\n");
}

// A dakd that says nothing of links has one.
std::vector<v1::LinkProfile> LinksOf(const v1::Profile& profile) {
  std::vector<v1::LinkProfile> links(profile.links().begin(), profile.links().end());
  if (!links.empty()) return links;
  v1::LinkProfile& only = links.emplace_back();
  only.set_bytes_per_s(profile.link_bytes_per_s());
  only.set_round_trip_ns(profile.round_trip_ns());
  only.set_knee_bytes(profile.knee_bytes());
  only.set_cliff_bytes(profile.cliff_bytes());
  return links;
}

}  // namespace

std::string ProfileView(const v1::Profile& profile, const Format& format) {
  std::string text = absl::StrCat("source        ", Origin(profile), "\n");
  absl::StrAppend(&text, "HBM           ", format.Rate(profile.hbm_bytes_per_s()), "\n");
  for (const v1::LinkProfile& link : LinksOf(profile)) AppendLink(link, format, &text);
  absl::StrAppend(&text, "copy engine   ", format.Rate(profile.copy_engine_bytes_per_s()), " to HBM");
  if (profile.copy_to_host_bytes_per_s() > 0) {
    absl::StrAppend(&text, ", ", format.Rate(profile.copy_to_host_bytes_per_s()), " to the host");
  }
  absl::StrAppend(&text, "\ntensor cores  ", Teraflops(profile.flops_per_s()), "\n");
  if (profile.batch_rates().empty()) return text;
  Table table;
  table.Column("BATCH", Table::Align::kRight).Column("HBM", Table::Align::kRight);
  table.Column("PRODUCTS", Table::Align::kRight).Column("LINK", Table::Align::kRight);
  table.Column("AN OPERATION", Table::Align::kRight).Column("REMOTE READS", Table::Align::kRight);
  for (const v1::BatchRate& rate : profile.batch_rates()) {
    table.Row({absl::StrCat(rate.batch()), format.Rate(rate.hbm_bytes_per_s()), Teraflops(rate.flops_per_s()),
               format.Rate(rate.link_bytes_per_s() > 0 ? rate.link_bytes_per_s() : profile.link_bytes_per_s()),
               Duration(rate.operation_s()), Duration(rate.remote_s())});
  }
  return text + "\n" + table.Render();
}

std::string PlanView(const v1::Plan& plan, const Format& format) {
  std::string text =
      absl::StrCat("session ", plan.session_id(), ", plan v", plan.version(), ": ", format.Bytes(plan.remote_bytes()),
                   " remote, ", format.Bytes(plan.moved_bytes()), " moved since the version before\n");
  absl::StrAppend(&text, "a pass takes ", Duration(plan.predicted_s()), " (further steps may bring ",
                  Duration(plan.target_s()), "; one ratio for all ", Duration(plan.uniform_s()), "; all in HBM ",
                  Duration(plan.all_hbm_s()), ")\n");
  Table table;
  table.Column("OPERATION").Column("REMOTE", Table::Align::kRight).Column("ROWS", Table::Align::kRight);
  table.Column("TIER").Column("TIME", Table::Align::kRight);
  for (const v1::OperationPlan& operation : plan.operations()) {
    const bool remote = operation.offload_ratio() > 0;
    table.Row({operation.name(), Percent(operation.offload_ratio(), 1),
               operation.remote_rows() > 0 ? absl::StrCat(operation.remote_rows()) : "-",
               remote ? operation.remote_tier() : "-", Duration(operation.predicted_s())});
  }
  return text + table.Render();
}

}  // namespace dak::dakctl

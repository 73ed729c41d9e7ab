#include "kernels/gemm_tuning.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <system_error>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"

namespace dak::kernels {
namespace {

constexpr size_t kValues = 11;
constexpr uint64_t kMaxExtent = std::numeric_limits<int32_t>::max();  // as CheckGemm's
constexpr uint64_t kLeastBatchTile = 8;
constexpr uint64_t kMaxInflightBoxes = 64;
constexpr char kHeader[] =
    "# element,batch_tile,n,k,local_rows,row_boxes,local_inflight_boxes,promote_local,remote_ctas,cluster,device\n";

// The values of one line, and where they stand, for errors.
class Line {
 public:
  Line(size_t number, absl::string_view text)
      : number_(number), values_(absl::StrSplit(text, absl::MaxSplits(',', kValues - 1))) {}

  size_t size() const { return values_.size(); }
  absl::string_view operator[](size_t i) const { return values_[i]; }
  std::string Field(absl::string_view name) const { return absl::StrCat("line ", number_, ": ", name); }

  absl::StatusOr<uint64_t> Number(size_t i, absl::string_view name, uint64_t least, uint64_t most) const {
    uint64_t value = 0;
    if (!absl::SimpleAtoi(values_[i], &value)) {
      return InvalidField(Field(name), absl::StrCat("'", values_[i], "' is no number"),
                          absl::StrCat(least, " to ", most), "MALFORMED");
    }
    if (value >= least && value <= most) return value;
    return InvalidField(Field(name), absl::StrCat(value, " is out of range"), absl::StrCat(least, " to ", most));
  }

 private:
  size_t number_;
  std::vector<std::string> values_;
};

absl::Status ParseKey(const Line& line, TuningKey& key) {
  if (line[0] != "bf16" && line[0] != "f16") {
    return InvalidField(line.Field("element"), absl::StrCat("'", line[0], "' is unknown"), "bf16 or f16");
  }
  key.f16 = line[0] == "f16";
  DAK_ASSIGN_OR_RETURN(const uint64_t tile, line.Number(1, "batch_tile", kLeastBatchTile, kMaxBatch));
  if (!std::has_single_bit(tile)) {
    return InvalidField(line.Field("batch_tile"), absl::StrCat(tile, " is unsupported"), "a power of two");
  }
  key.batch_tile = static_cast<uint32_t>(tile);
  DAK_ASSIGN_OR_RETURN(key.n, line.Number(2, "n", 1, kMaxExtent));
  DAK_ASSIGN_OR_RETURN(key.k, line.Number(3, "k", 1, kMaxExtent));
  DAK_ASSIGN_OR_RETURN(key.local_rows, line.Number(4, "local_rows", 0, key.n));
  key.device = std::string(line[10]);
  if (!key.device.empty()) return absl::OkStatus();
  return InvalidField(line.Field("device"), "is missing", "a device's name", "MISSING");
}

absl::Status ParseChoice(const Line& line, uint32_t batch_tile, TuningChoice& choice) {
  const bool is_wide = batch_tile >= kLeastClusteredTile;
  DAK_ASSIGN_OR_RETURN(const uint64_t boxes, line.Number(5, "row_boxes", 1, batch_tile <= kMostTwoBoxTile ? 2 : 1));
  DAK_ASSIGN_OR_RETURN(const uint64_t inflight, line.Number(6, "local_inflight_boxes", boxes, kMaxInflightBoxes));
  DAK_ASSIGN_OR_RETURN(const uint64_t promote, line.Number(7, "promote_local", 0, 1));
  DAK_ASSIGN_OR_RETURN(const uint64_t remote_ctas, line.Number(8, "remote_ctas", 0, kMaxRemoteCtas));
  DAK_ASSIGN_OR_RETURN(const uint64_t cluster, line.Number(9, "cluster", 1, is_wide && boxes == 1 ? kClusterCtas : 1));
  if (cluster != 1 && cluster != kClusterCtas) {
    return InvalidField(line.Field("cluster"), absl::StrCat(cluster, " is unsupported"),
                        absl::StrCat("1 or ", kClusterCtas));
  }
  choice = {static_cast<uint32_t>(boxes), static_cast<uint32_t>(inflight), promote == 1,
            static_cast<uint32_t>(remote_ctas), static_cast<uint32_t>(cluster)};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GemmTuning> GemmTuning::Parse(absl::string_view text) {
  GemmTuning tuning;
  size_t number = 0;
  for (const absl::string_view raw : absl::StrSplit(text, '\n')) {
    ++number;
    const absl::string_view stripped = absl::StripAsciiWhitespace(raw.substr(0, raw.find('#')));
    if (stripped.empty()) continue;
    const Line line(number, stripped);
    if (line.size() != kValues) {
      return InvalidField(absl::StrCat("line ", number), absl::StrCat("has ", line.size(), " values"),
                          absl::StrCat(kValues, " values with commas between them"), "MALFORMED");
    }
    TuningKey key;
    TuningChoice choice;
    DAK_RETURN_IF_ERROR(ParseKey(line, key));
    DAK_RETURN_IF_ERROR(ParseChoice(line, key.batch_tile, choice));
    if (!tuning.choices_.emplace(key, choice).second) {
      return InvalidField(absl::StrCat("line ", number), "has a shape that a line before it has", "one line a shape",
                          "DUPLICATE");
    }
  }
  return tuning;
}

absl::StatusOr<GemmTuning> GemmTuning::Load(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": can't be read"));
  std::ostringstream text;
  text << file.rdbuf();
  absl::StatusOr<GemmTuning> tuning = Parse(text.str());
  if (tuning.ok()) return tuning;
  return WithDetail(absl::Status(tuning.status().code(), absl::StrCat(path, ": ", tuning.status().message())),
                    DetailOf(tuning.status()));
}

absl::Status GemmTuning::Store(const std::string& path) const {
  const std::string written = path + ".new";
  std::ofstream file(written);
  file << ToText();
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(written, path, error);
  if (file && !error) return absl::OkStatus();
  std::remove(written.c_str());
  return absl::UnavailableError(absl::StrCat(path, ": can't be written"));
}

std::string GemmTuning::ToText() const {
  std::string text = kHeader;
  for (const auto& [key, choice] : choices_) {
    absl::StrAppend(&text, key.f16 ? "f16," : "bf16,", key.batch_tile, ",", key.n, ",", key.k, ",", key.local_rows,
                    ",");
    absl::StrAppend(&text, choice.row_boxes, ",", choice.local_inflight_boxes, ",", choice.promote_local ? 1 : 0, ",",
                    choice.remote_ctas, ",", choice.cluster, ",", key.device, "\n");
  }
  return text;
}

const TuningChoice* GemmTuning::Find(const TuningKey& key) const {
  const auto found = choices_.find(key);
  return found == choices_.end() ? nullptr : &found->second;
}

void GemmTuning::KeepOnly(absl::string_view device) {
  std::erase_if(choices_, [&](const auto& entry) { return entry.first.device != device; });
}

GemmPlan ApplyChoice(const TuningChoice& choice, uint64_t n, uint64_t k, uint64_t local_rows,
                     const DeviceTraits& device, const LinkTraits& link, GemmPlan plan) {
  plan.row_boxes = plan.batch_tile <= kMostTwoBoxTile ? choice.row_boxes : 1;
  plan.cluster = plan.row_boxes == 1 ? choice.cluster : 1;
  PlanCtas(n, k, local_rows, device, link, plan);
  plan.local_inflight_boxes = choice.local_inflight_boxes;
  plan.promote_local = choice.promote_local;
  if (choice.remote_ctas == 0 || plan.remote_ctas == 0) return plan;
  // Of the SMs that the model uses, those that remote CTAs leave are the local ones'.
  const bool has_local = plan.local_ctas > 0;
  const uint32_t used = plan.remote_ctas + plan.local_ctas;
  const uint32_t all = std::max(device.CtasIn(plan.cluster), plan.cluster * (has_local ? 2 : 1));
  const uint64_t most = all - (has_local ? plan.cluster : 0);
  const uint64_t wanted = std::min(
      {uint64_t{choice.remote_ctas}, CutRemote(plan.batch_tile, n - local_rows, k, plan.most_units).count, most});
  if (wanted < plan.cluster) return plan;
  plan.remote_ctas = static_cast<uint32_t>(wanted / plan.cluster * plan.cluster);
  if (!has_local) return plan;
  // Whole tiles leave SMs for them, mostly.
  const uint32_t left =
      plan.whole_tiles ? std::min(plan.local_ctas, all - plan.remote_ctas) : used - std::min(used, plan.remote_ctas);
  const uint64_t workers = std::min<uint64_t>(left / plan.cluster, LocalChunks(local_rows, k, plan));
  plan.local_ctas = static_cast<uint32_t>(std::max<uint64_t>(1, workers)) * plan.cluster;
  plan.halves = CanHalve(local_rows, k, plan);
  return plan;
}

}  // namespace dak::kernels

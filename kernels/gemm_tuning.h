// Choices for the decode GEMM that were measured to beat the model's, by device and shape, kept in a text file.
//
// The file has a line for each shape, eleven values with commas between them, in this order:
//   element       bf16 or f16
//   batch_tile    8, 16, 32, 64, 128 or 256: the smallest that holds the batch
//   n, k, local_rows
//   row_boxes     as in GemmPlan: 1, or up to batch_tile 128 also 2
//   local_inflight_boxes, promote_local (0 or 1)  as in GemmPlan
//   remote_ctas   as in GemmPlan; 0: as many as the model says
//   cluster       as in GemmPlan: 1, or from batch_tile 128 on, where row_boxes is 1, also 4
//   device        the name that CUDA gives it
// `#` starts a comment. `dak-bench gemm --tune --tuning FILE` measures and writes; GemmRunnerOptions::tuning_path
// reads.
//
// Thread safety: as a standard container's. Errors: INVALID_ARGUMENT names line and value; NOT_FOUND and UNAVAILABLE
// name the file that can't be read or written.
#ifndef DAK_KERNELS_GEMM_TUNING_H_
#define DAK_KERNELS_GEMM_TUNING_H_

#include <compare>
#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/gemm_plan.h"

namespace dak::kernels {

struct TuningKey {
  std::string device;
  bool f16 = false;  // else bf16
  uint32_t batch_tile = 0;
  uint64_t n = 0;
  uint64_t k = 0;
  uint64_t local_rows = 0;
  auto operator<=>(const TuningKey&) const = default;
};

struct TuningChoice {
  uint32_t row_boxes = 0;
  uint32_t local_inflight_boxes = 0;
  bool promote_local = false;
  uint32_t remote_ctas = 0;
  uint32_t cluster = 1;
  bool operator==(const TuningChoice&) const = default;
};

class GemmTuning {
 public:
  static absl::StatusOr<GemmTuning> Parse(absl::string_view text);
  static absl::StatusOr<GemmTuning> Load(const std::string& path);
  // Replaces the file, or leaves it as it was.
  absl::Status Store(const std::string& path) const;
  std::string ToText() const;

  // Null if nothing was measured for it.
  const TuningChoice* Find(const TuningKey& key) const;
  void Set(const TuningKey& key, const TuningChoice& choice) { choices_[key] = choice; }
  bool empty() const { return choices_.empty(); }
  // Forgets other devices' choices.
  void KeepOnly(absl::string_view device);

 private:
  std::map<TuningKey, TuningChoice> choices_;
};

// `plan`, which the model made, with `choice` instead of what it chose.
GemmPlan ApplyChoice(const TuningChoice& choice, uint64_t n, uint64_t k, uint64_t local_rows,
                     const DeviceTraits& device, const LinkTraits& link, GemmPlan plan);

}  // namespace dak::kernels

#endif  // DAK_KERNELS_GEMM_TUNING_H_

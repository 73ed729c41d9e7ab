// The prefill kernel with plans that the model didn't choose, for `dak-bench prefill --tune`.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_PREFILL_TUNE_H_
#define DAK_TESTS_BENCH_DAK_BENCH_PREFILL_TUNE_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/prefill_launch.h"
#include "tests/bench/dak_bench/operation.h"

namespace dak::bench {

class PrefillTuner {
 public:
  explicit PrefillTuner(uint64_t window_bytes);
  ~PrefillTuner();
  PrefillTuner(const PrefillTuner&) = delete;
  PrefillTuner& operator=(const PrefillTuner&) = delete;

  struct Variant {
    std::string name;
    kernels::PrefillPlan plan;
  };
  // Both tiles, more and fewer fetchers, x kept in L2 (k) or not.
  std::vector<Variant> Variants(const Operation& operation) const;
  void Launch(const Operation& operation, const kernels::PrefillPlan& plan, cudaStream_t stream) const;

 private:
  kernels::DeviceTraits device_;
  kernels::PrefillWorkspace workspace_;
  v1::LinkControl* control_ = nullptr;
};

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_PREFILL_TUNE_H_

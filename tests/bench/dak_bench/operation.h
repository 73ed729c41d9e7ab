// What every sub-command works with: memory full of random elements, the ceilings of this run, dak's GEMM.
#ifndef DAK_TESTS_BENCH_DAK_BENCH_OPERATION_H_
#define DAK_TESTS_BENCH_DAK_BENCH_OPERATION_H_

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dak/v1/control_page.h"
#include "kernels/gemm_launch.h"
#include "kernels/gemm_tuning.h"
#include "tests/bench/dak_bench/cublas.h"
#include "tests/bench/dak_bench/options.h"
#include "tests/bench/dak_bench/report_file.h"

namespace dak::bench {

inline constexpr uint64_t kElementBytes = 2;
inline constexpr uint64_t kUnlimitedWindow = uint64_t{1} << 40;
inline constexpr double kMaxRelativeError = 6e-3;  // bf16's rounding of y, and the inputs' own is none

// One GEMM. `w_local` [local_rows, k] in HBM, `w_remote` [n - local_rows, k] on the host.
struct Operation {
  uint64_t batch = 0;
  uint64_t n = 0;
  uint64_t k = 0;
  uint64_t local_rows = 0;
  bool f16 = false;
  const void* x = nullptr;
  const void* w_local = nullptr;
  const void* w_remote = nullptr;
  void* y = nullptr;

  uint64_t local_bytes() const { return local_rows * k * kElementBytes; }
  uint64_t remote_bytes() const { return (n - local_rows) * k * kElementBytes; }
  uint64_t bytes() const { return n * k * kElementBytes; }
};

// Where a launch finds control and report page: nowhere, so that it knows of no window and reports nothing; on the
// host, as sessions have them; in HBM, where reading and writing them costs next to nothing; or one here, one there.
enum class Pages { kNone, kHost, kHbm, kControlOnHost, kReportOnHost };

// dak's kernel with a window and a report page.
class DakGemm {
 public:
  DakGemm();
  ~DakGemm();
  // With `plan`, instead of the one that the model chooses.
  void Launch(const Operation& operation, cudaStream_t stream,
              const std::optional<kernels::GemmPlan>& plan = std::nullopt);
  kernels::GemmPlan Plan(const Operation& operation) const;
  // With `choice` instead of the model's.
  kernels::GemmPlan Plan(const Operation& operation, const kernels::TuningChoice& choice) const;
  // With so many units a remote tile at most.
  kernels::GemmPlan PlanWithUnits(const Operation& operation, uint32_t most_units) const;
  // Local CTAs on all SMs, however unevenly tiles are divided then.
  kernels::GemmPlan PlanWithAllSms(const Operation& operation) const;
  void SetWindow(uint64_t bytes);  // of both control pages; nothing may be running
  v1::LinkReport report() const { return *report_; }
  // False: launches don't overlap the ones before them.
  void SetOverlap(bool overlap) { overlap_ = overlap; }
  // Options::handover, for launches without a plan of their own.
  void SetHandover(uint32_t handover) { handover_ = handover; }
  void SetPages(Pages pages) { where_ = pages; }

 private:
  kernels::DeviceTraits traits_;
  kernels::DecodeWorkspace workspace_;
  uint8_t* pages_ = nullptr;
  uint8_t* hbm_pages_ = nullptr;
  v1::LinkControl* control_ = nullptr;
  v1::LinkReport* report_ = nullptr;
  uint32_t handover_ = kPlannedHandover;
  bool overlap_ = true;
  Pages where_ = Pages::kHost;
};

// Rates of this device, measured before anything else.
struct Ceilings {
  double hbm_bytes_per_s = 0;          // the better of plain loads and bulk copies
  double link_bytes_per_s = 0;         // SMs reading host memory, likewise
  double copy_engine_bytes_per_s = 0;  // host to HBM
  double flops_per_s = 0;              // cuBLAS, 8192^3; 0 without cuBLAS
};

class Context {
 public:
  // Allocates and fills the memory, measures the ceilings and prints them.
  Context(uint64_t hbm_bytes, uint64_t host_bytes, bool f16);

  // Measures the link's ceiling again, shortly: on some machines it drifts while a bench runs.
  void RefreshLink();
  // Host memory for `size` more bytes of weights, from the arena's start again where it ends: what is read from the
  // host isn't kept in L2, so it costs the same wherever it lies. `used` is the caller's, 0 at first.
  uint8_t* TakeHost(uint64_t& used, uint64_t size) const;
  // The time that no implementation is under.
  double Limit(double local_bytes, double link_bytes, double flops) const;

  cudaStream_t stream = nullptr;
  std::unique_ptr<Cublas> cublas;  // may be null
  bool f16 = false;
  uint8_t* hbm = nullptr;
  uint64_t hbm_bytes = 0;
  uint8_t* host = nullptr;
  uint64_t host_bytes = 0;
  void* x = nullptr;  // kActivations elements
  void* y = nullptr;
  Ceilings ceilings;
  DakGemm dak;
  std::string device_name;
  ReportFile report;
  const std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();

  static constexpr uint64_t kActivations = uint64_t{256} * 65'536;
};

// Ends the program if y's first row, poisoned before, isn't x w^T: of both parts, one at a time.
void CheckSplitNumbers(Context& context, DakGemm& dak, const Operation& operation,
                       const std::optional<kernels::GemmPlan>& plan = std::nullopt);

// The sub-commands. Each ends the program with a message if a number is wrong, and has its tables in `context.report`.
void RunAttention(Context& context, const Options& options);
void RunGemm(Context& context, const Options& options);
void RunLink(Context& context, const Options& options);
void RunMix(Context& context, const Options& options);
void RunPass(Context& context, const Options& options);
void RunPredict(Context& context, const Options& options);
void RunGreedy(Context& context, const Options& options);
void RunLaunch(Context& context);
void RunControl(Context& context);
void RunMulticast(Context& context);
void RunPrefill(Context& context, const Options& options);

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_DAK_BENCH_OPERATION_H_

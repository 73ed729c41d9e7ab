// A probe of a machine that is made up, each of whose measurements can be made to fail or to lie.
#ifndef DAK_TESTS_UNIT_DAEMON_FAKE_PROBE_H_
#define DAK_TESTS_UNIT_DAEMON_FAKE_PROBE_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "kernels/probe.h"

namespace dak::daemon {

// The machine. Lives longer than its probes.
struct FakeMachine {
  double hbm_bytes_per_s = 3e12;
  double link_bytes_per_s = 50e9;
  double round_trip_s = 2e-6;
  double copy_to_hbm_bytes_per_s = 55e9;
  double copy_to_host_bytes_per_s = 54e9;
  double flops_per_s = 800e12;
  uint64_t cliff_bytes = uint64_t{3} << 19;  // 1.5 MiB: the last step at which HBM keeps its rate
  double switch_s = 0;                       // an operation takes so much longer between others of another size
  double hot = 1;                            // so many times as long under a load that lasts, from hot_batch on
  uint32_t hot_batch = 128;
  uint32_t steady_fails_from = ~0u;  // batch from which such measurements fail
  double operation_s = 2e-6;
  double remote_s = 5e-6;
  uint32_t most_batch = 256;

  std::map<std::string, absl::Status> faults;  // by method's name
  std::map<std::string, double> lies;          // what it returns instead
  int disturbed_one_in = 0;                    // of so many GEMMs one takes longer, as something else ran; 0: none
  double disturbed_times = 0;                  // so many times as long; 0: 1.1 for each of so many
  double seconds_a_call = 0;                   // that `now_s` moves on
  double now_s = 0;
  int calls = 0;
  int gemms = 0;
  int probes_alive = 0;
};

class FakeProbe final : public kernels::Probe {
 public:
  explicit FakeProbe(FakeMachine* machine) : machine_(*machine) { ++machine_.probes_alive; }
  ~FakeProbe() override { --machine_.probes_alive; }

  absl::StatusOr<double> HbmBytesPerS() override { return Answer("HbmBytesPerS", machine_.hbm_bytes_per_s); }
  absl::StatusOr<double> LinkBytesPerS(uint64_t inflight_bytes) override {
    const double by_latency = static_cast<double>(inflight_bytes) / machine_.round_trip_s;
    return Answer("LinkBytesPerS", std::min(machine_.link_bytes_per_s, by_latency));
  }
  absl::StatusOr<double> HbmBytesPerSBeside(uint64_t inflight_bytes) override {
    return Answer("HbmBytesPerSBeside", machine_.hbm_bytes_per_s * (inflight_bytes <= machine_.cliff_bytes ? 1 : 0.3));
  }
  absl::StatusOr<double> RoundTripSeconds() override { return Answer("RoundTripSeconds", machine_.round_trip_s); }
  absl::StatusOr<double> CopyEngineBytesPerS(bool to_hbm) override {
    return to_hbm ? Answer("CopyToHbm", machine_.copy_to_hbm_bytes_per_s)
                  : Answer("CopyToHost", machine_.copy_to_host_bytes_per_s);
  }
  absl::StatusOr<double> FlopsPerS() override { return Answer("FlopsPerS", machine_.flops_per_s); }
  absl::StatusOr<double> GemmSeconds(const kernels::ProbeGemm& gemm) override {
    if (gemm.batch > machine_.most_batch) return absl::InvalidArgumentError("batch");
    if (gemm.other_n > 0) {
      const double in_turn_s = (Seconds(gemm, gemm.n) + Seconds(gemm, gemm.other_n)) / 2 + machine_.switch_s;
      if (gemm.steady_s == 0) return Answer("GemmSeconds", in_turn_s);
      if (gemm.batch >= machine_.steady_fails_from) return absl::InternalError("too hot");
      return Answer("SteadyGemmSeconds", gemm.batch >= machine_.hot_batch ? machine_.hot * in_turn_s : in_turn_s);
    }
    return Answer(gemm.remote_rows == 0 ? "GemmSeconds" : "RemoteGemmSeconds", Seconds(gemm, gemm.n));
  }

 private:
  double Seconds(const kernels::ProbeGemm& gemm, uint64_t n) const {
    const double local_bytes = static_cast<double>((n - gemm.remote_rows) * gemm.k * 2);
    const double flops = static_cast<double>(2 * gemm.batch * n * gemm.k);
    double seconds = std::max(local_bytes / (0.9 * machine_.hbm_bytes_per_s), flops / (0.95 * machine_.flops_per_s));
    if (gemm.remote_rows > 0) {
      const double remote_bytes = static_cast<double>(gemm.remote_rows * gemm.k * 2);
      seconds = std::max(seconds, machine_.remote_s + remote_bytes / (0.8 * machine_.link_bytes_per_s));
    }
    return machine_.operation_s + seconds;
  }
  absl::StatusOr<double> Answer(const std::string& method, double value) {
    ++machine_.calls;
    machine_.now_s += machine_.seconds_a_call;
    if (auto fault = machine_.faults.find(method); fault != machine_.faults.end()) return fault->second;
    if (auto lie = machine_.lies.find(method); lie != machine_.lies.end()) return lie->second;
    const bool is_gemm = method.ends_with("GemmSeconds");
    if (is_gemm && machine_.disturbed_one_in > 0 && ++machine_.gemms % machine_.disturbed_one_in == 0) {
      return (machine_.disturbed_times > 0 ? machine_.disturbed_times : 1.1 * machine_.disturbed_one_in) * value;
    }
    return value;
  }

  FakeMachine& machine_;
};

}  // namespace dak::daemon

#endif  // DAK_TESTS_UNIT_DAEMON_FAKE_PROBE_H_

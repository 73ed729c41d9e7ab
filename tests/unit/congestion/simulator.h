// A link, its sessions and a Controller in virtual time: what the controller's laws lead to, without a GPU or a clock.
//
// The link is a fluid: with b bytes in flight it serves min(b / round_trip, bandwidth), shared in proportion to each
// reader's bytes in flight, at a round trip of max(round_trip, b / bandwidth); past the cliff HBM's rate falls with
// 1 / (b / cliff)^2. Sessions fill their windows with whole tiles, as kernels do, and report what kernels report. Time
// advances in steps of 100 us; a window takes effect one step after it was set. Ticks are at multiples of the interval,
// as often as the controller wants them. Runs are deterministic.
#ifndef DAK_TESTS_UNIT_CONGESTION_SIMULATOR_H_
#define DAK_TESTS_UNIT_CONGESTION_SIMULATOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <vector>

#include "daemon/congestion/controller.h"

namespace dak::congestion {

struct SimulatedLink {
  double bandwidth_bytes_per_s = 51.1e9;
  double round_trip_ns = 1'800;
  double cliff_bytes = 1'000'000;
  double foreign_bytes = 0;  // in flight by traffic that isn't dak's
  // Share of the bandwidth that comes and goes, anew every 2 ms, with what others do on the host.
  double unsteady_share = 0;
  // Without MPS: sessions have the GPU in turn, for this long each; 0: all at once. Who waits reads nothing, and its
  // report stands still.
  uint64_t turn_ns = 0;
  // Whether the round trips that end in a later turn are in the reports.
  bool reports_waits = false;
};

struct SimulatedSession {
  uint32_t weight = 100;
  // Bytes in flight given a window, now in ns. The default fills the window with whole tiles.
  std::function<double(double window_bytes, uint64_t now_ns)> inflight_bytes;
  // Changes the report on its way to the controller: how a session lies.
  std::function<void(SessionReport&)> lie;

  SimulatedSession& Weight(uint32_t value) { return weight = value, *this; }
  SimulatedSession& Inflight(std::function<double(double, uint64_t)> f) { return inflight_bytes = std::move(f), *this; }
  SimulatedSession& Lie(std::function<void(SessionReport&)> f) { return lie = std::move(f), *this; }
};

// One stretch of time, as it really was.
struct Observed {
  double seconds = 0;
  double link_use = 0;  // bytes carried over what the link could carry, foreign and background bytes included
  double most_inflight_bytes = 0;
  double most_window_bytes = 0;  // the sum of windows, at its highest
  double mean_round_trip_ns = 0;
  double least_hbm_share = 1;  // of HBM's own rate
  double background_bytes_per_s = 0;
  int ticks = 0;
  std::map<uint64_t, double> bytes_per_s;  // by session
  std::map<uint64_t, int> violations;      // ticks in which the controller called it violating

  double Rate(uint64_t id) const { return bytes_per_s.count(id) == 0 ? 0 : bytes_per_s.at(id); }
  double Sum() const;
  // Jain's index of the sessions' rates: 1 if all are equal, 1/n if one has all.
  double Fairness() const;
  // The largest relative distance of a session's rate from its weight's share of all sessions' rates.
  double WorstShareError(const std::map<uint64_t, uint32_t>& weights) const;
};

class Simulator {
 public:
  explicit Simulator(LinkProfile profile = {}, SimulatedLink link = {}, Parameters parameters = {});

  // Adds a session to link and controller now.
  void Join(uint64_t id, SimulatedSession session = {});
  void Leave(uint64_t id);
  void SetWeight(uint64_t id, uint32_t weight);
  void SetBackground(bool wants);

  // Runs on and says what happened meanwhile.
  Observed Run(double milliseconds);
  // No ticks for this long, while sessions go on.
  Observed Stall(double milliseconds);
  // What the controller's clock shows differs from real time by this much from here on.
  void JumpClock(int64_t ns) { clock_offset_ns_ += ns; }
  // Round trips and rates as reported vary by up to this share.
  void SetNoise(double share) { noise_ = share; }

  Controller& controller() { return controller_; }
  SimulatedLink& link() { return link_; }
  SimulatedSession& session(uint64_t id) { return readers_.at(id).session; }
  std::map<uint64_t, uint32_t> Weights() const;
  uint64_t now_ns() const { return now_ns_; }
  uint64_t ControllerNow() const { return now_ns_ + static_cast<uint64_t>(clock_offset_ns_); }

 private:
  struct Reader {
    SimulatedSession session;
    double window_bytes = 0;
    bool has_turn = true;
    double bytes = 0, round_trip_ns = 0, round_trips = 0, inflight_bytes = 0, peak_bytes = 0;
  };
  void Step(Observed& observed);
  // By number among those that are there: whether its turn is now, and whether it began in this step.
  bool HasTurn(size_t i) const;
  bool BeginsTurn() const;
  void Tick(Observed& observed);
  Observed RunFor(double milliseconds, bool ticks);
  double Random();  // 0 to 1
  double Noise();

  Controller controller_;
  Parameters parameters_;
  SimulatedLink link_;
  std::map<uint64_t, Reader> readers_;
  double background_window_bytes_ = 0;
  uint64_t now_ns_ = 1'000'000'000;
  uint64_t last_tick_ns_ = 0;
  int64_t clock_offset_ns_ = 0;
  double noise_ = 0;
  double bandwidth_share_ = 1;
  std::mt19937_64 random_{4};
};

}  // namespace dak::congestion

#endif  // DAK_TESTS_UNIT_CONGESTION_SIMULATOR_H_

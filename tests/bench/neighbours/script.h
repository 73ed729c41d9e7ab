// The course of an experiment: who works from when to when, and what each state of it came to.
//
// A Script starts and stops players on a stage and notes the states in between; afterwards it has their series, and
// what the controller said meanwhile. Thread safety: none. Errors: the stage's.
#ifndef DAK_TESTS_BENCH_NEIGHBOURS_SCRIPT_H_
#define DAK_TESTS_BENCH_NEIGHBOURS_SCRIPT_H_

#include <memory>
#include <string>
#include <vector>

#include "tests/bench/neighbours/stage.h"

namespace dak::bench {

// From one event to the next.
struct State {
  std::string name;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
  std::vector<size_t> working;  // players, by number
};

// What the controller said in a state, on average.
struct Observed {
  double target_bytes = 0;
  double round_trip_ns = 0;      // of those that read
  double violations = 0;         // looks at a session that was violating
  double loop_core_percent = 0;  // of one core, for dakd's congestion loop
};

class Script {
 public:
  Script(Stage& stage, std::string name, const std::vector<Part>& parts);

  // Lets player `i` work or rest from now on; `state` is what follows.
  void Start(size_t i, const std::string& state);
  void Stop(size_t i, const std::string& state);
  // Two events at once.
  void Switch(size_t stop, size_t start, const std::string& state);
  // Nobody works until the next Start; that time belongs to no state.
  void Rest();
  void Hold(double seconds, bool ask = true);  // Stage::Hold
  // Ends everybody, and takes what they read.
  void Finish();

  const std::string& name() const { return name_; }
  const std::vector<State>& states() const { return states_; }
  const std::vector<std::unique_ptr<Player>>& players() const { return players_; }
  // Of a state without its first `settle_ns`.
  Observed Average(const State& state, int64_t settle_ns) const;
  // Rates and windows every 10 ms, events, and what the controller said.
  std::string ToJson() const;

 private:
  void Enter(const std::string& state, int64_t begin_ns);
  void Leave();

  Stage& stage_;
  const std::string name_;
  std::vector<std::unique_ptr<Player>> players_;
  std::vector<bool> working_;
  bool resting_ = false;
  std::vector<State> states_;
  std::vector<Observation> observations_;
};

}  // namespace dak::bench

#endif  // DAK_TESTS_BENCH_NEIGHBOURS_SCRIPT_H_

#include "tests/bench/neighbours/script.h"

#include <cstdio>

#include "tests/bench/neighbours/load.h"

namespace dak::bench {
namespace {

constexpr int64_t kPlotStepNs = 10'000'000;

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", value);
  return text;
}

double Ms(int64_t time_ns, int64_t origin_ns) { return static_cast<double>(time_ns - origin_ns) * 1e-6; }

// "[1, 2, 3]" of what `value` makes of the elements.
template <typename Elements, typename Value>
std::string List(const Elements& elements, const Value& value) {
  std::string text = "[";
  for (const auto& element : elements) text += (text.size() > 1 ? ", " : "") + value(element);
  return text + "]";
}

std::string SeriesJson(const Player& player, int64_t begin_ns, int64_t end_ns) {
  std::vector<int64_t> times;
  for (int64_t at = begin_ns; at + kPlotStepNs <= end_ns; at += kPlotStepNs) times.push_back(at);
  const Series& series = player.series;
  return "{\"name\": \"" + player.part.name + "\", \"role\": \"" + player.part.role +
         "\", \"weight\": " + std::to_string(player.part.weight) + ",\n    \"gbps\": " +
         List(times, [&](int64_t at) { return Number(series.Rate(at, at + kPlotStepNs) * 1e-9); }) +
         ",\n    \"window_kib\": " +
         List(times, [&](int64_t at) { return Number(series.MeanWindow(at, at + kPlotStepNs) / 1024); }) + "}";
}

}  // namespace

Script::Script(Stage& stage, std::string name, const std::vector<Part>& parts)
    : stage_(stage), name_(std::move(name)), players_(stage.Cast(parts)), working_(parts.size()) {
  stage_.Forget();
}

void Script::Enter(const std::string& state, int64_t begin_ns) {
  State entered{.name = state, .begin_ns = begin_ns, .end_ns = begin_ns, .working = {}};
  for (size_t i = 0; i < working_.size(); ++i) {
    if (working_[i]) entered.working.push_back(i);
  }
  states_.push_back(std::move(entered));
}

void Script::Leave() {
  if (!states_.empty() && !resting_) states_.back().end_ns = NowNs();
  resting_ = false;
}

void Script::Start(size_t i, const std::string& state) {
  Leave();
  working_[i] = true;
  Enter(state, stage_.Start(*players_[i]));
}

void Script::Stop(size_t i, const std::string& state) {
  Leave();
  working_[i] = false;
  Enter(state, stage_.Stop(*players_[i]));
}

void Script::Switch(size_t stop, size_t start, const std::string& state) {
  Leave();
  working_[stop] = false;
  working_[start] = true;
  stage_.Stop(*players_[stop]);
  Enter(state, stage_.Start(*players_[start]));
}

void Script::Rest() {
  Leave();
  for (size_t i = 0; i < players_.size(); ++i) {
    if (working_[i]) stage_.Stop(*players_[i]);
    working_[i] = false;
  }
  resting_ = true;
}

void Script::Hold(double seconds, bool ask) { stage_.Hold(seconds, ask); }

void Script::Finish() {
  Rest();
  for (auto& player : players_) stage_.Collect(*player);
  observations_ = stage_.observations();
  stage_.Dismiss(players_);
}

Observed Script::Average(const State& state, int64_t settle_ns) const {
  Observed sum;
  const Observation* first = nullptr;
  const Observation* last = nullptr;
  double looks = 0, trips = 0;
  for (const Observation& observation : observations_) {
    if (observation.time_ns < state.begin_ns + settle_ns || observation.time_ns > state.end_ns) continue;
    ++looks;
    first = first == nullptr ? &observation : first;
    last = &observation;
    sum.target_bytes += static_cast<double>(observation.target_bytes);
    for (const Observation::Session& session : observation.sessions) {
      sum.violations += session.violating ? 1 : 0;
      if (session.round_trip_ns == 0) continue;
      sum.round_trip_ns += static_cast<double>(session.round_trip_ns);
      ++trips;
    }
  }
  if (looks > 0) sum.target_bytes /= looks;
  if (first != last) {
    sum.loop_core_percent = 100 * static_cast<double>(last->loop_cpu_ns - first->loop_cpu_ns) /
                            static_cast<double>(last->time_ns - first->time_ns);
  }
  if (trips > 0) sum.round_trip_ns /= trips;
  return sum;
}

std::string Script::ToJson() const {
  const int64_t begin_ns = states_.front().begin_ns;
  std::string json =
      "{\"name\": \"" + name_ + "\", \"step_ms\": " + Number(Ms(kPlotStepNs, 0)) +
      ",\n  \"states\": " + List(states_, [&](const State& state) {
        return "{\"name\": \"" + state.name + "\", \"t_ms\": " + Number(Ms(state.begin_ns, begin_ns)) + "}";
      });
  json += ",\n  \"sessions\": [";
  for (size_t i = 0; i < players_.size(); ++i) {
    json += (i == 0 ? "\n   " : ",\n   ") + SeriesJson(*players_[i], begin_ns, states_.back().end_ns);
  }
  json += "],\n  \"controller\": {\"t_ms\": " +
          List(observations_, [&](const Observation& o) { return Number(Ms(o.time_ns, begin_ns)); }) +
          ",\n   \"target_kib\": " +
          List(observations_, [](const Observation& o) { return Number(static_cast<double>(o.target_bytes) / 1024); });
  for (const auto& player : players_) {
    json += ",\n   \"round_trip_us of " + player->part.name + "\": " + List(observations_, [&](const Observation& o) {
              for (const Observation::Session& session : o.sessions) {
                if (session.name == player->part.name) return Number(static_cast<double>(session.round_trip_ns) * 1e-3);
              }
              return std::string("0");
            });
  }
  return json + "}}";
}

}  // namespace dak::bench

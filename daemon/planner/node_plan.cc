#include "daemon/planner/node_plan.h"

#include <algorithm>

#include "allocator/base/status_macros.h"
#include "daemon/planner/described_rows.h"

namespace dak::planner {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr uint64_t kTilesPerStep = 4;  // what DecideReplan asks for
using internal::HbmBytes;
using internal::Rows;

// The tier that has the larger part: a tensor has one remote tier.
size_t TierOf(const OperationPlan& plan) {
  const auto most = std::max_element(plan.tier_ratios.begin(), plan.tier_ratios.end());
  return most == plan.tier_ratios.end() ? 0 : static_cast<size_t>(most - plan.tier_ratios.begin());
}

}  // namespace

// ---- One round ------------------------------------------------------------------------------------------------------

class NodePlan::Round {
 public:
  Round(const NodePlan& node, Sessions& sessions, double now_s) : node_(node), now_s_(now_s) {
    for (auto& [id, session] : sessions) {
      Place& place = places_.emplace_back();
      place.id = id;
      place.session = &session;
    }
  }

  absl::Status Run() {
    DAK_RETURN_IF_ERROR(FindTargets());
    for (Place& place : places_) {
      if (!place.is_new()) place.SetRows(place.session->in_force.remote_rows);
      place.start_hbm_bytes = place.hbm_bytes;
    }
    for (Place& place : places_) {
      if (!place.is_new()) AssignTiers(place, place.target);
    }
    ChooseStarts();
    DecideShift();
    // Who gives HBM up comes first, then who has none yet, then who gets more.
    for (Place& place : places_) {
      if (!place.is_new() && place.gives_up()) DAK_RETURN_IF_ERROR(Step(place));
    }
    for (Place& place : places_) {
      if (place.is_new()) PlaceNew(place);
    }
    for (Place& place : places_) {
      if (!place.is_new() && !place.gives_up()) DAK_RETURN_IF_ERROR(Step(place));
    }
    return absl::OkStatus();
  }

  // Puts the rows in force. Returns the sessions whose version is a new one.
  std::vector<uint64_t> PutInForce() {
    std::vector<uint64_t> changed;
    for (Place& place : places_) {
      NodePassPlan& in_force = place.session->in_force;
      const bool differs = place.is_new() || place.rows != in_force.remote_rows || place.session->grew;
      place.session->grew = false;
      if (differs) {
        in_force.moved_bytes = place.is_new() ? 0 : MovedBytes(place);
        if (!place.is_new()) place.session->last_step_s = now_s_;
        ++in_force.version;
        changed.push_back(place.id);
      }
      FillPlan(place, in_force);
      in_force.remote_rows = std::move(place.rows);
    }
    return changed;
  }

  bool shifted() const { return shift_; }
  double next_replan_s() const { return next_replan_s_; }

 private:
  struct Place {
    uint64_t id = 0;
    Session* session = nullptr;
    Profile profile;  // the session's share
    PassPlan plan;    // the optimum
    Rows target;
    Rows rows;
    std::vector<size_t> tiers;
    uint64_t budget_bytes = 0;
    uint64_t hbm_bytes = 0;  // of `rows`
    uint64_t start_hbm_bytes = 0;
    uint64_t target_hbm_bytes = 0;

    const PassDescription& description() const { return *session->description; }
    double weight() const { return description().pass.weight; }
    bool is_new() const { return session->in_force.remote_rows.empty(); }
    // Rows don't move from one remote tier to another.
    bool is_there(size_t operation) const { return !is_new() && session->in_force.remote_rows[operation] > 0; }
    uint64_t BytesOf(const Rows& of, size_t operation) const {
      return of[operation] * description().splits[operation].row_bytes;
    }
    void SetRows(Rows to) {
      rows = std::move(to);
      hbm_bytes = HbmBytes(description(), rows);
    }
    bool gives_up() const { return target_hbm_bytes < start_hbm_bytes; }
  };

  absl::Status FindTargets() {
    std::vector<Pass> passes;
    double weights = 0;
    for (Place& place : places_) {
      passes.push_back(place.description().pass);
      place.budget_bytes = std::min(passes.back().hbm_budget_bytes, place.session->hbm_limit_bytes);
      passes.back().hbm_budget_bytes = place.budget_bytes;
      weights += place.weight();
    }
    DAK_ASSIGN_OR_RETURN(std::vector<PassPlan> plans, PlanAll(node_.profile_, passes, node_.hbm_bytes_));
    for (size_t i = 0; i < places_.size(); ++i) {
      Place& place = places_[i];
      place.plan = std::move(plans[i]);
      place.profile = ScaledToShare(node_.profile_, place.weight() / weights);
      DAK_ASSIGN_OR_RETURN(place.target, RoundToFastestTiles(place.profile, passes[i], place.plan,
                                                             place.description().splits, place.budget_bytes));
      place.target_hbm_bytes = HbmBytes(place.description(), place.target);
      wanted_hbm_bytes_ += std::min(place.budget_bytes, internal::StoredBytes(place.description()));
      for (size_t op = 0; op < place.target.size(); ++op) {
        place.tiers.push_back(place.is_there(op) ? place.session->in_force.tiers[op]
                                                 : TierOf(place.plan.operations[op]));
      }
    }
    return absl::OkStatus();
  }

  // What new sessions could have without anybody giving anything up.
  void ChooseStarts() {
    for (Place& place : places_) {
      if (!place.is_new()) continue;
      Rows start = place.target;
      if (!PlanWithin(place, std::min(place.budget_bytes, RoomFor(place)), &start)) must_shift_ = true;
      place.SetRows(std::move(start));
      AssignTiers(place, place.rows);
    }
    uint64_t in_force_bytes = 0;
    for (const Place& place : places_) in_force_bytes += place.hbm_bytes;
    if (in_force_bytes > node_.hbm_bytes_) must_shift_ = true;
  }

  void DecideShift() {
    if (wanted_hbm_bytes_ <= node_.hbm_bytes_) return;  // nobody has what another one could use
    double start_s = 0;
    double target_s = 0;
    for (const Place& place : places_) {
      start_s += place.weight() * SecondsOf(place, place.rows);
      target_s += place.weight() * SecondsOf(place, place.target);
    }
    const bool gains = start_s > target_s && start_s - target_s >= node_.policy_.min_gain * start_s;
    const double next_s = node_.last_shift_s_ + node_.policy_.min_interval_s;
    shift_ = must_shift_ || (gains && now_s_ >= next_s);
    if (!shift_ && gains) WakeAt(next_s);
  }

  absl::Status Step(Place& place) {
    Rows target = place.target;
    uint64_t budget = place.budget_bytes;
    if (place.gives_up()) {
      if (shift_) budget = place.target_hbm_bytes;
    } else {
      budget = std::min(budget, RoomFor(place));
      if (place.target_hbm_bytes > budget && !PlanWithin(place, budget, &target)) return absl::OkStatus();
    }
    std::vector<PlacedOperation> placed;
    ReplanPolicy policy = node_.policy_;
    for (size_t i = 0; i < target.size(); ++i) {
      const RowSplit& split = place.description().splits[i];
      placed.push_back({.operation = place.description().pass.operations[i],
                        .split = split,
                        .tier = place.tiers[i],
                        .remote_rows = place.rows[i],
                        .target_rows = target[i]});
      const uint64_t tile_bytes = std::min(split.tile_rows, split.rows) * split.row_bytes;
      policy.max_move_bytes = std::max(policy.max_move_bytes, kTilesPerStep * tile_bytes);
    }
    const double last_s = place.session->last_step_s;
    DAK_ASSIGN_OR_RETURN(const ReplanDecision decision,
                         DecideReplan(place.profile, placed, budget, now_s_ - last_s, policy));
    Rows rows = place.rows;
    for (const RowMove& move : decision.moves) rows[move.operation] += move.to_remote ? move.rows : -move.rows;
    place.SetRows(std::move(rows));
    if (decision.reason == ReplanReason::kTooSoon) WakeAt(last_s + policy.min_interval_s);
    if (!decision.moves.empty() && place.rows != place.target) WakeAt(now_s_ + policy.min_interval_s);
    return absl::OkStatus();
  }

  // With what was given up meanwhile.
  void PlaceNew(Place& place) {
    const uint64_t room = std::min(place.budget_bytes, RoomFor(place));
    Rows rows = place.target;
    if (place.target_hbm_bytes > room) PlanWithin(place, room, &rows);
    place.SetRows(std::move(rows));
    AssignTiers(place, place.rows);
    if (place.rows != place.target && shift_) WakeAt(now_s_ + node_.policy_.min_interval_s);
  }

  // The plan splits an operation over tiers, and has them full to the byte; whole operations in one tier each are more
  // than fits, or less. So what isn't in a tier yet comes to the plan's only if there is room, else to the roomiest,
  // the largest first.
  void AssignTiers(Place& place, const Rows& rows) const {
    std::vector<uint64_t> room;
    for (size_t k = 0; k < node_.profile_.remote_tiers.size(); ++k) room.push_back(RoomIn(place, k));
    const auto take = [&room](size_t tier, uint64_t bytes) {
      if (room[tier] != kUnlimitedBytes) room[tier] -= std::min(room[tier], bytes);
    };
    std::vector<size_t> open;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (!place.is_there(i)) open.push_back(i);
      if (place.is_there(i)) take(place.tiers[i], std::max(place.BytesOf(place.rows, i), place.BytesOf(rows, i)));
    }
    std::stable_sort(open.begin(), open.end(),
                     [&](size_t a, size_t b) { return place.BytesOf(rows, a) > place.BytesOf(rows, b); });
    for (const size_t i : open) {
      size_t& tier = place.tiers[i];
      tier = TierOf(place.plan.operations[i]);
      if (room[tier] < place.BytesOf(rows, i)) {
        tier = static_cast<size_t>(std::max_element(room.begin(), room.end()) - room.begin());
      }
      take(tier, place.BytesOf(rows, i));
    }
  }

  // What the others leave.
  uint64_t RoomFor(const Place& place) const {
    uint64_t others_bytes = 0;
    for (const Place& other : places_) others_bytes += &other == &place ? 0 : other.hbm_bytes;
    return node_.hbm_bytes_ - std::min(node_.hbm_bytes_, others_bytes);
  }

  // The best for one session with the others as they are. False if it doesn't fit.
  bool PlanWithin(const Place& place, uint64_t hbm_bytes, Rows* rows) const {
    Profile profile = place.profile;
    for (size_t k = 0; k < profile.remote_tiers.size(); ++k) {
      profile.remote_tiers[k].capacity_bytes = RoomIn(place, k);
    }
    Pass pass = place.description().pass;
    pass.hbm_budget_bytes = hbm_bytes;
    const absl::StatusOr<PassPlan> plan = Plan(profile, pass);
    if (!plan.ok()) return false;
    absl::StatusOr<Rows> rounded = RoundToFastestTiles(profile, pass, *plan, place.description().splits, hbm_bytes);
    if (!rounded.ok()) return false;
    *rows = *std::move(rounded);
    return true;
  }

  uint64_t RoomIn(const Place& place, size_t tier) const {
    const uint64_t capacity = node_.profile_.remote_tiers[tier].capacity_bytes;
    if (capacity == kUnlimitedBytes) return capacity;
    return capacity - std::min(capacity, RemoteBytesOfOthers(place, tier));
  }

  uint64_t RemoteBytesOfOthers(const Place& but, size_t tier) const {
    uint64_t bytes = 0;
    for (const Place& place : places_) {
      if (&place == &but) continue;
      for (size_t i = 0; i < place.rows.size(); ++i) {
        if (place.tiers[i] == tier) bytes += place.BytesOf(place.rows, i);
      }
    }
    return bytes;
  }

  static std::vector<double> TierRatios(const Place& place, const Rows& rows, size_t i) {
    std::vector<double> ratios(place.profile.remote_tiers.size());
    const RowSplit& split = place.description().splits[i];
    if (split.rows > 0) ratios[place.tiers[i]] = static_cast<double>(rows[i]) / static_cast<double>(split.rows);
    return ratios;
  }
  static double SecondsOf(const Place& place, const Rows& rows) {
    double seconds = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      seconds += OperationSeconds(place.profile, place.description().pass.operations[i], TierRatios(place, rows, i));
    }
    return seconds;
  }

  static uint64_t MovedBytes(const Place& place) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < place.rows.size(); ++i) {
      const uint64_t before = place.session->in_force.remote_rows[i];
      bytes +=
          (std::max(before, place.rows[i]) - std::min(before, place.rows[i])) * place.description().splits[i].row_bytes;
    }
    return bytes;
  }

  static void FillPlan(const Place& place, NodePassPlan& in_force) {
    in_force.plan = place.plan;
    in_force.plan.session_id = place.id;
    in_force.plan.predicted_s = 0;
    in_force.plan.remote_bytes = 0;
    for (size_t i = 0; i < place.rows.size(); ++i) {
      OperationPlan& operation = in_force.plan.operations[i];
      operation.tier_ratios = TierRatios(place, place.rows, i);
      operation.ratio = operation.tier_ratios[place.tiers[i]];
      operation.predicted_s =
          OperationSeconds(place.profile, place.description().pass.operations[i], operation.tier_ratios);
      in_force.plan.predicted_s += operation.predicted_s;
      in_force.plan.remote_bytes += place.rows[i] * place.description().splits[i].row_bytes;
    }
    in_force.tiers = place.tiers;
    in_force.target_s = SecondsOf(place, place.target);
  }

  void WakeAt(double time_s) { next_replan_s_ = std::min(next_replan_s_, time_s); }

  const NodePlan& node_;
  const double now_s_;
  std::vector<Place> places_;
  uint64_t wanted_hbm_bytes_ = 0;  // if each had its budget
  bool must_shift_ = false;
  bool shift_ = false;
  double next_replan_s_ = kNever;
};

// ---- The node -------------------------------------------------------------------------------------------------------

void NodePlan::SetCapacities(uint64_t hbm_bytes, const std::vector<uint64_t>& remote_bytes) {
  hbm_bytes_ = hbm_bytes;
  for (size_t k = 0; k < std::min(remote_bytes.size(), profile_.remote_tiers.size()); ++k) {
    profile_.remote_tiers[k].capacity_bytes = remote_bytes[k];
  }
}

absl::StatusOr<std::vector<uint64_t>> NodePlan::Describe(PassDescription description, uint64_t hbm_limit_bytes,
                                                         double now_s) {
  DAK_RETURN_IF_ERROR(internal::CheckDescription(description));
  // Alone first: what is wrong with it shows under its own names.
  Pass alone = description.pass;
  alone.hbm_budget_bytes = std::min(alone.hbm_budget_bytes, hbm_limit_bytes);
  DAK_RETURN_IF_ERROR(Plan(profile_, alone).status());
  Sessions sessions = sessions_;
  Session& session = sessions[description.pass.session_id];
  if (session.description != nullptr && internal::SameTensors(*session.description, description)) {
    for (size_t i = 0; i < description.splits.size(); ++i) {
      uint64_t& rows = session.in_force.remote_rows[i];
      const RowSplit& before = session.description->splits[i];
      session.grew |= before.rows != description.splits[i].rows;
      rows = internal::RowsAfterGrowth(before, description.splits[i], rows, description.pass.operations[i]);
    }
  } else if (session.description != nullptr) {
    const uint64_t version = session.in_force.version;
    session.in_force = NodePassPlan();
    session.in_force.version = version;
  }
  session.description = std::make_shared<const PassDescription>(std::move(description));
  session.hbm_limit_bytes = hbm_limit_bytes;
  return Commit(std::move(sessions), now_s);
}

void NodePlan::SetLimit(uint64_t session_id, uint64_t hbm_bytes) {
  auto it = sessions_.find(session_id);
  if (it != sessions_.end()) it->second.hbm_limit_bytes = hbm_bytes;
}

bool NodePlan::Remove(uint64_t session_id) { return sessions_.erase(session_id) > 0; }

absl::StatusOr<std::vector<uint64_t>> NodePlan::Replan(double now_s) { return Commit(sessions_, now_s); }

absl::StatusOr<std::vector<uint64_t>> NodePlan::Commit(Sessions sessions, double now_s) {
  Round round(*this, sessions, now_s);
  absl::Status status = round.Run();
  if (!status.ok()) {
    // Nothing is put off: what made it fail has to change first.
    next_replan_s_ = kNever;
    return status;
  }
  std::vector<uint64_t> changed = round.PutInForce();
  sessions_ = std::move(sessions);
  if (round.shifted()) last_shift_s_ = now_s;
  next_replan_s_ = round.next_replan_s();
  return changed;
}

const NodePassPlan* NodePlan::Find(uint64_t session_id) const {
  auto it = sessions_.find(session_id);
  return it == sessions_.end() ? nullptr : &it->second.in_force;
}

}  // namespace dak::planner

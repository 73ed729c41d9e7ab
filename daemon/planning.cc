#include "daemon/planning.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "allocator/base/status_macros.h"
#include "daemon/session/clock.h"

namespace dak::daemon {
namespace {

double NowS() { return static_cast<double>(MonotonicNs()) * 1e-9; }

// One tier for each remote pool, with the rate that the profile has for a tier of that name. The pools' sizes come with
// each planning.
planner::Profile WithPools(planner::Profile profile, const Ledger& ledger) {
  std::vector<planner::RemoteTier> tiers;
  for (const Ledger::PoolUsage& pool : ledger.Pools()) {
    if (pool.tier == Tier::kHbm) continue;
    planner::RemoteTier& tier = tiers.emplace_back();
    for (const planner::RemoteTier& known : profile.remote_tiers) {
      if (known.name == TierName(pool.tier)) tier = known;
    }
    tier.name = TierName(pool.tier);
    tier.capacity_bytes = pool.capacity_bytes;
  }
  // Without a pool nothing can be remote, which a plan has to find out.
  if (tiers.empty()) tiers.push_back({.name = TierName(Tier::kHost), .capacity_bytes = 0});
  profile.remote_tiers = std::move(tiers);
  return profile;
}

}  // namespace

Planning::Planning(const planner::Profile& profile, const planner::ReplanPolicy& policy,
                   SessionEnvironment* environment, CongestionLoop* congestion)
    : profile_(WithPools(profile, *environment->ledger)),
      environment_(environment),
      congestion_(congestion),
      node_(profile_, policy) {}

Planning::~Planning() { Stop(); }

void Planning::Start() {
  thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "dak-planning");
    Run();
  });
}

void Planning::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Planning::Run() {
  auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stop_ || due_ || changed_; };
  absl::MutexLock lock(&mutex_);
  while (!stop_) {
    changed_ = false;
    const double wait_s = node_.next_replan_s() - NowS();
    if (!due_ && wait_s > 0) {
      mutex_.AwaitWithTimeout(absl::Condition(&work), absl::Seconds(wait_s));
      continue;
    }
    due_ = false;
    Replan();
  }
}

absl::StatusOr<SessionPlanPtr> Planning::Describe(const std::shared_ptr<Session>& session,
                                                  planner::PassDescription description, std::vector<bool> has_rows) {
  const uint64_t id = session->identity().id;
  auto names = std::make_shared<std::vector<std::string>>();
  for (const planner::Operation& operation : description.pass.operations) names->push_back(operation.name);
  description.pass.session_id = id;
  description.pass.weight = session->identity().weight;
  absl::MutexLock lock(&mutex_);
  TakeLimits(id);
  DAK_ASSIGN_OR_RETURN(const std::vector<uint64_t> changed,
                       node_.Describe(std::move(description), HbmLimit(id), NowS()));
  described_[id] = {.session = session, .names = std::move(names), .has_rows = std::move(has_rows)};
  Publish(changed);
  changed_ = true;
  // One that is closing has been removed already, or will be by whoever closes it.
  const absl::Status open = session->CheckOpen();
  if (open.ok()) return session->plan();
  described_.erase(id);
  node_.Remove(id);
  due_ = true;
  return open;
}

void Planning::Remove(uint64_t session_id) {
  absl::MutexLock lock(&mutex_);
  if (described_.erase(session_id) == 0) return;
  node_.Remove(session_id);
  due_ = true;
}

void Planning::Refresh() {
  absl::MutexLock lock(&mutex_);
  due_ = !described_.empty();
}

void Planning::Replan() {
  TakeLimits(0);
  const absl::StatusOr<std::vector<uint64_t>> changed = node_.Replan(NowS());
  if (!changed.ok()) {
    // What is in force stays; a quota or a pool is too small for it.
    environment_->metrics->CountReplan("failed", 0);
    spdlog::warn("replanning: {}", std::string(changed.status().message()));
    return;
  }
  Publish(*changed);
}

uint64_t Planning::HbmLimit(uint64_t session_id) const {
  const absl::StatusOr<Ledger::Quota> quota = environment_->ledger->GetQuota(session_id, Tier::kHbm);
  return quota.ok() ? quota->limit_bytes : planner::kUnlimitedBytes;  // it is closing
}

void Planning::TakeLimits(uint64_t joining_session) {
  const Ledger& ledger = *environment_->ledger;
  uint64_t hbm_bytes = 0;
  std::vector<uint64_t> remote_bytes;
  for (const Ledger::PoolUsage& pool : ledger.Pools()) {
    uint64_t described_bytes = 0;
    for (const auto& [id, entry] : described_) {
      const absl::StatusOr<Ledger::Quota> quota = ledger.GetQuota(id, pool.tier);
      if (quota.ok()) described_bytes += quota->used_bytes;
    }
    if (!described_.contains(joining_session)) {
      const absl::StatusOr<Ledger::Quota> quota = ledger.GetQuota(joining_session, pool.tier);
      if (quota.ok()) described_bytes += quota->used_bytes;
    }
    const uint64_t bytes = std::min(pool.capacity_bytes, pool.free_bytes() + described_bytes);
    if (pool.tier == Tier::kHbm) {
      hbm_bytes = bytes;
    } else {
      remote_bytes.push_back(bytes);
    }
  }
  node_.SetCapacities(hbm_bytes, remote_bytes);
  for (const auto& [id, entry] : described_) node_.SetLimit(id, HbmLimit(id));
}

void Planning::Publish(const std::vector<uint64_t>& changed) {
  uint64_t moved_bytes = 0;
  for (const auto& [id, entry] : described_) {
    const planner::NodePassPlan* in_force = node_.Find(id);
    if (in_force == nullptr) continue;
    auto plan = std::make_shared<SessionPlan>();
    plan->operation_names = entry.names;
    plan->has_rows = entry.has_rows;
    plan->in_force = *in_force;
    // Also where the version is as before: the predicted times move with what others read.
    entry.session->SetPlan(plan);
    if (std::find(changed.begin(), changed.end(), id) == changed.end()) continue;
    moved_bytes += in_force->moved_bytes;
    congestion_->SetPlanVersion(id, in_force->version);
    environment_->events->Append(v1::Event::PLAN_CHANGED, id, entry.session->identity().name,
                                 absl::StrCat("version ", in_force->version, ", ", in_force->plan.remote_bytes,
                                              " bytes remote, ", in_force->moved_bytes, " to move"));
  }
  environment_->metrics->CountReplan(changed.empty() ? "unchanged" : "changed", moved_bytes);
}

}  // namespace dak::daemon

// What sessions share, and what their operations take and return. Values without behaviour.
#ifndef DAK_DAEMON_SESSION_SESSION_TYPES_H_
#define DAK_DAEMON_SESSION_SESSION_TYPES_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "allocator/device/device.h"
#include "allocator/ledger.h"
#include "daemon/events/event_log.h"
#include "daemon/planner/planner.h"
#include "daemon/session/copier.h"
#include "daemon/session/limits.h"
#include "daemon/session/publications.h"
#include "daemon/session/tensor.h"
#include "monitoring/metrics.h"

namespace dak::daemon {

// What sessions share. Everything outlives every session.
struct SessionEnvironment {
  Device* device = nullptr;
  Ledger* ledger = nullptr;
  EventLog* events = nullptr;
  Publications* publications = nullptr;
  monitoring::Metrics* metrics = nullptr;
  CongestionLoop* congestion = nullptr;  // paces the daemon's own copies; null: nothing does
  Limits limits;
  std::atomic<uint64_t> next_tensor_id{1};
  std::atomic<uint64_t> next_segment_id{1};
  std::atomic<uint64_t> next_migration_id{1};  // of moves and exchanges
  std::atomic<bool> stopping{false};           // long copies end
};

struct SessionIdentity {
  uint64_t id = 0;
  std::string name;
  uint32_t weight = kDefaultWeight;
  int32_t pid = 0;
  uint32_t uid = 0;
  uint64_t connection_id = 0;
  std::string token;  // secret
  uint64_t opened_ns = 0;
};

// A plan in force.
struct SessionPlan {
  uint64_t version = 0;
  std::vector<std::string> operation_names;
  planner::PassPlan pass;
};
using SessionPlanPtr = std::shared_ptr<const SessionPlan>;

struct AllocateResult {
  std::vector<TensorView> tensors;
  std::vector<Grant> grants;
};
struct FreeResult {
  std::vector<uint64_t> segment_ids;
  TierArray bytes{};
};
struct PublishResult {
  uint64_t tensor_count = 0;
  TierArray bytes{};
};
struct AttachResult {
  std::vector<TensorView> tensors;
  std::vector<Grant> grants;
  std::string fingerprint;
};

// What PrepareMove is asked for a tensor. Fields and bounds are TensorMove's of proto/dak/v1/migration.proto.
struct TensorMoveSpec {
  uint64_t tensor_id = 0;
  double offload_ratio = 0;
  std::optional<Tier> remote_tier = std::nullopt;
  uint32_t tile_rows = 0;
  bool written = false;
  uint64_t stable_rows = 0;
};
struct MoveResult {
  uint64_t move_id = 0;
  std::vector<TensorView> tensors;
  std::vector<Grant> grants;
  CopyStats copied;
};
// Memory to put behind the addresses of segments that the client has mapped.
struct Exchange {
  uint64_t id = 0;
  std::vector<Grant> grants;
};
struct MigrationResult {
  uint64_t segment_count = 0;
  CopyStats copied;
  uint64_t hbm_free_before_bytes = 0;  // as the driver says
  uint64_t hbm_free_after_bytes = 0;
};
// Bytes copied and to copy.
using MigrationProgress = std::function<void(uint64_t done_bytes, uint64_t total_bytes)>;

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_SESSION_TYPES_H_

// One client process's lease: its groups, tensors, attachments, tickets and plan.
//
// Operations that change memory (Allocate, Free, Publish, Attach, Detach) run one at a time per session, and hold no
// lock while they call the driver: other sessions, lists and scrapes don't wait for them. Close never waits for the
// driver either: it marks the session, and if an operation is under way, whatever finishes that operation also tears
// the session down. So a client that dies in the middle of an allocation leaves nothing behind.
//
// Thread safety: all methods may be called from any thread. Lock order: a session's mutex before those of Publications,
// Ledger and EventLog.
// Errors: as in proto/dak/v1/tensor.proto; an operation that fails changed nothing. UNAUTHENTICATED with
// UNKNOWN_SESSION once the session is closing.
#ifndef DAK_DAEMON_SESSION_SESSION_H_
#define DAK_DAEMON_SESSION_SESSION_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "allocator/ledger.h"
#include "daemon/planner/node_plan.h"
#include "daemon/session/arena.h"
#include "daemon/session/limits.h"
#include "daemon/session/pages.h"
#include "daemon/session/publications.h"
#include "daemon/session/tensor.h"
#include "daemon/session/tickets.h"
#include "monitoring/metrics.h"

namespace dak::daemon {

// What sessions share. Everything outlives every session.
struct SessionEnvironment {
  Device* device = nullptr;
  Ledger* ledger = nullptr;
  EventLog* events = nullptr;
  Publications* publications = nullptr;
  monitoring::Metrics* metrics = nullptr;
  Limits limits;
  std::atomic<uint64_t> next_tensor_id{1};
  std::atomic<uint64_t> next_segment_id{1};
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
  std::shared_ptr<const std::vector<std::string>> operation_names;
  std::vector<bool> has_rows;  // by operation; where false its rows are bytes
  planner::NodePassPlan in_force;
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

class Session {
 public:
  // Called once, when everything is back, with the bytes given back to the pools.
  using ClosedCallback = std::function<void(const Session&, const TierArray&)>;

  // The ledger has an account for the session already; the session closes it.
  Session(SessionEnvironment* environment, SessionIdentity identity, std::shared_ptr<SessionPages> pages,
          ClosedCallback on_closed);

  const SessionIdentity& identity() const { return identity_; }
  SessionPages& pages() const { return *pages_; }

  // `specs` must be valid (layout.h).
  absl::StatusOr<AllocateResult> Allocate(const std::string& group, absl::Span<const TensorSpec> specs);
  absl::StatusOr<FreeResult> Free(absl::Span<const uint64_t> tensor_ids);
  absl::StatusOr<PublishResult> Publish(const std::string& group, const std::string& publication,
                                        const std::string& fingerprint);
  absl::StatusOr<AttachResult> Attach(const std::string& publication, const std::string& fingerprint);
  absl::Status Detach(const std::string& publication);

  std::string AddTicket(std::vector<HandleGrant> handles);
  absl::StatusOr<std::vector<HandleGrant>> Redeem(absl::Span<const std::string> tickets);

  // The plan becomes the session's. Planning's alone.
  void SetPlan(SessionPlanPtr plan);
  SessionPlanPtr plan() const;  // null if there is none

  // Ends the session. Harmless to repeat. Returns at once if an operation is under way.
  void Close();
  // Waits until everything is back and says how much that was.
  TierArray AwaitClosed() const;
  bool closing() const;
  absl::Status CheckOpen() const;  // the error of what comes too late

  void Touch(uint64_t now_ns) { touched_ns_.store(now_ns, std::memory_order_relaxed); }
  uint64_t touched_ns() const { return touched_ns_.load(std::memory_order_relaxed); }

  uint64_t tensor_count() const;
  // Up to `count` tensors with an id of at least `first_id`, by id.
  void CollectTensors(uint64_t first_id, size_t count, std::vector<TensorView>* out) const;
  PlacementStats Placement() const;

 private:
  struct HeldTensor {
    Tensor tensor;
    Group* group = nullptr;
  };
  struct Batch;     // an Allocate under way (session_allocate.cc)
  class Operation;  // the turn of one operation

  absl::Status BeginOperation();
  void EndOperation();
  void TearDown();
  absl::Status ClosingError() const;

  // Steps of Allocate, in order (session_allocate.cc).
  absl::StatusOr<AllocateResult> AllocateInTurn(const std::string& group, absl::Span<const TensorSpec> specs);
  absl::Status CheckAllocation(const std::string& group, absl::Span<const TensorSpec> specs) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PlaceInHeldSegments(Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CreateSegments(Batch& batch);
  void PlaceInNewSegments(Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  AllocateResult Commit(Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RollBack(Batch& batch);

  // Where `tensor_id` is in `tensors_`, or why it can't be freed.
  absl::Status CheckFree(absl::Span<const uint64_t> tensor_ids) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckPublish(const std::string& group) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<AttachResult> GrantPublication(const Publication& publication);

  SessionEnvironment* const environment_;
  const SessionIdentity identity_;
  const std::shared_ptr<SessionPages> pages_;
  const ClosedCallback on_closed_;
  std::atomic<uint64_t> touched_ns_;

  mutable absl::Mutex mutex_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool operating_ ABSL_GUARDED_BY(mutex_) = false;
  bool torn_down_ ABSL_GUARDED_BY(mutex_) = false;
  TierArray freed_bytes_ ABSL_GUARDED_BY(mutex_){};
  absl::flat_hash_map<std::string, std::unique_ptr<Group>> groups_ ABSL_GUARDED_BY(mutex_);
  absl::btree_map<uint64_t, HeldTensor> tensors_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, PublicationPtr> attached_ ABSL_GUARDED_BY(mutex_);    // by publication
  absl::flat_hash_map<std::string, std::string> sealed_groups_ ABSL_GUARDED_BY(mutex_);  // group to publication
  TicketBook tickets_ ABSL_GUARDED_BY(mutex_);
  SessionPlanPtr plan_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_SESSION_H_

// One client process's lease: its groups, tensors, attachments, tickets and plan.
//
// Operations that change memory (Allocate, Free, Publish, Attach, Detach, moves, demotions) run one at a time per
// session, and hold no lock while they call the driver: other sessions, lists and scrapes don't wait for them. Close
// never waits for the driver either: it marks the session, and if an operation is under way, whatever finishes that
// operation also tears the session down. So a client that dies in the middle of an allocation leaves nothing behind.
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
#include <optional>
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
#include "daemon/session/pages.h"
#include "daemon/session/publications.h"
#include "daemon/session/session_types.h"
#include "daemon/session/tensor.h"
#include "daemon/session/tickets.h"

namespace dak::daemon {

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

  // Moves of tensors to another split of their rows (session_move.cc). `cancelled` ends the copy; never null.
  absl::StatusOr<MoveResult> PrepareMove(absl::Span<const TensorMoveSpec> moves,
                                         const std::function<bool()>& cancelled);
  absl::StatusOr<FreeResult> CommitMove(uint64_t move_id);
  absl::StatusOr<FreeResult> AbortMove(uint64_t move_id);  // 0: whichever is pending

  // Out of HBM and back at the same addresses, with the client's help (session_demote.cc). `progress` may be null.
  absl::Status Suspend();
  absl::StatusOr<MigrationResult> Resume(const std::function<bool()>& cancelled);
  absl::StatusOr<MigrationResult> Demote(const std::function<bool()>& cancelled, const MigrationProgress& progress);
  absl::StatusOr<MigrationResult> Promote(const std::function<bool()>& cancelled, const MigrationProgress& progress);
  absl::StatusOr<Exchange> TakeExchange();
  absl::Status FinishExchange(uint64_t exchange_id, const absl::Status& outcome);
  enum class Residence { kActive, kSuspended, kDemoted };
  Residence residence() const;

  std::string AddTicket(std::vector<HandleGrant> handles);
  // Spends the tickets of `grants` by handing what they are for to `send`, which mustn't block. Where it says no, the
  // grants get new tickets.
  void Deliver(std::vector<Grant>* grants, const std::function<bool(absl::Span<const HandleGrant>)>& send);
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
  struct Batch;     // an Allocate or PrepareMove under way (session_batch.h)
  class Operation;  // the turn of one operation

  absl::Status BeginOperation();
  void EndOperation();
  void TearDown();
  absl::Status ClosingError() const;

  // Steps of Allocate, in order (session_allocate.cc).
  absl::StatusOr<AllocateResult> AllocateInTurn(const std::string& group, absl::Span<const TensorSpec> specs);
  absl::Status CheckAllocation(const std::string& group, absl::Span<const TensorSpec> specs) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // RESOURCE_EXHAUSTED unless `more` tickets may be made.
  absl::Status CheckTickets(size_t more) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PlaceInHeldSegments(Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CreateSegments(Batch& batch);
  void PlaceInNewSegments(Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status MakeAndEncode(Batch& batch);
  AllocateResult Commit(Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Grant> GrantSegments(Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RollBack(Batch& batch);

  // Destroys segments that left their arenas.
  absl::StatusOr<FreeResult> GiveBack(std::vector<OwnedSegment> emptied);

  // Why tensors can't be freed.
  absl::Status CheckFree(absl::Span<const uint64_t> tensor_ids) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckPublish(const std::string& group) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<AttachResult> GrantPublication(const Publication& publication);

  // Steps of a move (session_move.cc).
  struct PendingMove {
    uint64_t id = 0;
    Group* group = nullptr;
    std::vector<Tensor> tensors;  // as they will be
  };
  absl::Status PlanMove(absl::Span<const TensorMoveSpec> moves, Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CopyMove(absl::Span<const TensorMoveSpec> moves, Batch& batch, const std::function<bool()>& cancelled,
                        CopyStats* stats);
  std::vector<CopyStep> MoveSteps(absl::Span<const TensorMoveSpec> moves, Batch& batch) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Frees the parts of `from` that aren't in `keep`.
  void FreeParts(Group& group, const Tensor& from, const Tensor& keep, std::vector<OwnedSegment>* emptied)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<FreeResult> EndMove(uint64_t move_id, bool commit);
  bool InPendingMove(uint64_t tensor_id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckInHbm() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Steps of a demotion or promotion (session_demote.cc).
  struct Migration;
  absl::Status CheckMigration(bool demote) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<MigrationResult> MigrateInTurn(bool demote, const std::function<bool()>& cancelled,
                                                const MigrationProgress& progress);
  absl::Status MakeReplacements(Migration& migration);
  absl::Status CopyToReplacements(Migration& migration, const std::function<absl::Status()>& check,
                                  const MigrationProgress& progress);
  absl::Status Exchanged(Migration& migration, const std::function<absl::Status()>& check);
  absl::Status AwaitClient(const std::function<absl::Status()>& check);
  void AdoptReplacements(Migration& migration);
  absl::Status CheckEnding() const;

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
  std::unique_ptr<PendingMove> move_ ABSL_GUARDED_BY(mutex_);
  uint64_t committed_move_ ABSL_GUARDED_BY(mutex_) = 0;  // the last one
  Residence residence_ ABSL_GUARDED_BY(mutex_) = Residence::kActive;
  bool resuming_ ABSL_GUARDED_BY(mutex_) = false;  // a demotion that copies must end
  // What the client is asked to exchange; at most one, of the operation under way.
  struct PendingExchange {
    uint64_t id = 0;
    std::vector<Grant> grants;
    bool taken = false;
    std::optional<absl::Status> outcome;
  };
  std::optional<PendingExchange> exchange_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_SESSION_H_

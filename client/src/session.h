// A session: this process's lease on the node, its mapped segments, tensors and publications.
//
// Concept. What the daemon grants is mapped before a call returns, and unmapped before the daemon is told that it is
// free. Where an answer of the daemon is lost (deadline, broken connection), the books are uncertain; the next call
// that changes them asks the daemon first what is true (Settle).
//
// Ownership: owns tensors, mappings and the connection. The tensors' pointers are the C ABI's handles.
// Thread safety: all methods may be called from any thread. Calls that talk to the daemon are serialised
// (`control_mutex_`), launches too (`launch_mutex_`); neither waits for the other. Whoever touches tensors' memory does
// so under `use_mutex_`, shared; whoever changes where it is (CommitMove, Suspend, an exchange) holds it alone.
// Errors: docs/client.md; UNAVAILABLE once the daemon is gone, FAILED_PRECONDITION in a forked child.
#ifndef DAK_CLIENT_SRC_SESSION_H_
#define DAK_CLIENT_SRC_SESSION_H_

#include <sys/types.h>

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "allocator/device/device.h"
#include "client/src/calls.h"
#include "client/src/handle_connection.h"
#include "client/src/launcher.h"
#include "client/src/session_types.h"
#include "client/src/tensor.h"
#include "client/src/transport.h"
#include "dak/v1/control_page.h"

namespace dak::client {

class Session {
 public:
  static absl::StatusOr<std::unique_ptr<Session>> Open(const SessionOptions& options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // False in a process that was forked from the one that opened the session: it may not use it, nor destroy it.
  bool InOwner() const;
  absl::Status CheckOwner() const;
  Device& device() { return *device_; }
  SessionStatus GetStatus() const;

  // `request` without its token. On success tensors are in the order of the request.
  absl::StatusOr<std::vector<Tensor*>> Allocate(v1::AllocateTensorsRequest request);
  absl::Status Free(absl::Span<Tensor* const> tensors);
  absl::StatusOr<Tensor*> Find(const std::string& group, const std::string& name) const;

  absl::Status Publish(const std::string& group, const std::string& publication, const std::string& fingerprint);
  absl::StatusOr<absl::Span<Tensor* const>> Attach(const std::string& publication, const std::string& fingerprint);
  absl::Status Detach(const std::string& publication);
  absl::Status Withdraw(const std::string& publication);

  // Moves (session_move.cc), docs/migration.md.
  absl::StatusOr<MoveStatus> PrepareMove(absl::Span<const MoveSpec> moves);
  // Tensors of `group` that have an operation's name go to that operation's ratio.
  absl::StatusOr<MoveStatus> PrepareMoveToPlan(const std::string& group);
  absl::Status CommitMove();
  absl::Status AbortMove();

  // Demotion (session_suspend.cc).
  absl::Status Suspend();
  absl::Status Resume();
  enum class Residence { kActive = 0, kSuspended = 1, kDemoted = 2 };  // values equal dak_residence's
  Residence GetResidence() const;
  // FAILED_PRECONDITION while suspended.
  absl::Status CheckActive() const;
  // Calls body() while nobody changes where memory is; WithMemory refuses while suspended.
  template <typename Body>
  absl::Status WithParts(const Body& body) {
    absl::ReaderMutexLock use(&use_mutex_);
    return body();
  }
  template <typename Body>
  absl::Status WithMemory(const Body& body) {
    return WithParts([&] { return suspended_ ? CheckActive() : body(); });
  }

  // `request` without its token.
  absl::StatusOr<v1::Plan> Plan(v1::PlanPassRequest request);
  absl::Status Gemm(const GemmCall& call);
  absl::Status Attention(const AttentionCall& call);
  absl::Status Synchronize(void* stream);

 private:
  struct MappedSegment {
    std::unique_ptr<Mapping> mapping;  // null after a free that failed half-way
    uint64_t tensor_count = 0;
    std::optional<Tier> home = std::nullopt;  // once its memory was exchanged: the tier that it was granted in
  };
  struct Publication {
    std::vector<Tensor*> tensors;
    bool attached = false;   // another's, whose tensors have its name as their group
    bool detaching = false;  // unmapped here, but the daemon's answer was lost
  };
  using SegmentTable = std::map<uint64_t, MappedSegment>;
  // Tensors and segments that a response granted, mapped but not yet in the tables.
  struct Batch {
    std::vector<std::unique_ptr<Tensor>> tensors;
    SegmentTable segments;
  };

  explicit Session(const SessionOptions& options) : options_(options) {}
  absl::Status Connect();
  absl::Status OpenDeviceOf(const v1::DeviceInfo& info);
  absl::Status MapPages(const std::string& control_ticket);
  void KeepAlive(absl::Duration lease);
  absl::Duration timeout() const;
  absl::Duration allocate_timeout() const;
  absl::Duration move_timeout() const;
  absl::Status DaemonGone() const;
  const v1::ControlPage& control_page() const;
  v1::ReportPage& report_page() const;

  // One RPC for this session: UNAVAILABLE at once if the daemon is gone. `changes` says that a lost answer makes the
  // books uncertain.
  template <typename Stub, typename Request, typename Response>
  absl::Status Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response, absl::Duration limit, bool changes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_) {
    if (connection_->PeerIsGone()) return DaemonGone();
    absl::Status status = transport_->Call(method, request, response, limit);
    if (status.ok()) return status;
    if (connection_->PeerIsGone()) return DaemonGone();
    if (changes && AnswerMayBeLost(status)) books_uncertain_ = true;
    return status;
  }
  static bool AnswerMayBeLost(const absl::Status& status);

  absl::StatusOr<Batch> MapBatch(const google::protobuf::RepeatedPtrField<v1::Tensor>& tensors,
                                 const google::protobuf::RepeatedPtrField<v1::SegmentGrant>& grants, Access access)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::StatusOr<std::vector<ReceivedHandle>> FetchHandles(
      const google::protobuf::RepeatedPtrField<v1::SegmentGrant>& grants);
  absl::StatusOr<SegmentTable> MapGrants(const google::protobuf::RepeatedPtrField<v1::SegmentGrant>& grants,
                                         Access access) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  std::vector<Tensor*> Adopt(Batch batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::Status FreeRemotely(absl::Span<const uint64_t> tensor_ids) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::Status CheckFreeable(absl::Span<Tensor* const> tensors) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  // Unmaps the segments that only `tensors` are in, and marks those.
  void UnmapEmptied(absl::Span<Tensor* const> tensors) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  void Forget(absl::Span<Tensor* const> tensors) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::Status Seal(const std::string& group, const std::string& publication)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  // Refuses a group that has the name of an attached publication, and the other way round.
  absl::Status CheckGroupName(const std::string& group) const;
  absl::Status CheckPublicationName(const std::string& publication) const;
  absl::Status DetachRemotely(const std::string& publication) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  std::vector<Tensor*> OwnTensorsOf(const std::string& group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);

  // Makes the books certain again; OK at once if they are.
  absl::Status Settle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::StatusOr<absl::flat_hash_set<uint64_t>> ListOwnIds() ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::Status SettleTensors(const absl::flat_hash_set<uint64_t>& known) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);

  absl::StatusOr<MoveStatus> PrepareMoveLocked(absl::Span<const MoveSpec> moves)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::Status CheckMoves(absl::Span<const MoveSpec> moves) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::Status AdoptMove(absl::Span<const MoveSpec> moves, const v1::PrepareMoveResponse& response)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  void CountParts(const Tensor& tensor, int change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CopyWrittenRows(const MovingTensor& moving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  void DropPendingMove() ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::Status CommitRemotely(uint64_t move_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::Status AbortRemotely(uint64_t move_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::Status SettleMoves() ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);
  absl::Status CheckNotMoving(const Tensor& tensor, const std::string& field) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(control_mutex_);

  void WatchExchanges();
  void StopWatching();
  void ReportExchange(uint64_t exchange_id, const absl::Status& outcome);
  absl::Status CarryOut(const v1::TakeExchangeResponse& exchange);
  absl::Status ReplaceSegment(ReceivedHandle& handle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LoseSegment(uint64_t segment_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A forked child would keep memory alive that its parent gave back or died with.
  static void KeepFromChildren(const Mapping& mapping, HandleKind kind);

  absl::Status CheckOperand(absl::string_view field, const Tensor* operand) const;
  absl::Status CheckGemmCall(const GemmCall& call, kernels::GemmShape* shape) const;
  absl::Status CompleteAttention(AttentionCall& call) const;
  absl::Status CheckWritable(absl::string_view field, uint64_t address, uint64_t bytes) const;
  uint32_t LinkOf(const Tensor& tensor) const;
  absl::Status EnsureLauncher() ABSL_EXCLUSIVE_LOCKS_REQUIRED(launch_mutex_);

  const SessionOptions options_;
  const pid_t owner_pid_ = getpid();
  std::string runtime_dir_;
  std::unique_ptr<HandleConnection> connection_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Device> device_;
  v1::OpenSessionResponse opened_;
  std::unique_ptr<SharedPage> control_page_;
  std::unique_ptr<SharedPage> report_page_;
  std::thread keeper_;
  absl::Notification closing_;

  absl::Mutex control_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  bool books_uncertain_ ABSL_GUARDED_BY(control_mutex_) = false;
  // Whose answer was lost: (group, publication), and a publication's name.
  std::optional<std::pair<std::string, std::string>> publish_in_doubt_ ABSL_GUARDED_BY(control_mutex_);
  std::optional<std::string> attach_in_doubt_ ABSL_GUARDED_BY(control_mutex_);
  std::optional<uint64_t> commit_in_doubt_ ABSL_GUARDED_BY(control_mutex_);
  bool move_in_doubt_ ABSL_GUARDED_BY(control_mutex_) = false;
  std::unique_ptr<PendingMove> pending_move_ ABSL_GUARDED_BY(control_mutex_);

  // The tables change under both mutexes, so either suffices to read them.
  mutable absl::Mutex mutex_;
  SegmentTable segments_;
  absl::flat_hash_map<const Tensor*, std::unique_ptr<Tensor>> tensors_;
  absl::flat_hash_map<std::pair<std::string, std::string>, Tensor*> by_name_;  // (group, name)
  absl::flat_hash_map<std::string, std::unique_ptr<Publication>> publications_;

  absl::Mutex launch_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  std::unique_ptr<Launcher> launcher_ ABSL_GUARDED_BY(launch_mutex_);

  absl::Mutex use_mutex_ ABSL_ACQUIRED_AFTER(launch_mutex_) ABSL_ACQUIRED_BEFORE(mutex_);
  std::atomic<bool> suspended_{false};  // set under launch_mutex_ and use_mutex_

  absl::Mutex suspend_mutex_ ABSL_ACQUIRED_BEFORE(control_mutex_);  // one Suspend or Resume at a time
  uint64_t seen_exchange_ = 0;                                      // the watcher's, once it runs
  std::unique_ptr<absl::Notification> stop_watching_;
  std::thread watcher_;
};

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_SESSION_H_

// All sessions of the node: who is connected, who may open one, whose token is whose, and what is given back when a
// connection ends.
//
// A handle connection gets a one-time ticket; OpenSession binds a session to it; the connection's end closes the
// session at once. Closing runs on a thread of its own (the reaper), so that a slow driver delays neither the socket's
// thread nor other sessions. With a lease time, the reaper also closes sessions that were silent for longer.
//
// Thread safety: all methods may be called from any thread. Lock order: the manager's mutex is held while no other is
// taken.
// Errors: as in proto/dak/v1/session.proto.
#ifndef DAK_DAEMON_SESSION_SESSION_MANAGER_H_
#define DAK_DAEMON_SESSION_SESSION_MANAGER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "daemon/congestion_loop.h"
#include "daemon/session/peer.h"
#include "daemon/session/secret.h"
#include "daemon/session/session.h"

namespace dak::daemon {

using SessionPtr = std::shared_ptr<Session>;

struct OpenRequest {
  std::string connection_ticket;
  std::string name;
  uint32_t weight = kDefaultWeight;
  TierArray quota_bytes{};  // kNoLimit: none
};
struct OpenResult {
  SessionPtr session;
  std::string control_ticket;
};

class SessionManager {
 public:
  // Everything that is pointed at outlives the manager. lease_ns 0: none.
  SessionManager(SessionEnvironment* environment, CongestionLoop* congestion, uint64_t lease_ns);
  ~SessionManager();

  // A connection on handles.sock: its number and its ticket.
  struct Connection {
    uint64_t id = 0;
    std::string ticket;
  };
  absl::StatusOr<Connection> Connect(const Peer& peer);
  // Its session, if it has one, is closed soon after, by the reaper.
  void Disconnect(uint64_t connection_id);
  absl::StatusOr<std::vector<HandleGrant>> Redeem(uint64_t connection_id, absl::Span<const std::string> tickets);

  // Sends what the tickets of `grants` are for on the session's connection, and marks them as delivered; if that can't
  // be now, they keep tickets.
  void Deliver(const SessionPtr& session, std::vector<Grant>* grants) const;

  absl::StatusOr<OpenResult> Open(const OpenRequest& request, const Peer& caller);
  // UNAUTHENTICATED unless the token is a session's and the caller has its uid. Renews the lease.
  absl::StatusOr<SessionPtr> Authenticate(absl::string_view token, const Peer& caller);
  // By request. Returns what came back.
  TierArray Close(const SessionPtr& session);

  SessionPtr Find(uint64_t session_id) const;  // null if there is none
  std::vector<SessionPtr> List() const;        // in order of id
  uint64_t lease_ns() const { return lease_ns_; }

  // Refuses new sessions, closes all there are, and waits until everything is back.
  void Shutdown();

  // Called when a session is gone and all that it held is back, before it leaves the list. Set once, before the first.
  void set_on_gone(std::function<void(uint64_t)> on_gone) { on_gone_ = std::move(on_gone); }
  // Sends handles on a connection, without waiting; false if it can't. Set once, before the first session.
  using Send = std::function<bool(uint64_t connection_id, absl::Span<const HandleGrant> handles)>;
  void set_send(Send send) { send_ = std::move(send); }
  // Called when a lease ran out, with the connection that should be ended. Set once, before the first session.
  void set_on_expired(std::function<void(uint64_t)> on_expired) { on_expired_ = std::move(on_expired); }

 private:
  struct ConnectionState {
    Peer peer;
    std::string ticket;
    bool used = false;  // a session was bound to it
    SessionPtr session;
  };
  enum class Ending { kByRequest, kConnection, kLease, kShutdown };

  absl::StatusOr<uint64_t> Claim(const OpenRequest& request, const Peer& caller);
  void Unclaim(uint64_t connection_id);
  absl::StatusOr<SessionPtr> MakeSession(const OpenRequest& request, const Peer& peer, uint64_t connection_id,
                                         std::vector<HandleGrant>* pages);
  // Takes the session's token away, so that nothing new starts on it. False if it was ending already.
  bool BeginEnd(const SessionPtr& session, Ending ending);
  void OnClosed(const Session& session, const TierArray& freed);
  void Reap();
  std::vector<SessionPtr> TakeExpired() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  SessionEnvironment* const environment_;
  CongestionLoop* const congestion_;
  const uint64_t lease_ns_;
  Send send_;
  std::function<void(uint64_t)> on_expired_;
  std::function<void(uint64_t)> on_gone_;

  mutable absl::Mutex mutex_;
  bool shutting_down_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_reaper_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_connection_id_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t next_session_id_ ABSL_GUARDED_BY(mutex_) = 1;
  uint64_t opening_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<uint64_t, ConnectionState> connections_ ABSL_GUARDED_BY(mutex_);
  SecretMap<uint64_t> connection_tickets_ ABSL_GUARDED_BY(mutex_);
  SecretMap<SessionPtr> tokens_ ABSL_GUARDED_BY(mutex_);
  absl::btree_map<uint64_t, SessionPtr> sessions_ ABSL_GUARDED_BY(mutex_);  // until everything is back
  absl::flat_hash_map<uint64_t, Ending> endings_ ABSL_GUARDED_BY(mutex_);   // by session, once it ends
  std::vector<SessionPtr> reap_queue_ ABSL_GUARDED_BY(mutex_);
  std::thread reaper_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_SESSION_MANAGER_H_

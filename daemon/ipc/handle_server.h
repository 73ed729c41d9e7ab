// handles.sock: descriptors for tickets, and the sign of life of every session (proto/dak/v1/handles.proto).
//
// One thread serves all connections with epoll and never calls the driver: tickets hold their descriptors. A packet
// that can't be read is answered with an error and costs nothing else; a connection that doesn't take its replies, or
// ends, is closed, and its session with it.
//
// Thread safety: Start and Stop belong to one thread; EndConnection and Deliver may be called from any.
#ifndef DAK_DAEMON_IPC_HANDLE_SERVER_H_
#define DAK_DAEMON_IPC_HANDLE_SERVER_H_

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "daemon/ipc/peers.h"
#include "daemon/ipc/unix_listener.h"
#include "daemon/session/session_manager.h"
#include "dak/v1/handles.pb.h"

namespace dak::daemon {

class HandleServer {
 public:
  // `sessions` outlives the server.
  HandleServer(UnixListener listener, PeerPolicy policy, std::string version, SessionManager* sessions);
  ~HandleServer();
  absl::Status Start();
  // Ends every connection.
  void Stop();
  // Cuts a connection, as if its peer had gone. Harmless if it isn't there.
  void EndConnection(uint64_t connection_id);
  // Sends `handles` as a delivery, without waiting. False if the connection isn't there or takes no more now.
  bool Deliver(uint64_t connection_id, absl::Span<const HandleGrant> handles);

 private:
  void Run();
  void AcceptOne();
  void Serve(uint64_t connection_id);
  // False if the connection is over.
  bool ServeOnePacket(uint64_t connection_id, int fd);
  bool Answer(uint64_t connection_id, int fd, const char* data, size_t size);
  void Drop(uint64_t connection_id);

  UnixListener listener_;
  const PeerPolicy policy_;
  const std::string version_;
  SessionManager* const sessions_;
  UniqueFd epoll_;
  UniqueFd stop_event_;
  std::thread thread_;
  std::vector<char> buffer_;  // the thread's
  absl::Mutex mutex_;
  absl::flat_hash_map<uint64_t, UniqueFd> connections_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_IPC_HANDLE_SERVER_H_

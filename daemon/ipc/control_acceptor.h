// Accepts on control.sock, checks who is calling, and hands the connection to gRPC, whose own listener checks nobody.
//
// Thread safety: Start and Stop belong to one thread. `server` and `peers` outlive the acceptor, and the server must
// not be shut down before Stop has returned.
#ifndef DAK_DAEMON_IPC_CONTROL_ACCEPTOR_H_
#define DAK_DAEMON_IPC_CONTROL_ACCEPTOR_H_

#include <thread>

#include "absl/status/status.h"
#include "daemon/ipc/peers.h"
#include "daemon/ipc/unix_listener.h"

namespace grpc {
class Server;
}

namespace dak::daemon {

class ControlAcceptor {
 public:
  ControlAcceptor(UnixListener listener, grpc::Server* server, PeerPolicy policy, PeerTable* peers);
  ~ControlAcceptor();
  absl::Status Start();
  void Stop();

 private:
  void Run();
  void AcceptOne();

  UnixListener listener_;
  grpc::Server* const server_;
  const PeerPolicy policy_;
  PeerTable* const peers_;
  UniqueFd stop_event_;
  std::thread thread_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_IPC_CONTROL_ACCEPTOR_H_

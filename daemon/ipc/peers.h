// Peer credentials: read from the kernel, checked against the configured users, and kept for gRPC.
//
// gRPC names a connection that it was handed as a descriptor "fd:N" and says nothing more of it. A PeerTable keeps what
// SO_PEERCRED said of N at accept. Descriptor numbers are used again after a close, so the acceptor gives connections
// ascending numbers: a request of a connection that has gone can't be taken for another's until the whole range has
// been through (docs/security.md).
//
// Thread safety: PeerPolicy is immutable; PeerTable's methods may be called from any thread.
#ifndef DAK_DAEMON_IPC_PEERS_H_
#define DAK_DAEMON_IPC_PEERS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "allocator/base/unique_fd.h"
#include "daemon/session/peer.h"

namespace dak::daemon {

// SO_PEERCRED of a connected Unix socket.
absl::StatusOr<Peer> ReadPeer(int fd);

class PeerPolicy {
 public:
  // Empty: everybody whom the socket's mode lets in. Root and `own_uid` are always allowed.
  PeerPolicy(std::vector<uint32_t> allowed_uids, uint32_t own_uid);
  bool Allows(const Peer& peer) const;

 private:
  std::vector<uint32_t> allowed_uids_;
  uint32_t own_uid_;
};

class PeerTable {
 public:
  // Numbers that connections get: [first, last].
  PeerTable(int first_fd, int last_fd) : first_fd_(first_fd), last_fd_(last_fd), next_fd_(first_fd) {}

  // Moves `fd` to the next number in the range and remembers its peer. RESOURCE_EXHAUSTED if no number is free.
  absl::StatusOr<UniqueFd> Enter(UniqueFd fd, const Peer& peer);
  // `grpc_peer` is what ServerContext::peer() says. UNAUTHENTICATED if it isn't an entered connection.
  absl::StatusOr<Peer> Find(const std::string& grpc_peer) const;

 private:
  const int first_fd_;
  const int last_fd_;
  mutable absl::Mutex mutex_;
  int next_fd_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<int, Peer> peers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_IPC_PEERS_H_

// The connection on handles.sock: the session's life line, and the way descriptors come.
//
// dakd greets first. After that each request is answered by one packet (proto/dak/v1/handles.proto). A reply that comes
// after its request was given up is thrown away, with its descriptors, before the next request goes out. Deliveries
// come at any time, and are kept until they are taken or dropped.
//
// Ownership: owns the socket. The session ends when this object dies. A forked child's copy of the socket is closed.
// Thread safety: calls are serialised inside; PeerIsGone may be called from any thread.
// Errors: UNAVAILABLE (nobody listens, or the peer is gone), PERMISSION_DENIED, DEADLINE_EXCEEDED, FAILED_PRECONDITION
// with VERSION_MISMATCH, INTERNAL for packets that break the protocol; else what dakd answered.
#ifndef DAK_CLIENT_SRC_HANDLE_CONNECTION_H_
#define DAK_CLIENT_SRC_HANDLE_CONNECTION_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "allocator/base/unique_fd.h"
#include "dak/v1/handles.pb.h"

namespace dak::client {

inline constexpr uint32_t kApiVersion = 1;
inline constexpr size_t kMaxTicketsPerRequest = 64;

struct ReceivedHandle {
  v1::Handle info;
  UniqueFd fd;
};

class HandleConnection {
 public:
  // Connects, takes the greeting and checks its version.
  static absl::StatusOr<std::unique_ptr<HandleConnection>> Connect(const std::string& socket_path,
                                                                   absl::Duration timeout);
  ~HandleConnection();
  HandleConnection(const HandleConnection&) = delete;
  HandleConnection& operator=(const HandleConnection&) = delete;

  const v1::HandleReply& greeting() const { return greeting_; }

  // The descriptors behind the tickets, in order; a ticket may stand for several. At most 64 tickets go in one request.
  // If one is refused, none of what came is kept.
  absl::StatusOr<std::vector<ReceivedHandle>> Redeem(absl::Span<const std::string> tickets, absl::Duration timeout);

  // What was delivered for these segments, in order; dakd sends it before it answers the call that asked for it. Drops
  // what else was delivered: calls that ask for deliveries don't overlap.
  absl::StatusOr<std::vector<ReceivedHandle>> TakeDelivered(absl::Span<const uint64_t> segment_ids,
                                                            absl::Duration timeout);
  // Drops what was delivered and not taken, after a call whose answer was lost.
  void DropDelivered();

  // True from when the daemon's end is closed on, for ever.
  bool PeerIsGone() const;

 private:
  struct Packet {
    v1::HandleReply reply;
    std::vector<ReceivedHandle> handles;
  };
  explicit HandleConnection(std::string socket_path) : socket_path_(std::move(socket_path)) {}
  absl::Status Open(absl::Duration timeout);
  // The next packet that is no delivery; deliveries that come before it are kept.
  absl::StatusOr<Packet> ReceiveReply(absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Packet> Receive(absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Send(const std::string& packet, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Wait(short events, absl::Time deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Packet> Exchange(const v1::HandleRequest& request, absl::Time deadline)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Gone() const;

  const std::string socket_path_;
  int fd_ = -1;
  v1::HandleReply greeting_;
  mutable std::atomic<bool> gone_{false};
  absl::Mutex mutex_;
  uint64_t replies_owed_ ABSL_GUARDED_BY(mutex_) = 0;  // requests whose reply hasn't been read
  std::vector<ReceivedHandle> delivered_ ABSL_GUARDED_BY(mutex_);
  std::string buffer_ ABSL_GUARDED_BY(mutex_);  // a packet; kept, not made anew for each
};

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_HANDLE_CONNECTION_H_

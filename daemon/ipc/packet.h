// One packet of handles.sock with descriptors beside it.
#ifndef DAK_DAEMON_IPC_PACKET_H_
#define DAK_DAEMON_IPC_PACKET_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace dak::daemon {

inline constexpr size_t kMaxPacketBytes = 64 * 1024;
inline constexpr size_t kMaxPacketFds = 128;

// Sends without waiting. UNAVAILABLE if the peer has gone or takes nothing more, or the kernel refuses.
absl::Status SendPacket(int fd, absl::string_view payload, absl::Span<const int> fds);

struct ReceivedPacket {
  size_t size = 0;         // bytes in the buffer
  bool ended = false;      // the peer has gone, or sent an empty packet, which looks the same
  bool nothing = false;    // no packet is waiting
  bool malformed = false;  // too long for the buffer, or with descriptors, which are dropped
};
// Receives one packet without waiting.
ReceivedPacket ReceivePacket(int fd, absl::Span<char> buffer);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_IPC_PACKET_H_

// Who is at the other end of a socket, as the kernel said when it connected. A value.
#ifndef DAK_DAEMON_SESSION_PEER_H_
#define DAK_DAEMON_SESSION_PEER_H_

#include <cstdint>

namespace dak::daemon {

struct Peer {
  int32_t pid = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_PEER_H_

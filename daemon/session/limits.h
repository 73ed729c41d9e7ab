// Bounds of the daemon's state and of every request. Nothing in the daemon grows without one of these.
#ifndef DAK_DAEMON_SESSION_LIMITS_H_
#define DAK_DAEMON_SESSION_LIMITS_H_

#include <cstdint>

namespace dak::daemon {

// Bounds of the API itself: the same on every daemon (proto/dak/v1).
inline constexpr uint32_t kApiVersion = 1;
inline constexpr uint64_t kMaxNameLength = 128;
inline constexpr uint64_t kMaxFingerprintLength = 128;
inline constexpr uint64_t kMaxTensorsPerRequest = 1024;
inline constexpr uint64_t kMaxTicketsPerRequest = 64;
inline constexpr uint64_t kMaxDimension = (uint64_t{1} << 31) - 1;
inline constexpr uint64_t kMaxTensorBytes = uint64_t{1} << 50;
inline constexpr uint64_t kMaxOperationBytes = uint64_t{1} << 50;
inline constexpr uint64_t kMaxOperations = 100'000;
inline constexpr uint32_t kMaxTileRows = 4096;
inline constexpr uint32_t kDefaultTileRows = 64;
inline constexpr uint32_t kMaxBoxRows = 256;
inline constexpr uint32_t kDefaultBoxRows = 64;
inline constexpr uint32_t kBoxRowBytes = 128;
inline constexpr uint32_t kMaxWeight = 1000;
inline constexpr uint32_t kDefaultWeight = 100;
inline constexpr uint32_t kMaxPageSize = 1000;
inline constexpr uint32_t kDefaultPageSize = 100;
inline constexpr uint32_t kMaxReplay = 1024;
inline constexpr uint64_t kMaxWatcherQueue = 4096;
inline constexpr uint64_t kBlockBytes = 4096;  // of placement inside a segment

// Bounds that configuration sets (docs/configuration.md).
struct Limits {
  uint64_t max_sessions = 1024;
  uint64_t max_tensors_per_session = 1'000'000;
  uint64_t max_groups_per_session = 4096;
  uint64_t max_tickets_per_session = 4096;  // handed out and not yet redeemed; each holds one descriptor
  uint64_t max_publications = 4096;
  uint64_t max_tensors_per_publication = 65'536;
  uint64_t max_watchers = 64;
  uint64_t max_connections = 2048;               // on handles.sock
  uint64_t max_move_bytes = uint64_t{16} << 30;  // of one move, over the link
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_LIMITS_H_

// Copies between segments, for migration: in chunks, at the rate that the congestion controller leaves to the daemon's
// own traffic, until somebody wants it to end.
//
// What crosses a link is paced as that link allows; copies between remote tiers aren't. Segments are mapped for the
// length of the call. A copy that ends early, by a failure or by `check`, leaves the sources as they were and the
// targets half written: they are the caller's to destroy.
//
// Thread safety: calls share nothing. Errors: the driver's, and what `check` says.
#ifndef DAK_DAEMON_SESSION_COPIER_H_
#define DAK_DAEMON_SESSION_COPIER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "allocator/device/device.h"
#include "daemon/congestion_loop.h"
#include "daemon/session/tensor.h"

namespace dak::daemon {

struct CopyStep {
  const Segment* source = nullptr;
  uint64_t source_offset_bytes = 0;
  const Segment* target = nullptr;
  uint64_t target_offset_bytes = 0;
  uint64_t bytes = 0;
};

struct CopyStats {
  std::array<TierArray, kTierCount> bytes{};  // [from][to]
  uint64_t duration_ns = 0;
  uint64_t total_bytes() const;
  uint64_t link_bytes() const;  // between HBM and a remote tier
};

struct CopyHooks {
  // Before each chunk; a status that isn't OK ends the copy. Never null.
  std::function<absl::Status()> check;
  // After each chunk, with the bytes copied so far. May be null.
  std::function<void(uint64_t)> progress;
};

uint64_t TotalBytes(absl::Span<const CopyStep> steps);
// Bytes of the steps that cross a link.
uint64_t LinkBytes(absl::Span<const CopyStep> steps);

// `stats` has what was copied, also after a failure. `congestion` null: unpaced.
absl::Status CopyAll(Device& device, CongestionLoop* congestion, absl::Span<const CopyStep> steps,
                     const CopyHooks& hooks, CopyStats* stats);

// "hbm to host 4096 bytes, host to host 512 bytes in 0.012 s (0.4 GB/s)", for events.
std::string Describe(const CopyStats& stats);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_COPIER_H_

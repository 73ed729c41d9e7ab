// One-time tickets: a ticket is given out over gRPC and redeemed for descriptors on handles.sock, by the same session.
//
// A ticket holds its descriptors, exported when it was made: redeeming calls no driver. A ticket that dies unredeemed
// closes them.
//
// Thread safety: none; its owner locks.
// Errors: UNAUTHENTICATED with BAD_TICKET names the ticket ("tickets[2]"); a refused request spends nothing.
#ifndef DAK_DAEMON_SESSION_TICKETS_H_
#define DAK_DAEMON_SESSION_TICKETS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "allocator/base/unique_fd.h"
#include "allocator/device/device.h"
#include "daemon/session/secret.h"

namespace dak::daemon {

// One descriptor and what is said beside it.
struct HandleGrant {
  enum class Purpose { kSegment = 1, kControlPage = 2, kReportPage = 3 };  // values equal dak.v1.Handle.Purpose's
  Purpose purpose = Purpose::kSegment;
  uint64_t segment_id = 0;
  Tier tier = Tier::kHbm;
  HandleKind kind = HandleKind::kMemfd;
  uint64_t bytes = 0;
  bool read_only = false;
  UniqueFd fd = UniqueFd();
};

class TicketBook {
 public:
  // The new ticket's 16 bytes.
  std::string Add(std::vector<HandleGrant> handles);
  // All of them, each once, or none.
  absl::StatusOr<std::vector<HandleGrant>> Redeem(absl::Span<const std::string> tickets);
  // Drops the tickets for a segment, since nothing may be handed out that isn't held any more.
  void RevokeSegment(uint64_t segment_id);
  void Clear() { tickets_.Clear(); }
  size_t size() const { return tickets_.size(); }

 private:
  SecretMap<std::vector<HandleGrant>> tickets_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_TICKETS_H_

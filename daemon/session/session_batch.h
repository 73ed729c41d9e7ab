// Tensors being placed: what Allocate and PrepareMove share. For the session's own source files.
#ifndef DAK_DAEMON_SESSION_SESSION_BATCH_H_
#define DAK_DAEMON_SESSION_SESSION_BATCH_H_

#include <array>
#include <optional>
#include <vector>

#include "allocator/base/unique_fd.h"
#include "daemon/session/session.h"

namespace dak::daemon {

struct PartIndex {
  size_t tensor = 0;
  size_t part = 0;
};

// Memory made for a batch, at most one segment a tier. The reservation dies last: its bytes are free only when the
// segment is gone.
struct NewSegment {
  Reservation reservation;
  OwnedSegment segment;
  UniqueFd fd;
  Grant grant;
};

struct Session::Batch {
  const char* field = "tensors";  // of the request, for errors
  Group* group = nullptr;
  bool group_is_new = false;
  std::vector<TensorView> views;
  std::vector<PartIndex> unplaced;
  std::vector<PartIndex> placed;
  std::array<std::optional<NewSegment>, kTierCount> segments;

  TensorPart& part(PartIndex index) { return views[index.tensor].tensor.parts[index.part]; }
  // The first tensor with an unplaced part in `tier`.
  size_t FirstOf(Tier tier) {
    for (const PartIndex index : unplaced) {
      if (part(index).tier == tier) return index.tensor;
    }
    return 0;
  }
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_SESSION_BATCH_H_

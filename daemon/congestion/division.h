// Splits bytes in flight into windows of whole tiles.
//
// Sessions are hungry (they use what they get) or modest (they use less than they might, down to nothing). The modest
// ones are counted with what they use; the hungry ones split the rest of the target by weight, at least a tile each.
// If somewhat more or fewer tiles make everyone's share a whole number, those are taken; otherwise the parts of tiles
// that rounding takes are carried to the next division. What then is left under the cap is lent to
// the modest ones, up to the share that they would have if they were hungry.
//
// Thread safety: pure functions on the caller's values. O(n log n).
#ifndef DAK_DAEMON_CONGESTION_DIVISION_H_
#define DAK_DAEMON_CONGESTION_DIVISION_H_

#include <cstdint>

#include "absl/types/span.h"

namespace dak::congestion {

struct Budget {
  double target_bytes = 0;  // what those that want the link share
  double enough_bytes = 0;  // with less than this they can't fill it
  double cap_bytes = 0;     // what all windows together may reach, but that every hungry session gets a tile
  uint64_t tile_bytes = 1;

  friend bool operator==(const Budget&, const Budget&) = default;
};

struct Share {
  uint32_t weight = 1;  // at least 1
  bool hungry = false;
  double used_bytes = 0;      // modest: counted against the target, up to the fair share
  double carry_tiles = 0;     // in and out: owed by earlier roundings
  uint64_t window_bytes = 0;  // out
};

struct Division {
  double hungry_bytes = 0;  // all windows of hungry sessions
  double modest_bytes = 0;  // what modest sessions are counted with
  double window_bytes = 0;  // all windows
};

// Sets every share's window. With `settle_rounding`, carries are paid out and made anew; without, they stay.
Division Divide(const Budget& budget, bool settle_rounding, absl::Span<Share> shares);

}  // namespace dak::congestion

#endif  // DAK_DAEMON_CONGESTION_DIVISION_H_

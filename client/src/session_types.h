// What a session's calls take, return and hold. Values without behaviour.
#ifndef DAK_CLIENT_SRC_SESSION_TYPES_H_
#define DAK_CLIENT_SRC_SESSION_TYPES_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "allocator/base/tier.h"
#include "client/src/tensor.h"

namespace dak::client {

struct SessionOptions {
  std::string runtime_dir;  // empty: $DAK_RUNTIME_DIR, else /run/dak
  std::string name;         // empty: the program's name
  uint32_t weight = 0;
  std::array<uint64_t, kTierCount> quota_bytes{};  // by TierIndex; 0: the daemon's default
  absl::Duration timeout = absl::ZeroDuration();   // zero: the defaults
};

struct SessionStatus {
  uint64_t session_id = 0;
  std::string device_kind;
  std::string device_name;
  int device_ordinal = -1;
  std::string daemon_version;
  uint64_t window_bytes = 0;
  uint64_t plan_version = 0;
  uint64_t remote_bytes = 0;
  bool connected = false;
};

struct MoveSpec {
  Tensor* tensor = nullptr;
  double offload_ratio = 0;
  int remote_tier = 0;  // a Tier, or 0: as it is
  uint32_t tile_rows = 0;
  // Rows from stable_rows on may be written until the commit, which copies them.
  bool written = false;
  uint64_t stable_rows = 0;
};

struct MoveStatus {
  uint64_t tensor_count = 0;
  uint64_t hbm_to_remote_bytes = 0;
  uint64_t remote_to_hbm_bytes = 0;
  uint64_t within_tier_bytes = 0;
  uint64_t copy_ns = 0;
};

struct MovingTensor {
  Tensor* now = nullptr;
  std::unique_ptr<Tensor> next;  // the same tensor in its new place
  uint64_t stable_rows = 0;
};

struct PendingMove {
  uint64_t id = 0;
  std::vector<MovingTensor> tensors;
};

}  // namespace dak::client

#endif  // DAK_CLIENT_SRC_SESSION_TYPES_H_

// Tensors as the daemon keeps them, apart from the API's messages. Values without behaviour.
#ifndef DAK_DAEMON_SESSION_TENSOR_H_
#define DAK_DAEMON_SESSION_TENSOR_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "allocator/base/tier.h"
#include "allocator/device/device.h"

namespace dak::daemon {

using TierArray = std::array<uint64_t, kTierCount>;  // by TierIndex

// What a client asks for. Fields and bounds are TensorSpec's of proto/dak/v1/tensor.proto.
struct TensorSpec {
  std::string name;
  ElementType element = ElementType::kBf16;
  uint64_t rows = 0;
  uint64_t cols = 0;
  Tier remote_tier = Tier::kHost;  // matters only if offload_ratio > 0
  double offload_ratio = 0;
  uint32_t tile_rows = 0;
  uint32_t box_rows = 0;
  uint32_t box_cols = 0;
};

// Rows [first_row, first_row + rows) in a segment.
struct TensorPart {
  Tier tier = Tier::kHbm;
  uint64_t first_row = 0;
  uint64_t rows = 0;
  uint64_t bytes = 0;
  uint64_t segment_id = 0;
  uint64_t offset_bytes = 0;  // in the segment
  uint64_t arena_offset = 0;  // in the arena, blocks
};
using TensorParts = absl::InlinedVector<TensorPart, 2>;

struct Tensor {
  uint64_t id = 0;
  std::string name;
  ElementType element = ElementType::kBf16;
  uint64_t rows = 0;
  uint64_t cols = 0;
  uint32_t box_rows = 0;
  uint32_t box_cols = 0;
  TensorParts parts;
};

// A tensor with where it belongs and its descriptors, as a response carries it.
struct TensorView {
  Tensor tensor;
  std::string group;
  uint64_t session_id = 0;  // 0: published
  // One a part, or empty; nullptr where the part can't have one.
  absl::InlinedVector<std::unique_ptr<TensorMap>, 2> maps;
};

// A descriptor to fetch.
struct Grant {
  uint64_t segment_id = 0;
  Tier tier = Tier::kHbm;
  uint64_t bytes = 0;
  HandleKind kind = HandleKind::kMemfd;
  bool read_only = false;
  std::string ticket;
  bool delivered = false;  // it was sent already, and there is no ticket
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_SESSION_TENSOR_H_

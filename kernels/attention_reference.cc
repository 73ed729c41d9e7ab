#include <algorithm>
#include <cmath>
#include <vector>

#include "allocator/base/error_detail.h"
#include "allocator/base/status_macros.h"
#include "kernels/attention.h"
#include "kernels/attention_operands.h"
#include "kernels/attention_plan.h"
#include "kernels/element.h"
#include "kernels/remote_reader.h"

namespace dak::kernels {
namespace {

// A sequence's context as the kernel takes it: numbers clamped to what the tables hold.
struct Context {
  const int32_t* pages = nullptr;
  uint32_t remote_tokens = 0;  // the first ones of the pages' list
  uint32_t local_tokens = 0;
  uint32_t remote_entries = 0;
};

Context ContextOf(const AttentionShape& shape, const AttentionOperands& operands, uint32_t sequence) {
  const auto most = static_cast<int64_t>(shape.max_pages);
  const int64_t length = reinterpret_cast<const int32_t*>(operands.lengths)[sequence];
  const int64_t remote =
      shape.remote_pages > 0 ? reinterpret_cast<const int32_t*>(operands.remote_counts)[sequence] : 0;
  const auto tokens = static_cast<uint32_t>(std::clamp<int64_t>(length, 0, most * shape.page_tokens));
  const auto remote_pages = static_cast<uint32_t>(std::clamp<int64_t>(remote, 0, most));
  Context context;
  context.pages = reinterpret_cast<const int32_t*>(operands.block_table) + uint64_t{sequence} * shape.max_pages;
  context.remote_tokens = std::min(tokens, remote_pages * shape.page_tokens);
  context.local_tokens = tokens - context.remote_tokens;
  context.remote_entries = static_cast<uint32_t>(DivideUp(context.remote_tokens, shape.page_tokens));
  return context;
}

// The query heads of one KV head: largest scores, sums and outputs so far, in fp32 as the kernel's.
class GroupState {
 public:
  GroupState(const AttentionShape& shape, const uint16_t* q)
      : shape_(shape),
        group_(shape.heads / shape.kv_heads),
        q_(group_ * shape.head_dim),
        largest_(group_, -INFINITY),
        sums_(group_),
        outputs_(group_ * shape.head_dim),
        keys_(kBlockTokens * shape.head_dim),
        values_(kBlockTokens * shape.head_dim) {
    for (size_t i = 0; i < q_.size(); ++i) q_[i] = ElementToFloat(shape.element, q[i]);
  }

  // Adds the first `tokens` of a block; without an address, of zeros.
  void Add(const uint16_t* keys, const uint16_t* values, uint32_t tokens) {
    for (size_t i = 0; i < tokens * shape_.head_dim; ++i) {
      keys_[i] = keys == nullptr ? 0 : ElementToFloat(shape_.element, keys[i]);
      values_[i] = values == nullptr ? 0 : ElementToFloat(shape_.element, values[i]);
    }
    for (uint32_t row = 0; row < group_; ++row) AddRow(row, tokens);
  }

  void Store(uint16_t* out) const {
    for (size_t i = 0; i < outputs_.size(); ++i) {
      const float sum = sums_[i / shape_.head_dim];
      out[i] = FloatToElement(shape_.element, sum == 0 ? 0 : outputs_[i] / sum);
    }
  }

 private:
  void AddRow(uint32_t row, uint32_t tokens) {
    const float* q = q_.data() + row * shape_.head_dim;
    float* output = outputs_.data() + row * shape_.head_dim;
    float scores[kBlockTokens];
    float largest = largest_[row];
    for (uint32_t token = 0; token < tokens; ++token) {
      float sum = 0;
      for (uint32_t i = 0; i < shape_.head_dim; ++i) sum += q[i] * keys_[token * shape_.head_dim + i];
      scores[token] = sum * shape_.scale;
      largest = std::max(largest, scores[token]);
    }
    const float factor = std::exp(largest_[row] - largest);
    largest_[row] = largest;
    sums_[row] *= factor;
    for (uint32_t i = 0; i < shape_.head_dim; ++i) output[i] *= factor;
    for (uint32_t token = 0; token < tokens; ++token) {
      const float weight = std::exp(scores[token] - largest);
      sums_[row] += weight;
      for (uint32_t i = 0; i < shape_.head_dim; ++i) output[i] += weight * values_[token * shape_.head_dim + i];
    }
  }

  const AttentionShape& shape_;
  const uint32_t group_;
  std::vector<float> q_;
  std::vector<float> largest_;
  std::vector<float> sums_;
  std::vector<float> outputs_;
  std::vector<float> keys_;
  std::vector<float> values_;
};

// The first element of a block's keys, or null if the page isn't in the pool.
const uint16_t* FindBlock(const AttentionShape& shape, uint64_t pool, uint64_t pages, int32_t page, uint32_t head,
                          uint32_t token) {
  if (page < 0 || static_cast<uint64_t>(page) >= pages) return nullptr;
  const uint64_t rows = (static_cast<uint64_t>(page) * shape.kv_heads + head) * 2 * shape.page_tokens;
  return reinterpret_cast<const uint16_t*>(pool) + (rows + token % shape.page_tokens) * shape.head_dim;
}

}  // namespace

absl::StatusOr<AttentionReferenceStats> AttentionReference(const AttentionShape& shape,
                                                           const AttentionOperands& operands, const LinkView& link,
                                                           const LinkModel& model, bool real_time) {
  DAK_RETURN_IF_ERROR(CheckAttention(shape));
  DAK_RETURN_IF_ERROR(CheckOperands(shape, operands));
  if (shape.remote_pages > 0 && model.bandwidth_bytes_per_s == 0) {
    return InvalidField("model.bandwidth_bytes_per_s", "0 never ends", "above 0 where pages are remote");
  }
  const ModelClock clock(real_time);
  const uint64_t block_bytes = BlockBytes(shape.head_dim);
  const uint32_t group = shape.heads / shape.kv_heads;
  std::vector<Context> contexts;
  uint64_t blocks[2] = {};
  for (uint32_t sequence = 0; sequence < shape.batch; ++sequence) {
    contexts.push_back(ContextOf(shape, operands, sequence));
    blocks[0] += shape.kv_heads * DivideUp(contexts.back().local_tokens, kBlockTokens);
    blocks[1] += shape.kv_heads * DivideUp(contexts.back().remote_tokens, kBlockTokens);
  }
  RemoteReader reader(link, model, block_bytes, blocks[1] * block_bytes);
  for (uint32_t task = 0; task < shape.batch * shape.kv_heads; ++task) {
    const Context& context = contexts[task / shape.kv_heads];
    const uint32_t head = task % shape.kv_heads;
    const uint64_t first = uint64_t{task} * group * shape.head_dim;
    GroupState state(shape, reinterpret_cast<const uint16_t*>(operands.q) + first);
    const auto run_part = [&](uint64_t pool, uint64_t pages, uint32_t entries_before, uint32_t tokens, bool remote) {
      for (uint32_t token = 0; token < tokens; token += kBlockTokens) {
        const int32_t page = context.pages[entries_before + token / shape.page_tokens];
        const uint16_t* keys = FindBlock(shape, pool, pages, page, head, token);
        const uint16_t* values = keys == nullptr ? nullptr : keys + uint64_t{shape.page_tokens} * shape.head_dim;
        if (remote) reader.Read(block_bytes);
        state.Add(keys, values, std::min(kBlockTokens, tokens - token));
      }
    };
    run_part(operands.kv_remote, shape.remote_pages, 0, context.remote_tokens, true);
    run_part(operands.kv_local, shape.local_pages, context.remote_entries, context.local_tokens, false);
    state.Store(reinterpret_cast<uint16_t*>(operands.out) + first);
    clock.SleepTo(reader.seconds());
  }
  const AttentionReferenceStats stats = reader.Finish(blocks[0] * block_bytes);
  clock.SleepTo(stats.modelled_seconds);
  return stats;
}

}  // namespace dak::kernels

#include "tests/gpu/attention_problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <stdexcept>
#include <thread>

#include "kernels/attention_plan.h"
#include "kernels/element.h"

namespace dak::kernels {
namespace {

constexpr uint8_t kPoisonByte = 0xFF;  // 0xFFFF is NaN in both types
constexpr uint16_t kPoison = 0xFFFF;
constexpr int32_t kPoisonPage = 0x7FFF'FFFF;

// Straight as bits: sign and mantissa random, magnitude from 1/16 to 1.
uint16_t RandomElement(ElementType element, std::mt19937& random) {
  const uint32_t bits = random();
  const uint32_t below_one = 1 + (bits >> 16 & 3);
  return static_cast<uint16_t>((bits & 0x8000) |
                               (element == ElementType::kF16 ? (15 - below_one) << 10 | (bits & 0x3FF)
                                                             : (127 - below_one) << 7 | (bits & 0x7F)));
}

void Upload(const Memory& memory, const void* data, size_t bytes) {
  Check(cudaMemcpy(memory.as<void>(), data, bytes, cudaMemcpyDefault), "cudaMemcpy");
}

std::unique_ptr<Memory> MakeMemory(Memory::Where where, size_t bytes) { return std::make_unique<Memory>(where, bytes); }

}  // namespace

AttentionProblem::AttentionProblem(const AttentionCase& attention, uint64_t seed) {
  shape_.batch = static_cast<uint32_t>(attention.lengths.size());
  shape_.heads = attention.heads;
  shape_.kv_heads = attention.kv_heads;
  shape_.head_dim = attention.head_dim;
  shape_.page_tokens = attention.page_tokens;
  shape_.element = attention.element;
  shape_.scale = 0.4f;  // scores differ enough for weights from nearly nothing to nearly all
  const auto longest = static_cast<uint64_t>(*std::max_element(attention.lengths.begin(), attention.lengths.end()));
  shape_.max_pages = static_cast<uint32_t>(DivideUp(longest, shape_.page_tokens)) + attention.spare_pages;
  // Every page may be of either tier, and three are of no sequence.
  uint64_t pages = 3;
  for (const int32_t length : attention.lengths) pages += DivideUp(length, shape_.page_tokens);
  shape_.local_pages = attention.remote_share == 1 ? 0 : pages;
  shape_.remote_pages = attention.remote_share == 0 ? 0 : pages;
  const uint64_t page_elements = uint64_t{2} * shape_.kv_heads * shape_.page_tokens * shape_.head_dim;
  const uint64_t row_elements = uint64_t{shape_.batch} * shape_.heads * shape_.head_dim;
  q_memory_ = MakeMemory(Memory::Where::kDevice, row_elements * 2);
  out_ = MakeMemory(Memory::Where::kDevice, row_elements * 2);
  pool_memory_[0] = MakeMemory(Memory::Where::kDevice, shape_.local_pages * page_elements * 2);
  pool_memory_[1] = MakeMemory(Memory::Where::kHost, shape_.remote_pages * page_elements * 2);
  table_memory_ = MakeMemory(Memory::Where::kDevice, uint64_t{shape_.batch} * shape_.max_pages * 4);
  lengths_ = MakeMemory(Memory::Where::kDevice, uint64_t{shape_.batch} * 4);
  counts_ = MakeMemory(Memory::Where::kDevice, uint64_t{shape_.batch} * 4);
  q_.resize(row_elements);
  pools_[0].resize(shape_.local_pages * page_elements);
  pools_[1].resize(shape_.remote_pages * page_elements);
  Randomise(attention.lengths, attention.remote_share, seed);
  Poison();
}

void AttentionProblem::Layout(const std::vector<int32_t>& lengths, double remote_share) {
  sequences_.clear();
  remote_bytes_ = 0;
  for (const int32_t length : lengths) {
    const auto pages = static_cast<double>(DivideUp(length, shape_.page_tokens));
    const auto full = static_cast<double>(length / static_cast<int32_t>(shape_.page_tokens));
    double remote = std::ceil(pages * remote_share);
    if (shape_.local_pages > 0) remote = std::min(remote, full);
    sequences_.push_back({length, static_cast<int32_t>(remote)});
    const uint64_t tokens = std::min<uint64_t>(length, static_cast<uint64_t>(remote) * shape_.page_tokens);
    remote_bytes_ += DivideUp(tokens, kBlockTokens) * shape_.kv_heads * BlockBytes(shape_.head_dim);
  }
}

void AttentionProblem::Randomise(const std::vector<int32_t>& lengths, double remote_share, uint64_t seed) {
  if (lengths.size() != shape_.batch) throw std::invalid_argument("lengths");
  std::mt19937 random(static_cast<uint32_t>(seed));
  Layout(lengths, remote_share);
  for (uint16_t& element : q_) element = RandomElement(shape_.element, random);
  table_.assign(uint64_t{shape_.batch} * shape_.max_pages, kPoisonPage);
  std::vector<int32_t> free_pages[2];
  for (int tier = 0; tier < 2; ++tier) {
    std::fill(pools_[tier].begin(), pools_[tier].end(), kPoison);
    free_pages[tier].resize(tier == 0 ? shape_.local_pages : shape_.remote_pages);
    std::iota(free_pages[tier].begin(), free_pages[tier].end(), 0);
    std::shuffle(free_pages[tier].begin(), free_pages[tier].end(), random);
  }
  for (uint32_t i = 0; i < shape_.batch; ++i) {
    const Sequence& sequence = sequences_[i];
    for (int32_t page = 0; page * static_cast<int32_t>(shape_.page_tokens) < sequence.length; ++page) {
      std::vector<int32_t>& pages = free_pages[page < sequence.remote_pages ? 1 : 0];
      table_.at(uint64_t{i} * shape_.max_pages + page) = pages.back();
      pages.pop_back();
    }
    for (uint32_t head = 0; head < shape_.kv_heads; ++head) {
      for (int32_t token = 0; token < sequence.length; ++token) {
        auto* key = const_cast<uint16_t*>(FindToken(i, head, token));
        uint16_t* value = key + uint64_t{shape_.page_tokens} * shape_.head_dim;
        for (uint32_t j = 0; j < shape_.head_dim; ++j) key[j] = RandomElement(shape_.element, random);
        for (uint32_t j = 0; j < shape_.head_dim; ++j) value[j] = RandomElement(shape_.element, random);
      }
    }
  }
  std::vector<int32_t> counts;
  for (const Sequence& sequence : sequences_) counts.push_back(sequence.remote_pages);
  Upload(*q_memory_, q_.data(), q_.size() * 2);
  for (int tier = 0; tier < 2; ++tier) Upload(*pool_memory_[tier], pools_[tier].data(), pools_[tier].size() * 2);
  Upload(*table_memory_, table_.data(), table_.size() * 4);
  Upload(*lengths_, lengths.data(), lengths.size() * 4);
  Upload(*counts_, counts.data(), counts.size() * 4);
}

void AttentionProblem::Poison() {
  Check(cudaMemset(out_->as<void>(), kPoisonByte, q_.size() * 2), "cudaMemset");
  Check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

AttentionOperands AttentionProblem::operands() const {
  AttentionOperands operands;
  operands.q = q_memory_->address();
  operands.out = out_->address();
  operands.kv_local = pool_memory_[0]->address();
  operands.kv_remote = pool_memory_[1]->address();
  operands.block_table = table_memory_->address();
  operands.lengths = lengths_->address();
  operands.remote_counts = counts_->address();
  operands.context_ready = context_ready_;
  return operands;
}

std::vector<uint16_t> AttentionProblem::Output() const {
  std::vector<uint16_t> out(q_.size());
  Check(cudaMemcpy(out.data(), out_->as<void>(), out.size() * 2, cudaMemcpyDefault), "cudaMemcpy");
  return out;
}

const uint16_t* AttentionProblem::FindToken(uint32_t sequence, uint32_t head, uint32_t token) const {
  const uint32_t entry = token / shape_.page_tokens;
  const int32_t page = table_[uint64_t{sequence} * shape_.max_pages + entry];
  const int tier = static_cast<int32_t>(entry) < sequences_[sequence].remote_pages ? 1 : 0;
  const uint64_t rows = (static_cast<uint64_t>(page) * shape_.kv_heads + head) * 2 * shape_.page_tokens;
  return pools_[tier].data() + (rows + token % shape_.page_tokens) * shape_.head_dim;
}

void AttentionProblem::ReferenceRow(uint32_t sequence, uint32_t head, std::vector<double>& out) const {
  const uint32_t dim = shape_.head_dim;
  const uint32_t kv_head = head / (shape_.heads / shape_.kv_heads);
  const auto length = static_cast<uint32_t>(sequences_[sequence].length);
  out.assign(dim, 0);
  if (length == 0) return;
  const auto to_double = [&](uint16_t bits) { return static_cast<double>(ElementToFloat(shape_.element, bits)); };
  std::vector<double> q(dim);
  for (uint32_t i = 0; i < dim; ++i) q[i] = to_double(q_[(uint64_t{sequence} * shape_.heads + head) * dim + i]);
  std::vector<double> weights(length);
  for (uint32_t token = 0; token < length; ++token) {
    const uint16_t* key = FindToken(sequence, kv_head, token);
    double sum = 0;
    for (uint32_t i = 0; i < dim; ++i) sum += q[i] * to_double(key[i]);
    weights[token] = sum * shape_.scale;
  }
  const double largest = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (uint32_t token = 0; token < length; ++token) {
    const uint16_t* value = FindToken(sequence, kv_head, token) + uint64_t{shape_.page_tokens} * dim;
    const double weight = std::exp(weights[token] - largest);
    sum += weight;
    for (uint32_t i = 0; i < dim; ++i) out[i] += weight * to_double(value[i]);
  }
  for (double& element : out) element /= sum;
}

double AttentionProblem::RelativeError() const {
  const std::vector<uint16_t> out = Output();
  const uint32_t rows = shape_.batch * shape_.heads;
  const unsigned int threads = std::max(1u, std::thread::hardware_concurrency());
  std::vector<double> errors(threads);
  std::vector<double> norms(threads);
  const auto work = [&](unsigned int thread) {
    std::vector<double> expected;
    for (uint32_t row = thread; row < rows; row += threads) {
      ReferenceRow(row / shape_.heads, row % shape_.heads, expected);
      for (uint32_t i = 0; i < shape_.head_dim; ++i) {
        const double difference =
            ElementToFloat(shape_.element, out[uint64_t{row} * shape_.head_dim + i]) - expected[i];
        errors[thread] += difference * difference;
        norms[thread] += expected[i] * expected[i];
      }
    }
  };
  std::vector<std::thread> workers;
  for (unsigned int i = 0; i < threads; ++i) workers.emplace_back(work, i);
  for (std::thread& worker : workers) worker.join();
  const double error = std::accumulate(errors.begin(), errors.end(), 0.0);
  const double norm = std::accumulate(norms.begin(), norms.end(), 0.0);
  return norm == 0 ? std::sqrt(error) : std::sqrt(error / norm);
}

}  // namespace dak::kernels

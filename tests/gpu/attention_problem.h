// One decode attention on the GPU for tests: pages in HBM and pinned host memory, fresh random inputs, poisoned
// outputs, and a float64 reference computed on the CPU. What isn't part of a context is poisoned too: pages that no
// table names, tokens past a sequence's end, table entries past its pages.
#ifndef DAK_TESTS_GPU_ATTENTION_PROBLEM_H_
#define DAK_TESTS_GPU_ATTENTION_PROBLEM_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/attention.h"
#include "tests/gpu/gemm_problem.h"

namespace dak::kernels {

struct AttentionCase {
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t page_tokens = 16;
  ElementType element = ElementType::kBf16;
  std::vector<int32_t> lengths;
  double remote_share = 0;   // of every sequence's pages, rounded up; of the full ones unless 1
  uint32_t spare_pages = 3;  // of a table's row, past the longest context
};

class AttentionProblem {
 public:
  AttentionProblem(const AttentionCase& attention, uint64_t seed);

  const AttentionShape& shape() const { return shape_; }
  AttentionOperands operands() const;
  // The operands' promise; true from the start.
  void SetContextReady(bool ready) { context_ready_ = ready; }
  uint64_t remote_bytes() const { return remote_bytes_; }  // of a launch, in whole blocks of 16 tokens
  // Fresh lengths, pages and inputs, in place, so that captured graphs see them. No more pages than at first.
  void Randomise(const std::vector<int32_t>& lengths, double remote_share, uint64_t seed);
  void Poison();
  std::vector<uint16_t> Output() const;
  // ||out - reference|| / ||reference||; NaN where an element wasn't written. Sequences without context must be zeros.
  double RelativeError() const;
  double Tolerance() const { return shape_.element == ElementType::kBf16 ? 4e-3 : 6e-4; }

 private:
  struct Sequence {
    int32_t length = 0;
    int32_t remote_pages = 0;
  };
  void Layout(const std::vector<int32_t>& lengths, double remote_share);
  const uint16_t* FindToken(uint32_t sequence, uint32_t head, uint32_t token) const;
  void ReferenceRow(uint32_t sequence, uint32_t head, std::vector<double>& out) const;

  AttentionShape shape_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> table_;
  std::vector<uint16_t> q_;
  std::vector<uint16_t> pools_[2];  // local, remote
  uint64_t remote_bytes_ = 0;
  bool context_ready_ = true;
  std::unique_ptr<Memory> q_memory_;
  std::unique_ptr<Memory> out_;
  std::unique_ptr<Memory> pool_memory_[2];
  std::unique_ptr<Memory> table_memory_;
  std::unique_ptr<Memory> lengths_;
  std::unique_ptr<Memory> counts_;
};

}  // namespace dak::kernels

#endif  // DAK_TESTS_GPU_ATTENTION_PROBLEM_H_

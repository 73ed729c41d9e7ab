// dak_attention over split pages, against an independent reference in double precision.
#include <numeric>

#include "tests/integration/harness/matrix.h"
#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

constexpr uint32_t kHeads = 8;
constexpr uint32_t kKvHeads = 2;
constexpr uint32_t kHeadDim = 64;
constexpr uint32_t kPageTokens = 16;
constexpr uint32_t kMaxPages = 8;
constexpr uint64_t kPages = 128;
constexpr uint64_t kPageElements = uint64_t{kKvHeads} * 2 * kPageTokens * kHeadDim;
constexpr uint64_t kBlockBytes = uint64_t{2} * kPageTokens * kHeadDim * 2;
constexpr float kScale = 0.25f;

// Three sequences, the last without context. Pages of a tier are taken from its end, so that numbers aren't in order.
class AttentionTest : public IntegrationTest {
 protected:
  AttentionTest() : out_(q_.size(), 0x7fff) {}

  void SetUp() override {
    session_ = std::make_unique<dak::Session>(Open());
    auto tensor = session_->Allocate(Matrix("kv", kPages, kPageElements, 0.5));
    ASSERT_TRUE(tensor.ok()) << tensor.status().ToString();
    kv_tensor_ = *tensor;
    ASSERT_TRUE(kv_tensor_.Upload(std::span(kv_)).ok());
    const auto parts = kv_tensor_.GetParts();
    ASSERT_EQ(parts->size(), 2u);
    remote_first_ = parts->back().first_row;
    int32_t local = static_cast<int32_t>(remote_first_);
    int32_t remote = static_cast<int32_t>(kPages - remote_first_);
    for (size_t i = 0; i < lengths_.size(); ++i) {
      for (int32_t page = 0; page * static_cast<int32_t>(kPageTokens) < lengths_[i]; ++page) {
        table_[i * kMaxPages + page] = page < remote_counts_[i] ? --remote : --local;
      }
    }
  }

  dak_attention_args Args() {
    dak_attention_args args{};
    args.kv = kv_tensor_.get();
    args.q = reinterpret_cast<uint64_t>(q_.data());
    args.out = reinterpret_cast<uint64_t>(out_.data());
    args.block_table = reinterpret_cast<uint64_t>(table_.data());
    args.lengths = reinterpret_cast<uint64_t>(lengths_.data());
    args.remote_counts = reinterpret_cast<uint64_t>(remote_counts_.data());
    args.batch = static_cast<uint32_t>(lengths_.size());
    args.heads = kHeads;
    args.kv_heads = kKvHeads;
    args.head_dim = kHeadDim;
    args.page_tokens = kPageTokens;
    args.max_pages = kMaxPages;
    args.scale = kScale;
    return args;
  }

  // The element of a token's key, or with `value` of its value.
  double At(size_t sequence, uint32_t kv_head, int32_t token, uint32_t column, bool value) const {
    const int32_t entry = token / static_cast<int32_t>(kPageTokens);
    const uint64_t row = table_[sequence * kMaxPages + entry] + (entry < remote_counts_[sequence] ? remote_first_ : 0);
    const uint64_t line = (uint64_t{kv_head} * 2 + (value ? 1 : 0)) * kPageTokens + token % kPageTokens;
    return FromBf16(kv_[row * kPageElements + line * kHeadDim + column]);
  }

  double Expected(size_t sequence, uint32_t head, uint32_t column) const {
    const uint32_t kv_head = head / (kHeads / kKvHeads);
    double sum = 0;
    double total = 0;
    for (int32_t token = 0; token < lengths_[sequence]; ++token) {
      double score = 0;
      for (uint32_t i = 0; i < kHeadDim; ++i) {
        score += FromBf16(q_[(sequence * kHeads + head) * kHeadDim + i]) * At(sequence, kv_head, token, i, false);
      }
      const double weight = std::exp(score * kScale);
      total += weight;
      sum += weight * At(sequence, kv_head, token, column, true);
    }
    return total == 0 ? 0 : sum / total;
  }

  double WorstDifference() const {
    double worst = 0;
    for (size_t i = 0; i < out_.size(); ++i) {
      const double expected = Expected(i / kHeadDim / kHeads, i / kHeadDim % kHeads, i % kHeadDim);
      const double difference = std::abs(FromBf16(out_[i]) - expected);
      worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
    }
    return worst;
  }

  std::string FieldOf(const dak_attention_args& args) {
    const dak::Status status = session_->Attention(args);
    EXPECT_EQ(status.code(), DAK_INVALID_ARGUMENT) << status.ToString();
    return status.field();
  }

  std::unique_ptr<dak::Session> session_;
  dak::Tensor kv_tensor_;
  uint64_t remote_first_ = 0;
  std::vector<int32_t> lengths_ = {100, 33, 0};
  std::vector<int32_t> remote_counts_ = {4, 2, 0};
  std::vector<int32_t> table_ = std::vector<int32_t>(3 * kMaxPages, -1);
  std::vector<uint16_t> kv_ = RandomMatrix(kPages, kPageElements, 1, false);
  std::vector<uint16_t> q_ = RandomMatrix(3 * kHeads, kHeadDim, 2, false);
  std::vector<uint16_t> out_;
};

TEST_F(AttentionTest, EqualsTheReferenceAndReadsRemotePagesOnce) {
  const dak::Status status = session_->Attention(Args());
  ASSERT_TRUE(status.ok()) << status.ToString();
  ASSERT_TRUE(session_->Synchronize().ok());
  EXPECT_LT(WorstDifference(), 1e-2);  // outputs are below 1: half a unit in the last of 8 digits is 2e-3
  EXPECT_EQ(session_->GetInfo()->remote_bytes, (4 + 2) * kKvHeads * kBlockBytes);
}

TEST_F(AttentionTest, RefusesWhatItCantRunAndNamesTheField) {
  dak_attention_args args = Args();
  args.head_dim = 32;
  EXPECT_EQ(FieldOf(args), "head_dim");
  args = Args();
  args.kv_heads = 4;
  EXPECT_EQ(FieldOf(args), "kv") << "rows are of another shape";
  args = Args();
  args.kv = nullptr;
  EXPECT_EQ(FieldOf(args), "kv");
  args = Args();
  args.out = args.q;
  EXPECT_EQ(FieldOf(args), "out");
  args = Args();
  args.out = kv_tensor_.GetParts()->front().device_address;
  EXPECT_EQ(FieldOf(args), "out");
  args = Args();
  args.lengths = 0;
  EXPECT_EQ(FieldOf(args), "lengths");
  EXPECT_EQ(out_[0], 0x7fff) << "a refused call writes nothing";
}

TEST_F(AttentionTest, PublishedMemoryIsNeverWritten) {
  auto scratch = session_->Allocate(Matrix("scratch", 64, 4096, 0), "group");
  ASSERT_TRUE(scratch.ok());
  dak_attention_args args = Args();
  args.out = scratch->GetParts()->front().device_address;
  ASSERT_TRUE(session_->Attention(args).ok());
  ASSERT_TRUE(session_->Publish("group", "published", "v1").ok());
  const dak::Status status = session_->Attention(args);
  EXPECT_EQ(status.code(), DAK_FAILED_PRECONDITION);
  EXPECT_EQ(status.field(), "out");
}

}  // namespace
}  // namespace dak::testing

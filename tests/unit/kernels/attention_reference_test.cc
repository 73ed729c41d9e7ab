#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "allocator/base/error_detail.h"
#include "kernels/attention.h"
#include "kernels/attention_plan.h"
#include "kernels/element.h"

namespace dak::kernels {
namespace {

constexpr uint16_t kPoison = 0x7FFF;  // NaN in both types

// Contexts with fresh random elements in shuffled pages; out, and all that is part of no context, poisoned.
struct Problem {
  Problem(AttentionShape s, std::vector<int32_t> context_lengths, std::vector<int32_t> remote, uint64_t seed)
      : shape(s), lengths(std::move(context_lengths)), remote_counts(std::move(remote)), random(seed) {
    shape.batch = static_cast<uint32_t>(lengths.size());
    shape.scale = 0.3f;
    const int32_t longest = *std::max_element(lengths.begin(), lengths.end());
    shape.max_pages = static_cast<uint32_t>(DivideUp(longest, shape.page_tokens)) + 2;
    const uint64_t pages = uint64_t{shape.batch} * shape.max_pages;
    shape.local_pages = shape.remote_pages = pages;
    page_elements = uint64_t{shape.kv_heads} * 2 * shape.page_tokens * shape.head_dim;
    Fill(q, uint64_t{shape.batch} * shape.heads * shape.head_dim);
    out.assign(q.size(), kPoison);
    for (std::vector<uint16_t>& pool : pools) pool.assign(pages * page_elements, kPoison);
    table.assign(pages, -1);
    FillPages(pages);
  }

  void Fill(std::vector<uint16_t>& elements, uint64_t count) {
    elements.resize(count);
    for (uint16_t& element : elements) element = Element();
  }
  uint16_t Element() { return FloatToElement(shape.element, std::uniform_real_distribution<float>(-1, 1)(random)); }

  void FillPages(uint64_t pages);

  uint16_t* Key(uint32_t sequence, uint32_t head, uint32_t token) {
    const uint32_t entry = token / shape.page_tokens;
    const auto page = static_cast<uint64_t>(table[uint64_t{sequence} * shape.max_pages + entry]);
    std::vector<uint16_t>& pool = pools[static_cast<int32_t>(entry) < remote_counts[sequence] ? 1 : 0];
    const uint64_t rows = uint64_t{head} * 2 * shape.page_tokens + token % shape.page_tokens;
    return pool.data() + page * page_elements + rows * shape.head_dim;
  }

  AttentionOperands Operands() {
    const auto address = [](auto& values) { return reinterpret_cast<uint64_t>(values.data()); };
    return {.q = address(q),
            .kv_local = address(pools[0]),
            .kv_remote = address(pools[1]),
            .out = address(out),
            .block_table = address(table),
            .lengths = address(lengths),
            .remote_counts = address(remote_counts)};
  }

  // ||out - reference|| / ||reference||, the reference naive and in double; NaN if an element wasn't written.
  double RelativeError();

  AttentionShape shape;
  std::vector<int32_t> lengths;
  std::vector<int32_t> remote_counts;
  std::mt19937_64 random;
  uint64_t page_elements = 0;
  std::vector<uint16_t> q;
  std::vector<uint16_t> out;
  std::vector<uint16_t> pools[2];  // local, remote
  std::vector<int32_t> table;
};

void Problem::FillPages(uint64_t pages) {
  std::vector<int32_t> numbers(pages);
  std::iota(numbers.begin(), numbers.end(), 0);
  std::shuffle(numbers.begin(), numbers.end(), random);
  for (uint32_t i = 0; i < shape.batch; ++i) {
    for (int32_t token = 0; token < lengths[i]; ++token) {
      const uint64_t entry = uint64_t{i} * shape.max_pages + token / shape.page_tokens;
      table[entry] = numbers[entry];
      for (uint32_t head = 0; head < shape.kv_heads; ++head) {
        uint16_t* key = Key(i, head, token);
        for (uint32_t j = 0; j < shape.head_dim; ++j) {
          key[j] = Element();
          key[uint64_t{shape.page_tokens} * shape.head_dim + j] = Element();
        }
      }
    }
  }
}

double Problem::RelativeError() {
  double error = 0;
  double norm = 0;
  const auto value = [&](uint16_t bits) { return static_cast<double>(ElementToFloat(shape.element, bits)); };
  for (uint32_t row = 0; row < shape.batch * shape.heads; ++row) {
    const uint32_t sequence = row / shape.heads;
    const uint32_t head = row % shape.heads / (shape.heads / shape.kv_heads);
    std::vector<double> weights(lengths[sequence]);
    for (size_t token = 0; token < weights.size(); ++token) {
      const uint16_t* key = Key(sequence, head, token);
      double sum = 0;
      for (uint32_t i = 0; i < shape.head_dim; ++i) sum += value(q[row * shape.head_dim + i]) * value(key[i]);
      weights[token] = std::exp(sum * shape.scale);
    }
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (uint32_t i = 0; i < shape.head_dim; ++i) {
      double expected = 0;
      for (size_t token = 0; token < weights.size(); ++token) {
        const uint16_t* v = Key(sequence, head, token) + uint64_t{shape.page_tokens} * shape.head_dim;
        expected += weights[token] / total * value(v[i]);
      }
      const double difference = value(out[row * shape.head_dim + i]) - expected;
      error += difference * difference;
      norm += expected * expected;
    }
  }
  return std::sqrt(norm == 0 ? error : error / norm);
}

AttentionShape Shape(uint32_t heads, uint32_t kv_heads, uint32_t head_dim, uint32_t page_tokens,
                     ElementType element = ElementType::kBf16) {
  return {.heads = heads, .kv_heads = kv_heads, .head_dim = head_dim, .page_tokens = page_tokens, .element = element};
}

LinkModel TestModel() { return {.bandwidth_bytes_per_s = 1'000'000'000, .round_trip_ns = 10'000}; }

TEST(AttentionReferenceTest, EqualsANaiveDoubleSoftmaxForAllSplits) {
  uint64_t seed = 0;
  for (const auto& [heads, kv_heads] : {std::pair<uint32_t, uint32_t>{2, 2}, {8, 2}, {5, 1}}) {
    for (const uint32_t head_dim : {64, 80, 96, 128}) {
      for (const uint32_t page_tokens : {16, 64}) {
        const auto full = static_cast<int32_t>(200 / page_tokens);
        const auto all = static_cast<int32_t>(DivideUp(200, page_tokens));
        for (const int32_t remote : {0, 1, full, all}) {
          const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
          Problem problem(Shape(heads, kv_heads, head_dim, page_tokens, element), {200, 1, 64}, {remote, 0, 1}, seed);
          ASSERT_TRUE(AttentionReference(problem.shape, problem.Operands(), {}, TestModel(), false).ok());
          EXPECT_LT(problem.RelativeError(), element == ElementType::kBf16 ? 4e-3 : 5e-4)
              << "heads " << heads << " head_dim " << head_dim << " page_tokens " << page_tokens << " remote "
              << remote;
        }
      }
    }
  }
}

TEST(AttentionReferenceTest, ASequenceWithoutContextGetsZeros) {
  Problem problem(Shape(4, 2, 64, 16), {0, 20}, {0, 0}, 1);
  ASSERT_TRUE(AttentionReference(problem.shape, problem.Operands(), {}, TestModel(), false).ok());
  EXPECT_LT(problem.RelativeError(), 4e-3);
  EXPECT_TRUE(std::all_of(problem.out.begin(), problem.out.begin() + 4 * 64, [](uint16_t bits) { return bits == 0; }));
}

TEST(AttentionReferenceTest, RemoteBytesAreReadOnceAHeadGroupInBlocksOf16Tokens) {
  Problem problem(Shape(16, 2, 128, 16), {100, 33}, {5, 3}, 2);  // the second is all remote, its last page part full
  v1::LinkControl control{};
  control.window_bytes = 5 * BlockBytes(128) / 2;
  v1::LinkReport report{};
  const auto stats = AttentionReference(problem.shape, problem.Operands(), {&control, &report}, TestModel(), false);
  ASSERT_TRUE(stats.ok());
  const uint64_t blocks = 2 * (5 + 3);
  EXPECT_EQ(stats->remote_bytes, blocks * BlockBytes(128));
  EXPECT_EQ(stats->round_trips, blocks);
  EXPECT_EQ(stats->inflight_peak_bytes, 2 * BlockBytes(128)) << "whole blocks of the window";
  EXPECT_EQ(report.bytes, stats->remote_bytes);
  EXPECT_EQ(report.round_trips, stats->round_trips);
  EXPECT_EQ(report.inflight_bytes, 0u);
  EXPECT_EQ(report.inflight_peak_bytes, 2 * BlockBytes(128));
  EXPECT_EQ(report.passes, 1u);
  control.window_bytes = 0;
  ASSERT_TRUE(AttentionReference(problem.shape, problem.Operands(), {&control, &report}, TestModel(), false).ok());
  EXPECT_EQ(report.bytes, 2 * stats->remote_bytes) << "a window of 0 still ends";
  EXPECT_EQ(report.passes, 2u);
}

TEST(AttentionReferenceTest, NumbersOnTheDeviceAreClampedToTheTablesRow) {
  Problem problem(Shape(2, 2, 64, 16), {64, 48, 16}, {4, 0, 1}, 3);
  ASSERT_TRUE(AttentionReference(problem.shape, problem.Operands(), {}, TestModel(), false).ok());
  const std::vector<uint16_t> expected = problem.out;
  problem.remote_counts = {1'000'000, -5, 2};
  problem.lengths = {64, 48, 16};
  ASSERT_TRUE(AttentionReference(problem.shape, problem.Operands(), {}, TestModel(), false).ok());
  EXPECT_EQ(problem.out, expected);
  // Past the row's end there is nothing, and pages that aren't in the pool are zeros: neither is read.
  problem.lengths = {1'000'000, -1, 16};
  ASSERT_TRUE(AttentionReference(problem.shape, problem.Operands(), {}, TestModel(), false).ok());
  EXPECT_TRUE(std::equal(expected.begin() + 4 * 64, expected.end(), problem.out.begin() + 4 * 64));
  EXPECT_TRUE(
      std::all_of(problem.out.begin() + 2 * 64, problem.out.begin() + 4 * 64, [](uint16_t bits) { return bits == 0; }));
}

TEST(AttentionReferenceTest, TheModelledTimeIsTheSlowerSidesAndRealTimeTakesIt) {
  Problem problem(Shape(2, 2, 64, 16), {1024}, {32}, 4);
  const double bytes = 2.0 * 32 * BlockBytes(64);
  LinkModel slow = TestModel();
  slow.bandwidth_bytes_per_s = 20'000'000;
  const auto start = std::chrono::steady_clock::now();
  const auto stats = AttentionReference(problem.shape, problem.Operands(), {}, slow, true);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  ASSERT_TRUE(stats.ok());
  EXPECT_NEAR(stats->modelled_seconds, bytes / 20e6, 1e-3);
  EXPECT_GE(elapsed.count(), stats->modelled_seconds - 250e-6);
  Problem local(Shape(2, 2, 64, 16), {1024}, {0}, 5);
  const auto all_local = AttentionReference(local.shape, local.Operands(), {}, slow, false);
  ASSERT_TRUE(all_local.ok());
  EXPECT_DOUBLE_EQ(all_local->modelled_seconds, 2.0 * 64 * BlockBytes(64) / 2.99e12);
}

TEST(AttentionReferenceTest, RefusesMissingAndMisalignedOperands) {
  Problem problem(Shape(2, 2, 64, 16), {40}, {1}, 6);
  const auto refused = [&](auto change) {
    AttentionOperands operands = problem.Operands();
    change(operands);
    const auto stats = AttentionReference(problem.shape, operands, {}, TestModel(), false);
    EXPECT_EQ(stats.status().code(), absl::StatusCode::kInvalidArgument);
    return DetailOf(stats.status()).field;
  };
  EXPECT_EQ(refused([](AttentionOperands& o) { o.q = 0; }), "q");
  EXPECT_EQ(refused([](AttentionOperands& o) { o.out += 8; }), "out");
  EXPECT_EQ(refused([](AttentionOperands& o) { o.kv_local = 0; }), "kv_local");
  EXPECT_EQ(refused([](AttentionOperands& o) { o.kv_remote += 2; }), "kv_remote");
  EXPECT_EQ(refused([](AttentionOperands& o) { o.block_table += 1; }), "block_table");
  EXPECT_EQ(refused([](AttentionOperands& o) { o.lengths = 0; }), "lengths");
  EXPECT_EQ(refused([](AttentionOperands& o) { o.remote_counts = 0; }), "remote_counts");
  LinkModel dead = TestModel();
  dead.bandwidth_bytes_per_s = 0;
  EXPECT_EQ(DetailOf(AttentionReference(problem.shape, problem.Operands(), {}, dead, false).status()).field,
            "model.bandwidth_bytes_per_s");
  EXPECT_EQ(problem.out[0], kPoison) << "a refused operation writes nothing";
}

}  // namespace
}  // namespace dak::kernels

// Random operations on an ExtentAllocator and on a model of it, which must agree after every step.
//
// DAK_FUZZ_STEPS raises the number of steps of each seed (20,000 by default).
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <random>
#include <vector>

#include "absl/strings/numbers.h"
#include "allocator/extent_allocator.h"

namespace dak {
namespace {

// The same rules in the plainest way: one sorted vector, searched from end to end.
class Model {
 public:
  struct Piece {
    uint64_t offset = 0;
    uint64_t length = 0;
    bool is_free = true;
    size_t range = 0;  // its range's offset
  };

  bool AddRange(Extent range) {
    if (range.length == 0) return false;
    for (const Extent& other : ranges_) {
      if (range.offset < other.offset + other.length && other.offset < range.offset + range.length) return false;
    }
    ranges_.push_back(range);
    Insert({range.offset, range.length, true, range.offset});
    return true;
  }
  bool RangeIsFree(uint64_t offset) const {
    return std::any_of(ranges_.begin(), ranges_.end(), [&](const Extent& r) { return r.offset == offset; }) &&
           std::none_of(pieces_.begin(), pieces_.end(),
                        [&](const Piece& p) { return p.range == offset && !p.is_free; });
  }
  bool RemoveRange(uint64_t offset) {
    if (!RangeIsFree(offset)) return false;
    std::erase_if(ranges_, [&](const Extent& r) { return r.offset == offset; });
    std::erase_if(pieces_, [&](const Piece& p) { return p.range == offset; });
    return true;
  }
  std::optional<uint64_t> Allocate(uint64_t length) {
    Piece* best = nullptr;
    for (Piece& piece : pieces_) {
      if (piece.is_free && piece.length >= length && (best == nullptr || piece.length < best->length)) best = &piece;
    }
    if (length == 0 || best == nullptr) return std::nullopt;
    const Piece whole = *best;
    *best = {whole.offset, length, false, whole.range};
    if (whole.length > length) Insert({whole.offset + length, whole.length - length, true, whole.range});
    return whole.offset;
  }
  bool Free(uint64_t offset) {
    for (size_t i = 0; i < pieces_.size(); ++i) {
      if (pieces_[i].offset != offset || pieces_[i].is_free) continue;
      pieces_[i].is_free = true;
      if (i + 1 < pieces_.size()) Melt(i);
      if (i > 0) Melt(i - 1);
      return true;
    }
    return false;
  }
  ExtentAllocator::Stats stats() const {
    ExtentAllocator::Stats stats;
    stats.ranges = ranges_.size();
    for (const Piece& piece : pieces_) {
      stats.capacity += piece.length;
      (piece.is_free ? stats.free_extents : stats.live_extents) += 1;
      if (!piece.is_free) continue;
      stats.free += piece.length;
      stats.largest_free = std::max(stats.largest_free, piece.length);
    }
    return stats;
  }
  const std::vector<Piece>& pieces() const { return pieces_; }
  const std::vector<Extent>& ranges() const { return ranges_; }

 private:
  void Insert(Piece piece) {
    const auto after =
        std::find_if(pieces_.begin(), pieces_.end(), [&](const Piece& p) { return p.offset > piece.offset; });
    pieces_.insert(after, piece);
  }
  // Makes pieces i and i + 1 one, if both are free and of one range.
  void Melt(size_t i) {
    if (!pieces_[i].is_free || !pieces_[i + 1].is_free || pieces_[i].range != pieces_[i + 1].range) return;
    pieces_[i].length += pieces_[i + 1].length;
    pieces_.erase(pieces_.begin() + static_cast<ptrdiff_t>(i) + 1);
  }

  std::vector<Extent> ranges_;
  std::vector<Piece> pieces_;
};

class Fuzzer {
 public:
  explicit Fuzzer(uint64_t seed) : random_(seed), longest_(uint64_t{1} << Below(9)) {}

  void Run(int steps) {
    for (step_ = 0; step_ < steps && !::testing::Test::HasFailure(); ++step_) {
      // Phases that fill and phases that drain, so that the pool is seen at every level.
      const bool fills = step_ / 1'000 % 2 == 0;
      const uint64_t dice = Below(100);
      if (dice < 2) {
        AddRange();
      } else if (dice < 4) {
        RemoveRange();
      } else if (dice < (fills ? 65u : 40u)) {
        Allocate();
      } else {
        Free();
      }
      Compare();
      if (step_ % 97 == 0) {
        EXPECT_EQ(allocator_.CheckInvariants(), absl::OkStatus());
      }
    }
    Drain();
  }

 private:
  uint64_t Below(uint64_t bound) { return random_() % bound; }

  void AddRange() {
    // On a coarse grid, so that ranges touch and overlap often.
    const Extent range = {Below(12) * 500, Below(4) * 250};
    EXPECT_EQ(allocator_.AddRange(range).ok(), model_.AddRange(range)) << "step " << step_;
  }
  void RemoveRange() {
    const uint64_t offset = Below(12) * 500;
    EXPECT_EQ(allocator_.RangeIsFree(offset), model_.RangeIsFree(offset)) << "step " << step_;
    EXPECT_EQ(allocator_.RemoveRange(offset).ok(), model_.RemoveRange(offset)) << "step " << step_;
  }
  void Allocate() {
    const uint64_t length = Below(longest_ + 1);
    const absl::StatusOr<Extent> extent = allocator_.Allocate(length);
    const std::optional<uint64_t> expected = model_.Allocate(length);
    ASSERT_EQ(extent.ok(), expected.has_value()) << "step " << step_;
    if (extent.ok()) {
      EXPECT_EQ(*extent, (Extent{*expected, length})) << "step " << step_;
    }
  }
  void Free() {
    // Mostly something live; sometimes any offset at all.
    uint64_t offset = Below(6'500);
    if (Below(20) != 0 && !model_.pieces().empty()) offset = model_.pieces()[Below(model_.pieces().size())].offset;
    EXPECT_EQ(allocator_.Free(offset).ok(), model_.Free(offset)) << "step " << step_ << " offset " << offset;
  }
  void Compare() {
    const ExtentAllocator::Stats expected = model_.stats();
    const ExtentAllocator::Stats stats = allocator_.stats();
    EXPECT_EQ(stats.capacity, expected.capacity) << "step " << step_;
    EXPECT_EQ(stats.free, expected.free) << "step " << step_;
    EXPECT_EQ(stats.largest_free, expected.largest_free) << "step " << step_;
    EXPECT_EQ(stats.live_extents, expected.live_extents) << "step " << step_;
    EXPECT_EQ(stats.free_extents, expected.free_extents) << "step " << step_;
    EXPECT_EQ(stats.ranges, expected.ranges) << "step " << step_;
  }
  void Drain() {
    const std::vector<Model::Piece> pieces = model_.pieces();
    for (const Model::Piece& piece : pieces) {
      if (piece.is_free) continue;
      ASSERT_TRUE(allocator_.Free(piece.offset).ok());
      model_.Free(piece.offset);
    }
    Compare();
    EXPECT_EQ(allocator_.stats().free_extents, allocator_.stats().ranges);
    EXPECT_EQ(allocator_.CheckInvariants(), absl::OkStatus());
  }

  std::mt19937_64 random_;
  uint64_t longest_;
  int step_ = 0;
  ExtentAllocator allocator_;
  Model model_;
};

int Steps() {
  int steps = 20'000;
  const char* text = std::getenv("DAK_FUZZ_STEPS");
  if (text != nullptr && !absl::SimpleAtoi(text, &steps)) ADD_FAILURE() << "DAK_FUZZ_STEPS isn't a number: " << text;
  return steps;
}

class ExtentAllocatorFuzzTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(ExtentAllocatorFuzzTest, AgreesWithTheModel) { Fuzzer(GetParam()).Run(Steps()); }

INSTANTIATE_TEST_SUITE_P(Seeds, ExtentAllocatorFuzzTest, ::testing::Range<uint64_t>(1, 17));

}  // namespace
}  // namespace dak

#include "tests/bench/dak_bench/shapes.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace dak::bench {
namespace {

TEST(ShapesTest, SplitsAreAtWholeTilesUnlessAskedOtherwise) {
  EXPECT_EQ(RemoteRows(4096, 0, false), 0u);
  EXPECT_EQ(RemoteRows(4096, 0.1, false), 448u);
  EXPECT_EQ(RemoteRows(4096, 0.1, true), 410u);
  EXPECT_EQ(RemoteRows(4096, 0.5, false), 2048u);
  EXPECT_EQ(RemoteRows(4096, 0.0001, false), 64u);
  EXPECT_EQ(RemoteRows(100, 0.9, false), 100u);
  EXPECT_EQ(RemoteRows(4096, 1, false), 4096u);
}

TEST(ShapesTest, APassGivesUpWhatItMustAndLittleMore) {
  std::vector<Shape> operations;
  for (int layer = 0; layer < 32; ++layer) {
    const std::vector<Shape> shapes = ShapesOf("llama8b");
    operations.insert(operations.end(), shapes.begin(), shapes.end());
  }
  double all = 0;
  for (const Shape& operation : operations) all += static_cast<double>(operation.n * operation.k);
  for (const double ratio : {0.0, 0.005, 0.02, 0.1, 0.3, 0.977, 1.0}) {
    for (const bool exact : {false, true}) {
      const std::vector<uint64_t> rows = RemoteRowsOfPass(operations, ratio, exact);
      double remote = 0;
      for (size_t i = 0; i < operations.size(); ++i) {
        const double of_one = static_cast<double>(rows[i]) / static_cast<double>(operations[i].n);
        EXPECT_NEAR(of_one, ratio, 64.0 / 4096) << operations[i].name << " at " << ratio;
        EXPECT_LE(rows[i], operations[i].n);
        EXPECT_TRUE(exact || rows[i] % 64 == 0) << operations[i].name << " at " << ratio;
        remote += static_cast<double>(rows[i] * operations[i].k);
      }
      EXPECT_GE(remote, ratio * all * (1 - 1e-12)) << ratio;
      EXPECT_LE(remote, ratio * all + 64.0 * 14'336 + 128 * 14'336.0 * (exact ? 1 : 0)) << ratio;
    }
  }
}

TEST(ShapesTest, KnowsTheModelsThatItsHelpNames) {
  for (const char* model : {"llama8b", "llama70b", "opt6.7b", "opt30b"}) EXPECT_GE(ShapesOf(model).size(), 3u);
  EXPECT_EQ(ShapesOf("all").size(), 14u);
  EXPECT_EXIT(ShapesOf("gpt2"), ::testing::ExitedWithCode(1), "--model");
}

}  // namespace
}  // namespace dak::bench

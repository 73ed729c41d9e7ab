// Stored choices on a GPU: every one that the file can hold gives right numbers.
#include "kernels/gemm_tuning.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "allocator/base/error_detail.h"
#include "tests/gpu/gemm_fixture.h"

namespace dak::kernels {
namespace {

class GemmTuningTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "dak-tuning-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    path_ = folder_ / "tuning.csv";
    cudaDeviceProp properties;
    Check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
    device_ = properties.name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void ExpectRight(const GemmShape& shape, const TuningChoice& choice, uint64_t seed) {
    SCOPED_TRACE(testing::Message() << "batch " << shape.batch << " n " << shape.n << " k " << shape.k << " local_rows "
                                    << shape.local_rows << " boxes " << choice.row_boxes << " remote "
                                    << choice.remote_ctas << " cluster " << choice.cluster);
    GemmTuning tuning;
    uint32_t tile = 8;
    while (tile < shape.batch) tile *= 2;
    tuning.Set({device_, shape.element == ElementType::kF16, tile, shape.n, shape.k, shape.local_rows}, choice);
    ASSERT_TRUE(tuning.Store(path_).ok());
    auto runner = CreateCudaGemmRunner(0, {.tuning_path = path_});
    ASSERT_TRUE(runner.ok()) << runner.status();
    Problem problem(shape, seed);
    ExpectRightTwice(**runner, problem, nullptr);
  }

  std::filesystem::path folder_;
  std::string path_;
  std::string device_;
};

TEST_F(GemmTuningTest, EveryChoiceGivesRightNumbers) {
  uint64_t seed = 0;
  for (const uint32_t batch : {3, 64, 100, 200}) {
    for (const TuningChoice& choice :
         {TuningChoice{1, 1, false, 1}, {2, 2, true, 0}, {1, 64, true, 32}, {2, 7, false, 9}}) {
      if (choice.row_boxes > 1 && batch > kMostTwoBoxTile) continue;  // no such kernel
      ExpectRight({batch, 1000, 2056, 700, ElementType::kBf16}, choice, ++seed);
    }
  }
}

// Tiles of two boxes, an even number of CTAs each: where there are two, they finish it in halves.
TEST_F(GemmTuningTest, TwoCtasOfATileOfTwoBoxesGiveRightNumbers) {
  uint64_t seed = 50;
  for (const uint64_t n : {8192, 8192 - 70, 8192 + 64}) {
    for (const uint64_t local_rows : {n, n - 64}) {
      ExpectRight({128, n, 512, local_rows, ElementType::kF16}, {2, 6, true, 0}, ++seed);
    }
    ExpectRight({128, n, 512, n - 128, ElementType::kF16}, {2, 6, true, 2}, ++seed);
  }
}

// With rows for all, for some and for none of a cluster's CTAs in the last tile; with and without a remote part.
TEST_F(GemmTuningTest, ClustersGiveRightNumbers) {
  uint64_t seed = 100;
  for (const uint32_t batch : {65, 128, 129, 200, 256}) {
    for (const auto& [n, k] :
         {std::pair<uint64_t, uint64_t>{1, 8}, {130, 72}, {515, 2056}, {1000, 520}, {4096, 4096}}) {
      for (const uint64_t local_rows : {n, n - n / 10}) {
        const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
        ExpectRight({batch, n, k, local_rows, element}, {1, 12, seed % 3 == 0, 0, kClusterCtas}, seed);
        if (HasFailure()) return;
      }
    }
  }
}

// Two CTAs for each local tile: the rows are all there or ragged, with and without a remote part beside them.
TEST_F(GemmTuningTest, TilesInHalvesGiveRightNumbers) {
  uint64_t seed = 200;
  for (const auto& [n, local_rows] : {std::pair<uint64_t, uint64_t>{4096, 4096}, {4190, 4190}, {4540, 4096}}) {
    for (const uint32_t batch : {129, 256}) {
      for (const uint64_t k : {128, 2040, 4096}) {
        const GemmPlan model = PlanGemm(batch, n, k, local_rows, {}, {});
        const TuningChoice choice{1, 12, false, 4, 1};
        EXPECT_EQ(ApplyChoice(choice, n, k, local_rows, {}, {}, model).halves,
                  k == 4096 || (k == 2040 && n == local_rows))
            << n << " x " << k;
        const ElementType element = ++seed % 2 == 0 ? ElementType::kBf16 : ElementType::kF16;
        ExpectRight({batch, n, k, local_rows, element}, choice, seed);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(GemmTuningTest, AMissingOrBrokenFileIsAnError) {
  EXPECT_EQ(CreateCudaGemmRunner(0, {.tuning_path = path_}).status().code(), absl::StatusCode::kNotFound);
  std::ofstream(path_) << "bf16,64\n";
  EXPECT_EQ(DetailOf(CreateCudaGemmRunner(0, {.tuning_path = path_}).status()).field, "line 1");
}

}  // namespace
}  // namespace dak::kernels

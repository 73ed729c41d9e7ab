// Stored choices on a GPU: every one that the file can hold gives right numbers.
#include "kernels/gemm_tuning.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "allocator/base/error_detail.h"
#include "tests/gpu/gemm_problem.h"

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

  std::filesystem::path folder_;
  std::string path_;
  std::string device_;
};

TEST_F(GemmTuningTest, EveryChoiceGivesRightNumbers) {
  uint64_t seed = 0;
  for (const uint32_t batch : {3, 64, 200}) {
    const GemmShape shape{batch, 1000, 2056, 700, ElementType::kBf16};
    for (const TuningChoice& choice :
         {TuningChoice{1, 1, false, 1}, {2, 2, true, 0}, {1, 64, true, 32}, {2, 7, false, 9}}) {
      GemmTuning tuning;
      const uint32_t tile = batch == 3 ? 8 : batch == 64 ? 64 : 256;
      tuning.Set({device_, false, tile, shape.n, shape.k, shape.local_rows}, choice);
      ASSERT_TRUE(tuning.Store(path_).ok());
      auto runner = CreateCudaGemmRunner(0, {.tuning_path = path_});
      ASSERT_TRUE(runner.ok()) << runner.status();
      Problem problem(shape, ++seed);
      const absl::Status status = (*runner)->Launch(problem.shape(), problem.operands(), {}, nullptr);
      ASSERT_TRUE(status.ok()) << status;
      Check(cudaStreamSynchronize(nullptr), "the kernel");
      EXPECT_LE(problem.RelativeError(), problem.Tolerance());
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

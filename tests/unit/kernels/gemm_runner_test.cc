#include <gtest/gtest.h>

#include "kernels/gemm.h"

namespace dak::kernels {
namespace {

#ifndef DAK_TEST_HAVE_CUDA
TEST(CreateCudaGemmRunnerTest, SaysThatTheBuildHasNoCuda) {
  const auto runner = CreateCudaGemmRunner(0);
  EXPECT_EQ(runner.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(runner.status().message(), "built without CUDA");
}
#else
TEST(CreateCudaGemmRunnerTest, RefusesADeviceThatIsNotThere) {
  constexpr int kNoDevice = 4096;
  const auto runner = CreateCudaGemmRunner(kNoDevice);
  ASSERT_FALSE(runner.ok());
  EXPECT_EQ(runner.status().code(), absl::StatusCode::kInternal);
  EXPECT_NE(runner.status().message().find("cudaError"), absl::string_view::npos) << runner.status();
}
#endif

}  // namespace
}  // namespace dak::kernels

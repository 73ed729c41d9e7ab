// Proves that the asan build finds what it is for, with the options that the tests are run with.
#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>
#include <memory>

namespace dak {
namespace {

constexpr int kSanitizerExitCode = 1;

TEST(AddressSanitizerDeathTest, FindsAReadBehindTheEnd) {
  volatile size_t index = 4;
  EXPECT_DEATH(
      {
        auto values = std::make_unique<char[]>(4);
        values[0] = 1;
        std::exit(values[index]);
      },
      "heap-buffer-overflow");
}

TEST(AddressSanitizerDeathTest, FindsSignedOverflow) {
  volatile int value = std::numeric_limits<int>::max();
  EXPECT_DEATH(value = value + 1, "signed integer overflow");
}

TEST(AddressSanitizerDeathTest, FindsALeak) {
  EXPECT_EXIT(
      {
        volatile char* lost = new char[1000];
        lost[0] = 1;
        lost = nullptr;
        std::exit(0);
      },
      testing::ExitedWithCode(kSanitizerExitCode), "detected memory leaks");
}

}  // namespace
}  // namespace dak

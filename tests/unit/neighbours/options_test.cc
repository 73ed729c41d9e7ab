#include "tests/bench/neighbours/options.h"

#include <gtest/gtest.h>

namespace dak::bench {
namespace {

std::optional<NeighboursOptions> Parse(std::vector<std::string> arguments, std::string* error) {
  arguments.insert(arguments.begin(), "dak-bench-neighbours");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  return ParseOptions(static_cast<int>(argv.size()), argv.data(), error);
}

TEST(NeighboursOptionsTest, TargetsAreAList) {
  std::string error;
  const auto options = Parse({"--target-bdp=2,1.75,1.5", "--hbm-percent=86"}, &error);
  ASSERT_TRUE(options.has_value()) << error;
  EXPECT_EQ(options->target_bdps, (std::vector<double>{2, 1.75, 1.5}));
  EXPECT_EQ(options->hbm_percent, 86);
}

TEST(NeighboursOptionsTest, TakesValuesWithAndWithoutAnEqualsSign) {
  std::string error;
  const auto options = Parse({"--device=emulated", "--hold", "0.25", "--experiments=sharing,off"}, &error);
  ASSERT_TRUE(options.has_value()) << error;
  EXPECT_EQ(options->device, "emulated");
  EXPECT_EQ(options->hold_s, 0.25);
  EXPECT_TRUE(options->Wants("sharing"));
  EXPECT_TRUE(options->Wants("off"));
  EXPECT_FALSE(options->Wants("hbm"));
  EXPECT_TRUE(Parse({}, &error)->Wants("hbm"));
}

TEST(NeighboursOptionsTest, NamesWhatItRefuses) {
  for (const char* wrong :
       {"--device=tpu", "--target-bdp=0", "--target-bdp=2,x", "--target-bdp=", "--hbm-percent=101", "--mps=sometimes",
        "--experiments=dance", "--experiments=", "--hold=0", "--hold=1s", "--weight=0", "--ctas=65", "--role=guest"}) {
    std::string error;
    EXPECT_FALSE(Parse({wrong}, &error).has_value()) << wrong;
    EXPECT_NE(error.find("isn't allowed"), std::string::npos) << error;
  }
  std::string error;
  EXPECT_FALSE(Parse({"--hold"}, &error).has_value());
  EXPECT_EQ(error, "--hold needs a value");
  EXPECT_FALSE(Parse({"--loud"}, &error).has_value());
  EXPECT_EQ(error, "--loud is no flag of dak-bench-neighbours; see --help");
}

}  // namespace
}  // namespace dak::bench

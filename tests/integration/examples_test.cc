// The installed examples and the demo, run as a user runs them.
#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

using ::testing::HasSubstr;

class ExamplesTest : public IntegrationTest {
 protected:
  // All that it prints; *code is its exit code.
  std::string Run(std::vector<std::string> argv, int* code) {
    ChildProcess program(std::move(argv), {{"DAK_RUNTIME_DIR", daemon_.runtime_dir()}});
    std::string output;
    while (const auto line = program.ReadLine()) output += *line + "\n";
    *code = program.Wait();
    return output;
  }
};

TEST_F(ExamplesTest, QuickstartInCpp) {
  int code = -1;
  EXPECT_THAT(Run({DAK_QUICKSTART_PATH}, &code), HasSubstr("every y is 512"));
  EXPECT_EQ(code, 0);
  ExpectPoolsEmpty();
}

TEST_F(ExamplesTest, QuickstartInC) {
  int code = -1;
  EXPECT_THAT(Run({DAK_QUICKSTART_C_PATH}, &code), HasSubstr("rows 768 to 1023 are in host memory"));
  EXPECT_EQ(code, 0);
  ExpectPoolsEmpty();
}

TEST_F(ExamplesTest, WithoutADaemonTheySayWhereTheyLooked) {
  daemon_.Kill();
  int code = -1;
  Run({DAK_QUICKSTART_C_PATH}, &code);
  EXPECT_EQ(code, 1);
}

TEST_F(ExamplesTest, TheDemoPasses) {
  int code = -1;
  // A bound on reclaiming that no busy machine misses: time decides no test.
  const std::string output =
      Run({DAK_DEMO_PATH, "--device=emulated", "--seconds=2", "--layers=2", "--reclaim-ms=30000"}, &code);
  EXPECT_EQ(code, 0) << output;
  EXPECT_THAT(output, HasSubstr("PASSED"));
}

TEST_F(ExamplesTest, TheDemoKillsBothClients) {
  int code = -1;
  const std::string output = Run(
      {DAK_DEMO_PATH, "--device=emulated", "--seconds=1", "--layers=1", "--reclaim-ms=30000", "--kill-both"}, &code);
  EXPECT_EQ(code, 0) << output;
  EXPECT_THAT(output, HasSubstr("ok    engine-a's memory comes back"));
  EXPECT_THAT(output, HasSubstr("ok    engine-b's memory comes back"));
  EXPECT_THAT(output, HasSubstr("ok    the pools are empty"));
}

TEST_F(ExamplesTest, TheDemoFailsWhereItsDaemonDoes) {
  int code = -1;
  const std::string output = Run({DAK_DEMO_PATH, "--dakd=/bin/false"}, &code);
  EXPECT_EQ(code, 1);
  EXPECT_THAT(output, HasSubstr("FAIL  dakd starts"));
  Run({DAK_DEMO_PATH, "--layers=none"}, &code);
  EXPECT_EQ(code, 2);
}

}  // namespace
}  // namespace dak::testing

#include "daemon/dakctl/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dak::dakctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<Options> Parse(std::vector<std::string> args) { return ParseCommandLine(args, "/run/dak"); }
std::string Error(std::vector<std::string> args) {
  const auto options = Parse(std::move(args));
  EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(options.status().message());
}

TEST(OptionsTest, TakesFlagsBeforeAndAfterTheCommand) {
  const auto options = Parse({"--json", "tensors", "--session", "7", "--runtime-dir=/x", "--timeout=2.5s", "--bytes"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->command, Command::kTensors);
  EXPECT_TRUE(options->json);
  EXPECT_TRUE(options->exact_bytes);
  EXPECT_EQ(options->session_id, 7u);
  EXPECT_EQ(options->runtime_dir, "/x");
  EXPECT_EQ(options->timeout_s, 2.5);
}

TEST(OptionsTest, HasDefaults) {
  const auto options = Parse({"events"});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->runtime_dir, "/run/dak");
  EXPECT_EQ(options->timeout_s, 5);
  EXPECT_EQ(options->replay, 20u);
  EXPECT_FALSE(options->follow);
  EXPECT_EQ(Parse({"watch"})->interval_s, 1);
}

TEST(OptionsTest, EveryCommandParsesByItsName) {
  for (const CommandSpec& spec : Commands()) {
    std::vector<std::string> args = {spec.name};
    if (spec.command == Command::kWithdraw) args.push_back("p");
    const bool needs_session =
        spec.command == Command::kDemote || spec.command == Command::kPromote || spec.command == Command::kPlans;
    if (needs_session) args.push_back("3");
    const auto options = Parse(args);
    ASSERT_TRUE(options.ok()) << spec.name << ": " << options.status();
    EXPECT_EQ(options->command, spec.command);
    EXPECT_EQ(&SpecOf(spec.command), &spec);
  }
}

TEST(OptionsTest, SuggestsWhatWasMeant) {
  EXPECT_THAT(Error({"sesions"}), HasSubstr("unknown command 'sesions'; did you mean 'sessions'?"));
  EXPECT_THAT(Error({"pub"}), HasSubstr("did you mean 'publications'?"));
  EXPECT_EQ(Error({"frobnicate"}), "unknown command 'frobnicate'");
  EXPECT_THAT(Error({"pools", "--jsn"}), HasSubstr("did you mean '--json'?"));
  EXPECT_THAT(Error({"quotas", "sett", "1", "hbm", "1"}), HasSubstr("did you mean 'set'?"));
  EXPECT_THAT(Error({"po\x1b[31mols"}), HasSubstr("unknown command 'po\\x1b[31mols'"));
}

TEST(OptionsTest, RefusesWhatDoesNotBelong) {
  EXPECT_EQ(Error({}), "needs a command");
  EXPECT_THAT(Error({"pools", "--follow"}), HasSubstr("pools: has no option --follow (it belongs to events)"));
  EXPECT_THAT(Error({"pools", "extra"}), HasSubstr("takes no argument 'extra'"));
  EXPECT_THAT(Error({"pools", "--json=yes"}), HasSubstr("--json: takes no value"));
  EXPECT_THAT(Error({"tensors", "--session"}), HasSubstr("--session: needs a value, ID"));
  EXPECT_THAT(Error({"pools", "-j"}), HasSubstr("unknown option '-j'"));
  EXPECT_THAT(Error({"withdraw"}), HasSubstr("needs the publication's name"));
  EXPECT_THAT(Error({"withdraw", "a", "b"}), HasSubstr("needs the publication's name"));
  EXPECT_THAT(Error({"help", "a", "b"}), HasSubstr("takes one command"));
  EXPECT_THAT(Error({"help", "wach"}), HasSubstr("did you mean 'watch'?"));
}

TEST(OptionsTest, RefusesNumbersOutOfRange) {
  EXPECT_THAT(Error({"tensors", "--session=0"}), HasSubstr("--session: '0' is no whole number from 1"));
  EXPECT_THAT(Error({"tensors", "--session=x"}), HasSubstr("'x'"));
  EXPECT_THAT(Error({"events", "--replay=1025"}), HasSubstr("from 0 to 1024"));
  EXPECT_THAT(Error({"pools", "--timeout=0"}), HasSubstr("--timeout: '0' is no number of seconds over 0"));
  EXPECT_THAT(Error({"pools", "--timeout=nan"}), HasSubstr("'nan'"));
  EXPECT_THAT(Error({"pools", "--timeout=1e99"}), HasSubstr("'1e99'"));
  EXPECT_THAT(Error({"watch", "--interval=-1"}), HasSubstr("--interval"));
  EXPECT_THAT(Error({"watch", "--count=0"}), HasSubstr("--count"));
  EXPECT_THAT(Error({"pools", "--runtime-dir="}), HasSubstr("needs a folder"));
}

TEST(OptionsTest, TakesQuotasApart) {
  auto options = Parse({"quotas", "set", "3", "host", "1.5GiB", "--revision=4"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_TRUE(options->set_quota);
  EXPECT_EQ(options->session_id, 3u);
  EXPECT_EQ(options->tier, v1::TIER_HOST);
  EXPECT_EQ(options->limit_bytes, uint64_t{3} << 29);
  EXPECT_EQ(options->expected_revision, 4u);
  EXPECT_FALSE(Parse({"quotas", "get", "--session=3"})->set_quota);
  EXPECT_THAT(Error({"quotas", "set", "3", "hbm"}), HasSubstr("needs SESSION TIER LIMIT"));
  EXPECT_THAT(Error({"quotas", "set", "0", "hbm", "1"}), HasSubstr("no session's id"));
  EXPECT_THAT(Error({"quotas", "set", "3", "HBM2", "1"}), HasSubstr("none of hbm, host, cxl"));
  EXPECT_THAT(Error({"quotas", "set", "3", "hbm", "24G"}), HasSubstr("quotas set: LIMIT '24G' is not a size"));
  EXPECT_THAT(Error({"quotas", "--revision=4"}), HasSubstr("goes with set"));
  EXPECT_THAT(Error({"quotas", "set", "3", "hbm", "1", "--session=4"}), HasSubstr("not --session"));
}

TEST(OptionsTest, LeavesThePlannersArgumentsAlone) {
  const auto options = Parse({"--json", "plan", "--profile=h100-pcie", "--json", "-x", "model.json"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_THAT(options->plan_args, ElementsAre("--json", "--profile=h100-pcie", "--json", "-x", "model.json"));
  EXPECT_THAT(Parse({"plan", "--help"})->plan_args, ElementsAre("--help"));
}

TEST(OptionsTest, AsksForHelpFromAnywhere) {
  EXPECT_EQ(Parse({"--help"})->command, Command::kHelp);
  EXPECT_EQ(Parse({"watch", "-h"})->help_topic, "watch");
  EXPECT_EQ(Parse({"help", "quotas"})->help_topic, "quotas");
  EXPECT_EQ(Parse({"quotas", "set", "--help"})->help_topic, "quotas");
}

TEST(OptionsTest, WordsAfterTwoDashesAreNoOptions) {
  const auto options = Parse({"withdraw", "--", "--odd-name"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->publication, "--odd-name");
}

TEST(ParseLimitTest, KnowsSizesAndNone) {
  EXPECT_EQ(*ParseLimit("0"), 0u);
  EXPECT_EQ(*ParseLimit("2MiB"), uint64_t{2} << 20);
  EXPECT_EQ(*ParseLimit("1.5 GB"), 1'500'000'000u);
  EXPECT_EQ(*ParseLimit("none"), ~uint64_t{0});
  for (const char* bad : {"", "GiB", "24G", "-1", "1e3", "1.2.3GB", "99999999TiB", "18446744073709551616", "1 gib"}) {
    EXPECT_FALSE(ParseLimit(bad).ok()) << bad;
  }
}

TEST(NearestTest, IsEmptyWhereNothingIsNear) {
  EXPECT_EQ(Nearest("stauts", {"status", "pools"}), "status");
  EXPECT_EQ(Nearest("zzz", {"status", "pools"}), "");
  EXPECT_EQ(Nearest("", {"status"}), "");
}

}  // namespace
}  // namespace dak::dakctl

// `dakctl plan` as its user meets it, sizes and profile files included.
#include "daemon/planner/plan_command.h"

#include <sstream>

#include "allocator/base/error_detail.h"
#include "daemon/planner/profile_file.h"
#include "daemon/planner/size_text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/planner/test_data.h"

namespace dak::planner {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Ran {
  int code = 0;
  std::string out;
  std::string err;
};
Ran RunPlan(const std::vector<std::string>& args) {
  std::ostringstream out;
  std::ostringstream err;
  Ran ran;
  ran.code = RunPlanCommand(args, out, err);
  ran.out = out.str();
  ran.err = err.str();
  return ran;
}

Ran RunLlama(std::vector<std::string> more) {
  std::vector<std::string> args = {"--config", DataPath("llama-3-8b.json")};
  args.insert(args.end(), more.begin(), more.end());
  return RunPlan(args);
}

TEST(PlanCommandTest, HelpNamesEveryFlag) {
  const Ran ran = RunPlan({"--help"});
  EXPECT_EQ(ran.code, kPlanFits);
  for (const char* flag : {"--config", "--hbm", "--batch", "--context", "--dtype", "--kv-dtype", "--profile", "--host",
                           "--reserve", "--json"}) {
    EXPECT_THAT(ran.out, HasSubstr(flag));
  }
}

TEST(PlanCommandTest, TableHasAllOperationsAndAlternatives) {
  const Ran ran = RunLlama({"--hbm", "12GiB", "--batch", "8", "--context", "4096"});
  EXPECT_EQ(ran.code, kPlanFits) << ran.err;
  EXPECT_EQ(ran.err, "");
  for (const char* part : {"embedding", "qkv", "kv ", "gate_up", "down", "lm_head", "0-31", "too little", "dak",
                           "one ratio for all", "prefetch", "buffers in HBM", "if it fitted"}) {
    EXPECT_THAT(ran.out, HasSubstr(part));
  }
}

TEST(PlanCommandTest, JsonAddsUpAndKeepsTheBudget) {
  const Ran ran = RunLlama({"--hbm=12GiB", "--batch=8", "--context=4096", "--json", "--reserve=512MiB"});
  ASSERT_EQ(ran.code, kPlanFits) << ran.err;
  const nlohmann::json json = nlohmann::json::parse(ran.out);
  EXPECT_EQ(json["parameters"], 8'030'261'248u);
  EXPECT_EQ(json["weight_bytes"], 2 * 8'030'261'248u);
  EXPECT_EQ(json["needed_bytes"].get<uint64_t>(),
            json["weight_bytes"].get<uint64_t>() + json["kv_bytes"].get<uint64_t>() + (512u << 20));
  EXPECT_EQ(json["over_hbm_bytes"].get<uint64_t>(), json["needed_bytes"].get<uint64_t>() - (uint64_t{12} << 30));
  uint64_t remote = 0;
  double seconds = 0;
  for (const auto& group : json["operations"]) {
    remote += group["remote_bytes"].get<uint64_t>();
    seconds += group["predicted_s"].get<double>();
    EXPECT_LE(group["remote_bytes"], group["stored_bytes"]);
  }
  EXPECT_EQ(json["remote_bytes"], remote);
  EXPECT_NEAR(json["pass_s"].get<double>(), seconds, 1e-12);
  EXPECT_NEAR(json["tokens_per_s"].get<double>(), 8 / seconds, 1e-6);
  EXPECT_GE(remote, json["over_hbm_bytes"].get<uint64_t>());
  EXPECT_LT(json["pass_s"].get<double>(), json["uniform_s"].get<double>());
  EXPECT_LT(json["pass_s"].get<double>(), json["prefetch"]["pass_s"].get<double>());
}

TEST(PlanCommandTest, SaysWhenEverythingFits) {
  const Ran ran = RunLlama({"--hbm", "80GB"});
  EXPECT_EQ(ran.code, kPlanFits);
  EXPECT_THAT(ran.out, AllOf(HasSubstr("everything fits"), HasSubstr("to spare")));
}

TEST(PlanCommandTest, SaysByHowMuchItDoesNotFit) {
  const Ran no_host = RunLlama({"--hbm", "4GiB", "--host", "8GiB", "--json"});
  EXPECT_EQ(no_host.code, kPlanDoesNotFit);
  const nlohmann::json json = nlohmann::json::parse(no_host.out);
  EXPECT_EQ(json["fits"], false);
  EXPECT_EQ(json["shortfall_bytes"].get<uint64_t>(), json["over_hbm_bytes"].get<uint64_t>() - (uint64_t{8} << 30));
  EXPECT_FALSE(json.contains("pass_s"));
  const Ran no_hbm = RunLlama({"--hbm", "500MiB"});
  EXPECT_EQ(no_hbm.code, kPlanDoesNotFit);
  EXPECT_THAT(no_hbm.out, HasSubstr("Does not fit"));
}

TEST(PlanCommandTest, PrefetchWithoutRoomForItsBuffersDoesNotFit) {
  const Ran ran =
      RunPlan({"--config", DataPath("opt-30b.json"), "--hbm", "40GiB", "--batch", "512", "--context", "64"});
  EXPECT_EQ(ran.code, kPlanFits);
  EXPECT_THAT(ran.out, HasSubstr("doesn't fit"));
}

TEST(PlanCommandTest, DescribedMachineOfAnotherKind) {
  const Ran named = RunLlama({"--hbm", "12GiB", "--profile", "gh200", "--json"});
  ASSERT_EQ(named.code, kPlanFits) << named.err;
  const Ran pcie = RunLlama({"--hbm", "12GiB", "--json"});
  EXPECT_LT(nlohmann::json::parse(named.out)["pass_s"], nlohmann::json::parse(pcie.out)["pass_s"]);
  const Ran file = RunLlama({"--hbm", "12GiB", "--profile", DataPath("profile-two-tiers.json"), "--json"});
  EXPECT_EQ(file.code, kPlanFits) << file.err;
}

TEST(PlanCommandTest, DtypeOfTheConfigHoldsUnlessTheFlagSaysOtherwise) {
  const auto weights = [](std::vector<std::string> more) {
    more.insert(more.end(), {"--hbm", "80GiB", "--json"});
    return nlohmann::json::parse(RunLlama(more).out)["weight_bytes"].get<uint64_t>();
  };
  EXPECT_EQ(weights({}), 2 * 8'030'261'248u);
  EXPECT_EQ(weights({"--dtype", "u8"}), 8'030'261'248u);
  EXPECT_EQ(weights({"--dtype", "f32"}), 4 * 8'030'261'248u);
}

struct BadFlag {
  std::vector<std::string> args;
  std::vector<const char*> says;
};

class BadFlagTest : public ::testing::TestWithParam<BadFlag> {};

TEST_P(BadFlagTest, NamesTheFlagAndTheLimit) {
  const Ran ran = RunLlama(GetParam().args);
  EXPECT_EQ(ran.code, kPlanUsage);
  EXPECT_EQ(ran.out, "");
  for (const char* part : GetParam().says) EXPECT_THAT(ran.err, HasSubstr(part));
}

INSTANTIATE_TEST_SUITE_P(
    Flags, BadFlagTest,
    ::testing::Values(BadFlag{{}, {"--hbm", "is needed"}}, BadFlag{{"--hbm", "40QiB"}, {"--hbm", "40QiB", "40GiB"}},
                      BadFlag{{"--hbm"}, {"--hbm", "missing"}}, BadFlag{{"--hbm="}, {"--hbm", "missing"}},
                      BadFlag{{"--hbm", "1GB", "--hbm", "2GB"}, {"--hbm", "twice"}},
                      BadFlag{{"--hbm", "1GB", "--batch", "0"}, {"--batch", "1 to 65536"}},
                      BadFlag{{"--hbm", "1GB", "--batch", "many"}, {"--batch", "many"}},
                      BadFlag{{"--hbm", "1GB", "--context", "9000"}, {"--context", "1 to 8192"}},
                      BadFlag{{"--hbm", "1GB", "--dtype", "int4"}, {"--dtype", "int4", "bf16"}},
                      BadFlag{{"--hbm", "1GB", "--profile", "a100"}, {"--profile", "a100", "h100-pcie"}},
                      BadFlag{{"--hbm", "1GB", "--profile", "nowhere/p.json"}, {"--profile", "nowhere/p.json"}},
                      BadFlag{{"--hbm", "1GB", "--reserve", "x"}, {"--reserve", "'x'"}},
                      BadFlag{{"--hbm", "1GB", "--host", "-1"}, {"--host", "'-1'"}},
                      BadFlag{{"--hbm", "1GB", "--frobnicate"}, {"--frobnicate", "unknown"}},
                      BadFlag{{"--hbm", "1GB", "stray"}, {"stray", "unknown"}}));

TEST(PlanCommandTest, ConfigErrorsNameFileAndField) {
  EXPECT_THAT(RunPlan({"--hbm", "1GB", "--config", DataPath("not-a-model.json")}).err,
              AllOf(HasSubstr("--config"), HasSubstr("not-a-model.json"), HasSubstr("model_type")));
  EXPECT_THAT(RunPlan({"--hbm", "1GB", "--config", "nowhere.json"}).err, HasSubstr("nowhere.json"));
  EXPECT_THAT(RunPlan({"--hbm", "1GB"}).err, HasSubstr("--config"));
}

TEST(PlanCommandTest, HostLimitNeedsAHostTier) {
  const Ran ran = RunLlama({"--hbm", "12GiB", "--host", "1GiB", "--profile", DataPath("profile-cxl-only.json")});
  EXPECT_EQ(ran.code, kPlanUsage);
  EXPECT_THAT(ran.err, HasSubstr("--host"));
}

TEST(SizeTextTest, ParsesNumbersWithUnits) {
  EXPECT_EQ(*ParseSize("0"), 0u);
  EXPECT_EQ(*ParseSize("4096"), 4096u);
  EXPECT_EQ(*ParseSize("12B"), 12u);
  EXPECT_EQ(*ParseSize("40GB"), 40'000'000'000u);
  EXPECT_EQ(*ParseSize("40GiB"), uint64_t{40} << 30);
  EXPECT_EQ(*ParseSize("1.5 MiB"), 1'572'864u);
  EXPECT_EQ(*ParseSize("2TB"), 2'000'000'000'000u);
  EXPECT_EQ(*ParseSize("8192TiB"), uint64_t{1} << 53);
}

TEST(SizeTextTest, RefusesEverythingElse) {
  for (const char* text : {"", "GiB", "-1GiB", "1.5", "1.5B", "1..5GB", "1 G", "1gib", "1GiBs", "nan", "1e3", "0x10",
                           "8193TiB", " 1GB", "."}) {
    EXPECT_EQ(ParseSize(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(SizeTextTest, FormatsThreeDigits) {
  EXPECT_EQ(FormatSize(0), "0 B");
  EXPECT_EQ(FormatSize(999), "999 B");
  EXPECT_EQ(FormatSize(1000), "0.98 KiB");
  EXPECT_EQ(FormatSize(uint64_t{75} << 27), "9.38 GiB");
  EXPECT_EQ(FormatSize(uint64_t{436} << 20), "436 MiB");
  EXPECT_EQ(FormatSize(uint64_t{1} << 53), "8192 TiB");
}

TEST(ProfileFileTest, ReadsTiers) {
  const absl::StatusOr<Profile> profile = LoadProfile(DataPath("profile-two-tiers.json"));
  ASSERT_TRUE(profile.ok()) << profile.status();
  EXPECT_EQ(profile->hbm_bytes_per_s, 2990e9);
  ASSERT_EQ(profile->remote_tiers.size(), 2u);
  EXPECT_EQ(profile->remote_tiers[0].name, "host");
  EXPECT_EQ(profile->remote_tiers[0].capacity_bytes, uint64_t{8} << 30);
  EXPECT_EQ(profile->remote_tiers[1].bytes_per_s, 20e9);
  EXPECT_EQ(profile->remote_tiers[1].capacity_bytes, kUnlimitedBytes);
}

TEST(ProfileFileTest, WithoutTiersThereIsTheHost) {
  const absl::StatusOr<Profile> profile =
      ParseProfile(R"({"hbm_bytes_per_s": 1, "link_bytes_per_s": 1, "flops_per_s": 1})");
  ASSERT_TRUE(profile.ok());
  ASSERT_EQ(profile->remote_tiers.size(), 1u);
  EXPECT_EQ(profile->remote_tiers[0].name, "host");
}

TEST(ProfileFileTest, ATierMayHaveALinkOfItsOwn) {
  const std::string text = R"({"hbm_bytes_per_s": 1e12, "link_bytes_per_s": 5e10, "flops_per_s": 1e14, "remote_tiers":
      [{"name": "host"}, {"name": "cxl", "bytes_per_s": 2e10, "round_trip_ns": 2300, "knee_bytes": 65536,
        "cliff_bytes": 400000, "own_link": true}]})";
  const absl::StatusOr<Profile> profile = ParseProfile(text);
  ASSERT_TRUE(profile.ok()) << profile.status();
  const RemoteTier& cxl = profile->remote_tiers[1];
  EXPECT_TRUE(cxl.own_link);
  EXPECT_EQ(cxl.round_trip_ns, 2300u);
  EXPECT_EQ(cxl.knee_bytes, 65'536u);
  EXPECT_EQ(cxl.cliff_bytes, 400'000u);
  EXPECT_FALSE(profile->remote_tiers[0].own_link);
  const absl::StatusOr<Profile> again = ParseProfile(FormatProfile(*profile));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(FormatProfile(*again), FormatProfile(*profile));
  EXPECT_TRUE(again->remote_tiers[1].own_link);
  // Read whole over both at once: 70 GB/s.
  Pass pass;
  pass.operations = {{.name = "w", .bytes = 7'000'000'000}};
  const absl::StatusOr<PassPlan> plan = Plan(*profile, pass);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NEAR(plan->predicted_s, 0.1, 1e-9);
  EXPECT_NEAR(plan->operations[0].tier_ratios[1], 2.0 / 7, 1e-9);
}

TEST(ProfileFileTest, NamesFieldsThatAreWrong) {
  const auto field = [](const std::string& more) {
    return DetailOf(
               ParseProfile(R"({"hbm_bytes_per_s": 1, "link_bytes_per_s": 1, "flops_per_s": 1)" + more + "}").status())
        .field;
  };
  EXPECT_EQ(DetailOf(ParseProfile("{}").status()).field, "hbm_bytes_per_s");
  EXPECT_EQ(field(R"(, "link_bytes_per_s": 0)"), "link_bytes_per_s");
  EXPECT_EQ(field(R"(, "copy_engine_bytes_per_s": -1)"), "copy_engine_bytes_per_s");
  EXPECT_EQ(field(R"(, "knee_bytes": 0.5)"), "knee_bytes");
  EXPECT_EQ(field(R"(, "hbm_gbps": 1)"), "hbm_gbps");
  EXPECT_EQ(field(R"(, "remote_tiers": [])"), "remote_tiers");
  EXPECT_EQ(field(R"(, "remote_tiers": [3])"), "remote_tiers[0]");
  EXPECT_EQ(field(R"(, "remote_tiers": [{"name": "host"}, {}])"), "remote_tiers[1].name");
  EXPECT_EQ(field(R"(, "remote_tiers": [{"name": "host", "rate": 1}])"), "remote_tiers[0].rate");
  EXPECT_EQ(field(R"(, "remote_tiers": [{"name": "host", "own_link": 1}])"), "remote_tiers[0].own_link");
  EXPECT_EQ(field(R"(, "remote_tiers": [{"name": "host", "round_trip_ns": -1}])"), "remote_tiers[0].round_trip_ns");
  EXPECT_EQ(field(R"(, "remote_tiers": [{"name": "host", "knee_bytes": 0.5}])"), "remote_tiers[0].knee_bytes");
  EXPECT_EQ(field(R"(, "remote_tiers": [{"name": "host", "cliff_bytes": "x"}])"), "remote_tiers[0].cliff_bytes");
  EXPECT_EQ(field(R"(, "remote_tiers": [{"name": "host", "capacity_bytes": -1}])"), "remote_tiers[0].capacity_bytes");
}

}  // namespace
}  // namespace dak::planner

// Configuration and command line: what is refused, and that the message names the field.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "allocator/base/error_detail.h"
#include "daemon/config/command_line.h"
#include "daemon/config/options.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

absl::StatusOr<DaemonOptions> OptionsOf(const std::string& text) {
  absl::StatusOr<config::Config> config = ParseConfig(text);
  if (!config.ok()) return config.status();
  return OptionsFrom(*config);
}

absl::StatusOr<Measurement> NoProbe(const DeviceDescription&, const planner::Profile&) {
  return absl::NotFoundError("no probe");
}

TEST(ConfigTest, EmptyConfigurationIsGood) {
  const auto options = OptionsOf("");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->runtime_dir, "/run/dak");
  EXPECT_EQ(options->metrics_address, "127.0.0.1:9465");
  EXPECT_EQ(options->socket.mode, 0660u);
  EXPECT_EQ(options->default_quota_bytes[0], kNoLimit);
  EXPECT_FALSE(options->capacity_bytes[0].has_value());
}

TEST(ConfigTest, EveryFieldArrives) {
  const auto options = OptionsOf(R"(
    runtime_dir: "/tmp/x" device: "emulated" lease_ms: 1500 metrics_address: "off" log_level: "debug"
    shutdown_grace_ms: 10
    pools { tier: "hbm" capacity: "1GiB" default_quota: "256MiB" }
    pools { tier: "cxl" capacity: "3 GiB" }
    emulated { bandwidth_bytes_per_s: 1000 round_trip_ns: 5 cliff_bytes: 6 local_bandwidth_bytes_per_s: 7
               cliff_floor: 0.5 }
    access { socket_mode: "0600" socket_group: "0" allowed_uids: 5 allowed_uids: 6 }
    limits { max_sessions: 3 max_watchers: 2 }
    congestion { target_bdp: 3 interval_us: 1000 idle_after_us: 2000 min_window_bytes: 4096 }
    replanning { min_gain: 0.1 payback_s: 20 min_interval_s: 3 max_move: "64MiB" }
    profile { link_bytes_per_s: 5e9 })");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->device.kind, DeviceOptions::Kind::kEmulated);
  EXPECT_EQ(options->lease_ns, 1'500'000'000u);
  EXPECT_EQ(options->metrics_address, "");
  EXPECT_EQ(*options->capacity_bytes[0], uint64_t{1} << 30);
  EXPECT_EQ(options->default_quota_bytes[0], uint64_t{256} << 20);
  EXPECT_EQ(options->device.emulated.tier_bytes[2], uint64_t{3} << 30);
  EXPECT_EQ(options->device.emulated.link.bandwidth_bytes_per_s, 1000u);
  EXPECT_EQ(options->socket.mode, 0600u);
  EXPECT_EQ(*options->socket.gid, 0u);
  EXPECT_THAT(options->allowed_uids, testing::ElementsAre(5, 6));
  EXPECT_EQ(options->limits.max_sessions, 3u);
  EXPECT_EQ(options->congestion.interval_ns, 1'000'000u);
  EXPECT_EQ(options->replan.min_gain, 0.1);
  EXPECT_EQ(options->replan.payback_s, 20);
  EXPECT_EQ(options->replan.min_interval_s, 3);
  EXPECT_EQ(options->replan.max_move_bytes, uint64_t{64} << 20);
  DeviceDescription device;
  device.kind = "emulated";
  const auto profile = ObtainProfile(options->profile, device, NoProbe);
  ASSERT_TRUE(profile.ok());
  EXPECT_EQ(profile->profile.link_bytes_per_s, 5e9);
  EXPECT_EQ(profile->source, "configured");
}

TEST(ConfigTest, EveryBadFieldIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"runtime_dir: 'relative'", "runtime_dir"},
      {"runtime_dir: ''", "runtime_dir"},
      {"device: 'gpu'", "device"},
      {"gpu_ordinal: -1", "gpu_ordinal"},
      {"pools { tier: 'dram' }", "pools[0].tier"},
      {"pools { capacity: '1GiB' }", "pools[0].tier"},
      {"pools { tier: 'hbm' } pools { tier: 'hbm' }", "pools[1].tier"},
      {"pools { tier: 'hbm' capacity: '1GB' }", "pools[0].capacity"},
      {"pools { tier: 'hbm' capacity: '-1' }", "pools[0].capacity"},
      {"pools { tier: 'hbm' capacity: '' }", "pools[0].capacity"},
      {"pools { tier: 'hbm' capacity: '16777216TiB' }", "pools[0].capacity"},
      {"pools { tier: 'hbm' default_quota: 'all' }", "pools[0].default_quota"},
      {"emulated { bandwidth_bytes_per_s: 0 }", "emulated.bandwidth_bytes_per_s"},
      {"emulated { local_bandwidth_bytes_per_s: 0 }", "emulated.local_bandwidth_bytes_per_s"},
      {"emulated { round_trip_ns: 0 }", "emulated.round_trip_ns"},
      {"emulated { cliff_floor: 1.5 }", "emulated.cliff_floor"},
      {"emulated { cliff_floor: nan }", "emulated.cliff_floor"},
      {"access { socket_mode: '0999' }", "access.socket_mode"},
      {"access { socket_mode: '' }", "access.socket_mode"},
      {"access { socket_mode: '0060' }", "access.socket_mode"},
      {"access { socket_mode: '77777' }", "access.socket_mode"},
      {"access { socket_group: 'no-such-group' }", "access.socket_group"},
      {"limits { max_sessions: 0 }", "limits.max_sessions"},
      {"limits { max_sessions: 65537 }", "limits.max_sessions"},
      {"limits { max_tensors_per_session: 0 }", "limits.max_tensors_per_session"},
      {"limits { max_groups_per_session: 0 }", "limits.max_groups_per_session"},
      {"limits { max_tickets_per_session: 0 }", "limits.max_tickets_per_session"},
      {"limits { max_publications: 0 }", "limits.max_publications"},
      {"limits { max_tensors_per_publication: 65537 }", "limits.max_tensors_per_publication"},
      {"limits { max_watchers: 0 }", "limits.max_watchers"},
      {"limits { max_connections: 0 }", "limits.max_connections"},
      {"congestion { target_bdp: 0 }", "congestion.target_bdp"},
      {"congestion { min_window_bytes: 0 }", "congestion.min_window_bytes"},
      {"congestion { interval_us: 1 }", "congestion.interval_us"},
      {"congestion { interval_us: 18446744073709551615 }", "congestion.interval_us"},
      {"congestion { idle_after_us: 0 }", "congestion.idle_after_us"},
      {"lease_ms: 86400001", "lease_ms"},
      {"shutdown_grace_ms: 86400001", "shutdown_grace_ms"},
      {"metrics_address: 'localhost'", "metrics_address"},
      {"log_level: 'loud'", "log_level"},
      {"runtime_dir: 5", "config"},
      {"nonsense: 5", "config"},
  };
  for (const auto& [text, field] : cases) {
    const absl::Status status = OptionsOf(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(DetailOf(status).field, field) << text << ": " << status;
  }
}

TEST(ConfigTest, EveryBadFieldOfProfileAndReplanningIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"profile { name: 'abacus' }", "profile.name"},
      {"profile { hbm_bytes_per_s: 0 }", "profile.hbm_bytes_per_s"},
      {"profile { link_bytes_per_s: -1 }", "profile.link_bytes_per_s"},
      {"profile { copy_engine_bytes_per_s: inf }", "profile.copy_engine_bytes_per_s"},
      {"profile { flops_per_s: nan }", "profile.flops_per_s"},
      {"profile { round_trip_ns: 0 }", "profile.round_trip_ns"},
      {"profile { cxl { bytes_per_s: 0 } }", "profile.cxl.bytes_per_s"},
      {"profile { cxl { round_trip_ns: 0 } }", "profile.cxl.round_trip_ns"},
      {"emulated { cxl_link { } }", "emulated.cxl_link"},
      {"pools { tier: 'cxl' capacity: '2MiB' } emulated { cxl_link { bandwidth_bytes_per_s: 0 } }",
       "emulated.cxl_link.bandwidth_bytes_per_s"},
      {"pools { tier: 'cxl' capacity: '2MiB' } emulated { cxl_link { round_trip_ns: 0 } }",
       "emulated.cxl_link.round_trip_ns"},
      {"replanning { min_gain: 1.5 }", "replanning.min_gain"},
      {"replanning { payback_s: -1 }", "replanning.payback_s"},
      {"replanning { min_interval_s: nan }", "replanning.min_interval_s"},
      {"replanning { max_move: 'much' }", "replanning.max_move"},
      {"profile { copy_to_host_bytes_per_s: 0 }", "profile.copy_to_host_bytes_per_s"},
      {"profile { source: 'guess' }", "profile.source"},
      {"profile { source: 'x.json' name: 'gh200' }", "profile.name"},
      {"profile { batch_rates { batch: 0 } }", "profile.batch_rates[0].batch"},
      {"profile { batch_rates { batch: 1 } }", "profile.batch_rates[0].hbm_bytes_per_s"},
      {"profile { batch_rates { batch: 1 hbm_bytes_per_s: 1 } }", "profile.batch_rates[0].flops_per_s"},
      {"profile { batch_rates { batch: 1 hbm_bytes_per_s: 1 flops_per_s: 1 operation_s: 2 } }",
       "profile.batch_rates[0].operation_s"},
      {"profile { batch_rates { batch: 1 hbm_bytes_per_s: 1 flops_per_s: 1 link_bytes_per_s: 0 } }",
       "profile.batch_rates[0].link_bytes_per_s"},
      {"profile { batch_rates { batch: 1 hbm_bytes_per_s: 1 flops_per_s: 1 remote_s: -1 } }",
       "profile.batch_rates[0].remote_s"},
      {"profile { batch_rates { batch: 1 hbm_bytes_per_s: 1 flops_per_s: 1 } batch_rates { batch: 1 } }",
       "profile.batch_rates[1].batch"},
  };
  for (const auto& [text, field] : cases) {
    const absl::Status status = OptionsOf(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(DetailOf(status).field, field) << text << ": " << status;
  }
}

TEST(ConfigTest, SyntaxErrorsSayWhere) {
  TempDir directory;
  const std::string path = directory.path() + "/dakd.textproto";
  std::ofstream(path) << "runtime_dir: '/run/dak'\n  lease_ms: soon\n";
  const absl::Status status = LoadConfig(path).status();
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::HasSubstr(path), testing::HasSubstr("line 2, column 13")));
  EXPECT_EQ(LoadConfig(directory.path() + "/none").status().code(), absl::StatusCode::kNotFound);
}

TEST(ConfigTest, OverridesWinAndPoolsMergeByTier) {
  config::Config config = *ParseConfig("lease_ms: 5 pools { tier: 'hbm' capacity: '1GiB' default_quota: '1MiB' }");
  MergeConfig(
      *ParseConfig("lease_ms: 6 pools { tier: 'hbm' capacity: '2GiB' } pools { tier: 'host' capacity: '4MiB' }"),
      &config);
  const auto options = OptionsFrom(config);
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->lease_ns, 6'000'000u);
  EXPECT_EQ(*options->capacity_bytes[0], uint64_t{2} << 30);
  EXPECT_EQ(options->default_quota_bytes[0], uint64_t{1} << 20);
  EXPECT_EQ(*options->capacity_bytes[1], uint64_t{4} << 20);
}

TEST(ConfigTest, DefaultCapacityLeavesRoomOnRealDevicesOnly) {
  EXPECT_EQ(DefaultCapacity("emulated", Tier::kHost, 1000), 1000u);
  EXPECT_EQ(DefaultCapacity("cuda", Tier::kHost, 1000), 750u);
  EXPECT_EQ(DefaultCapacity("cuda", Tier::kHbm, 1000), 950u);
}

TEST(ConfigTest, EmulatedProfileIsTheDevicesModel) {
  DeviceDescription device;
  device.kind = "emulated";
  device.link.bandwidth_bytes_per_s = 1'000'000'000;
  device.link.round_trip_ns = 2000;
  const auto profile = ObtainProfile({}, device, NoProbe);
  ASSERT_TRUE(profile.ok());
  EXPECT_EQ(profile->source, "default");
  EXPECT_EQ(profile->profile.link_bytes_per_s, 1e9);
  EXPECT_EQ(profile->profile.knee_bytes, 2000u);
}

TEST(CommandLineTest, FlagsOverrideTheFile) {
  const auto line = ParseCommandLine({"--config=/etc/dak/dakd.textproto", "--runtime-dir", "/tmp/d", "--hbm=1GiB",
                                      "--device=emulated", "--metrics-address=off", "--lease-ms=10", "--gpu=3",
                                      "--log-level=warn", "--check-config"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->mode, CommandLine::Mode::kCheckConfig);
  EXPECT_EQ(line->config_path, "/etc/dak/dakd.textproto");
  EXPECT_EQ(line->overrides.runtime_dir(), "/tmp/d");
  EXPECT_EQ(line->overrides.pools(0).tier(), "hbm");
  EXPECT_EQ(line->overrides.lease_ms(), 10u);
  EXPECT_EQ(line->overrides.gpu_ordinal(), 3);
  EXPECT_TRUE(OptionsFrom(line->overrides).ok());
}

TEST(CommandLineTest, BadFlagsAreNamed) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--nonsense"}, "--nonsense"},
      {{"extra"}, "extra"},
      {{"--config"}, "--config"},
      {{"--gpu=first"}, "--gpu"},
      {{"--lease-ms=-1"}, "--lease-ms"},
      {{"--help=yes"}, "--help"},
      {{"--check-config", "--gpu"}, "--gpu"},
  };
  for (const auto& [arguments, flag] : cases) {
    const absl::Status status = ParseCommandLine(arguments).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(DetailOf(status).field, flag);
  }
}

TEST(CommandLineTest, HelpNamesEveryFlag) {
  for (const char* flag :
       {"--config", "--runtime-dir", "--device", "--gpu", "--hbm", "--host", "--cxl", "--metrics-address", "--lease-ms",
        "--log-level", "--profile", "--print-profile", "--check-config", "--help", "--version"}) {
    EXPECT_THAT(HelpText(), testing::HasSubstr(flag));
  }
}

std::string ReadSource(const std::string& path) {
  std::ifstream file(DAK_SOURCE_DIR "/" + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(DocumentsTest, ExampleIsGood) {
  const auto options = OptionsOf(ReadSource("deploy/dakd.textproto"));
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->limits.max_sessions, 64u);
}

// Every field of `message`, and of what it contains.
void ExpectDocumented(const google::protobuf::Descriptor& message, const std::string& text) {
  for (int i = 0; i < message.field_count(); ++i) {
    const google::protobuf::FieldDescriptor& field = *message.field(i);
    EXPECT_THAT(text, testing::HasSubstr("`" + field.name() + "`")) << field.full_name();
    if (field.message_type() != nullptr) ExpectDocumented(*field.message_type(), text);
  }
}

TEST(DocumentsTest, EveryFieldAndFlagIsDocumented) {
  const std::string text = ReadSource("docs/configuration.md");
  ASSERT_FALSE(text.empty());
  ExpectDocumented(*config::Config::descriptor(), text);
  const std::string help = HelpText();
  for (size_t at = help.find("  --"); at != std::string::npos; at = help.find("  --", at + 1)) {
    const std::string flag = help.substr(at + 2, help.find_first_of("= ", at + 2) - at - 2);
    EXPECT_THAT(text, testing::HasSubstr("`" + flag)) << flag;
  }
}

// The limits that the document states are those that hold.
TEST(DocumentsTest, DefaultLimitsAreAsDocumented) {
  const std::string text = ReadSource("docs/configuration.md");
  const Limits limits;
  const std::pair<const char*, uint64_t> stated[] = {
      {"max_sessions", limits.max_sessions},
      {"max_connections", limits.max_connections},
      {"max_tensors_per_session", limits.max_tensors_per_session},
      {"max_groups_per_session", limits.max_groups_per_session},
      {"max_tickets_per_session", limits.max_tickets_per_session},
      {"max_publications", limits.max_publications},
      {"max_tensors_per_publication", limits.max_tensors_per_publication},
      {"max_watchers", limits.max_watchers}};
  for (const auto& [name, value] : stated) {
    const size_t row = text.find("| `" + std::string(name) + "` | ");
    ASSERT_NE(row, std::string::npos) << name;
    std::string number = text.substr(row + std::string(name).size() + 7);
    number = number.substr(0, number.find(' '));
    number.erase(std::remove(number.begin(), number.end(), ','), number.end());
    EXPECT_EQ(number, std::to_string(value)) << name;
  }
}

}  // namespace
}  // namespace dak::daemon

// Where a node's profile comes from: configuration, cache, measurement or default, and what each failure leads to.
#include "daemon/profile/node_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "allocator/base/error_detail.h"
#include "daemon/planner/profile_file.h"
#include "daemon/profile/cache.h"
#include "daemon/profile/child.h"
#include "daemon/profile/convert.h"
#include "daemon/profile/links.h"
#include "tests/unit/daemon/fake_probe.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class NodeProfileTest : public testing::Test {
 protected:
  NodeProfileTest() {
    cxl_.link_bytes_per_s = 20e9;
    cxl_.round_trip_s = 3e-6;
    device_.kind = "cuda";
    device_.name = "Some GPU";
    device_.uuid = "0123456789abcdef0123456789abcdef";
    device_.driver = "CUDA 13.0, 580.95.05";
    config_.set_cache_dir(directory_.path() + "/cache");
  }

  NodeProfile Obtain() {
    const absl::StatusOr<NodeProfile> node = ObtainProfile(
        config_, device_, MeasureWith([this](int, int numa_node) -> absl::StatusOr<std::unique_ptr<kernels::Probe>> {
          ++probes_;
          if (!probe_status_.ok()) return probe_status_;
          return std::make_unique<FakeProbe>(numa_node < 0 ? &machine_ : &cxl_);
        }));
    EXPECT_TRUE(node.ok()) << node.status();
    EXPECT_EQ(machine_.probes_alive + cxl_.probes_alive, 0) << "the probe's memory isn't freed";
    return node.ok() ? *node : NodeProfile();
  }
  std::string path() const { return ProfilePath(config_.cache_dir(), device_); }
  size_t CachedFiles() const {
    std::error_code error;
    const std::filesystem::directory_iterator files(config_.cache_dir(), error);
    return error ? 0 : static_cast<size_t>(std::distance(begin(files), end(files)));
  }

  TempDir directory_;
  FakeMachine machine_;
  FakeMachine cxl_;
  DeviceDescription device_;
  config::Profile config_;
  absl::Status probe_status_;
  int probes_ = 0;
};

TEST_F(NodeProfileTest, MeasuresOnceAndKeepsIt) {
  const NodeProfile first = Obtain();
  EXPECT_EQ(first.source, "measured");
  EXPECT_FALSE(first.from_cache);
  EXPECT_GT(first.measured_unix_s, 1'700'000'000u);
  EXPECT_EQ(first.profile.link_bytes_per_s, 50e9);
  EXPECT_THAT(first.failures, IsEmpty());
  machine_.link_bytes_per_s = 25e9;
  const NodeProfile second = Obtain();
  EXPECT_EQ(second.source, "measured");
  EXPECT_TRUE(second.from_cache);
  EXPECT_EQ(second.measured_unix_s, first.measured_unix_s);
  EXPECT_EQ(planner::FormatProfile(second.profile), planner::FormatProfile(first.profile));
  EXPECT_EQ(probes_, 1);
  EXPECT_EQ(CachedFiles(), 1u);  // no draft is left
}

TEST_F(NodeProfileTest, MeasuresAnewOnRequestAndReplacesWhatWasKept) {
  Obtain();
  machine_.link_bytes_per_s = 25e9;
  config_.set_source("measure");
  EXPECT_EQ(Obtain().profile.link_bytes_per_s, 25e9);
  config_.set_source("cached");
  const NodeProfile node = Obtain();
  EXPECT_EQ(node.profile.link_bytes_per_s, 25e9);
  EXPECT_TRUE(node.from_cache);
  EXPECT_EQ(probes_, 2);
}

TEST_F(NodeProfileTest, OnceKeepsNothingAndTakesNothingThatWasKept) {
  Obtain();
  machine_.link_bytes_per_s = 25e9;
  config_.set_source("once");
  const NodeProfile node = Obtain();
  EXPECT_EQ(node.source, "measured");
  EXPECT_EQ(node.profile.link_bytes_per_s, 25e9);
  config_.set_source("cached");
  EXPECT_EQ(Obtain().profile.link_bytes_per_s, 50e9);
}

TEST_F(NodeProfileTest, CachedAndDefaultNeverMeasure) {
  for (const char* source : {"cached", "default"}) {
    config_.set_source(source);
    const NodeProfile node = Obtain();
    EXPECT_EQ(node.source, "default");
    EXPECT_EQ(node.profile.link_bytes_per_s, 51.1e9);
    EXPECT_THAT(node.failures, IsEmpty());
  }
  EXPECT_EQ(probes_, 0);
}

// What another device, driver or version of dak measured isn't taken, and is measured again.
TEST_F(NodeProfileTest, ForeignCacheIsIgnored) {
  Obtain();
  device_.driver = "CUDA 13.1, 590.1";
  NodeProfile node = Obtain();
  EXPECT_FALSE(node.from_cache);
  EXPECT_EQ(node.source, "measured");
  EXPECT_THAT(node.failures, ElementsAre(HasSubstr("CUDA 13.0, 580.95.05")));
  EXPECT_EQ(probes_, 2);
  EXPECT_TRUE(Obtain().from_cache);
  device_.name = "Another GPU with that UUID";
  EXPECT_THAT(Obtain().failures, ElementsAre(HasSubstr("'Some GPU'")));
  const std::string held = path();
  device_.uuid = "ffff";
  EXPECT_THAT(Obtain().failures, IsEmpty());  // a file of its own
  std::filesystem::copy_file(held, path(), std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(Obtain().failures, ElementsAre(HasSubstr("0123456789abcdef")));
  EXPECT_TRUE(Obtain().from_cache);
  std::ifstream file(path());
  std::string text{std::istreambuf_iterator<char>(file), {}};
  text.replace(text.find("format: 4"), 9, "format: 9");
  std::ofstream(path()) << text << "something_new: 5\n";
  EXPECT_THAT(Obtain().failures, ElementsAre(HasSubstr("format '9'")));
}

// A device with a cxl tier: its own path is measured, kept and known again, for that NUMA node only.
TEST_F(NodeProfileTest, MeasuresThePathToCxlAndKeepsItByNode) {
  device_.cxl_numa_node = 2;
  const NodeProfile first = Obtain();
  EXPECT_EQ(probes_, 2);
  ASSERT_EQ(first.profile.remote_tiers.size(), 2u);
  const planner::RemoteTier& cxl = first.profile.remote_tiers[1];
  EXPECT_EQ(cxl.name, "cxl");
  EXPECT_EQ(cxl.bytes_per_s, 20e9);
  EXPECT_EQ(cxl.round_trip_ns, 3'000u);
  EXPECT_EQ(cxl.knee_bytes, 64u * 1024);  // 20 GB/s need 60,000 bytes
  EXPECT_FALSE(cxl.own_link);             // a cuda device has one link
  EXPECT_EQ(first.profile.link_bytes_per_s, 50e9);
  EXPECT_EQ(first.profile.round_trip_ns, 2'000u);
  const NodeProfile second = Obtain();
  EXPECT_TRUE(second.from_cache);
  EXPECT_EQ(planner::FormatProfile(second.profile), planner::FormatProfile(first.profile));
  device_.cxl_numa_node = 3;
  EXPECT_THAT(Obtain().failures, ElementsAre(HasSubstr("cxl node '2', not '3'")));
  EXPECT_EQ(probes_, 4);
  config_.mutable_cxl()->set_bytes_per_s(10e9);
  EXPECT_EQ(Obtain().profile.remote_tiers[1].bytes_per_s, 10e9);
  const std::vector<NodeLink> links = LinksOf(second.profile, device_);
  ASSERT_EQ(links.size(), 1u);
  EXPECT_THAT(links[0].tiers, ElementsAre(Tier::kHost, Tier::kCxl));
}

TEST_F(NodeProfileTest, APathToCxlThatCannotBeMeasuredIsLeftOutAndTriedAgain) {
  device_.cxl_numa_node = 2;
  cxl_.faults["LinkBytesPerS"] = absl::UnavailableError("no such memory");
  const NodeProfile node = Obtain();
  EXPECT_THAT(node.failures, ElementsAre(HasSubstr("cxl: link with 8192 bytes in flight: no such memory")));
  EXPECT_EQ(node.profile.link_bytes_per_s, 50e9);
  EXPECT_EQ(node.profile.remote_tiers.size(), 1u);
  EXPECT_EQ(CachedFiles(), 0u);
  cxl_.faults.clear();
  EXPECT_EQ(Obtain().profile.remote_tiers.size(), 2u);
  // Host memory's time counts, too.
  EXPECT_EQ(CachedFiles(), 1u);
}

// What an earlier dak wrote, word for word: it knew one link only. Taking its values for all links would misread it.
TEST_F(NodeProfileTest, AFileOfTheFormatBeforeIsMeasuredAnew) {
  std::filesystem::create_directory(config_.cache_dir());
  std::ofstream(path()) << R"(format: 1
device_uuid: "0123456789abcdef0123456789abcdef"
device_name: "Some GPU"
driver: "CUDA 13.0, 580.95.05"
measured_unix_s: 1764000000
measuring_s: 1.4
profile {
  hbm_bytes_per_s: 3e+12
  link_bytes_per_s: 12345
  flops_per_s: 8e+14
  round_trip_ns: 1
  knee_bytes: 8192
  cliff_bytes: 8192
}
)";
  const NodeProfile node = Obtain();
  EXPECT_FALSE(node.from_cache);
  EXPECT_EQ(node.profile.link_bytes_per_s, 50e9);
  EXPECT_THAT(node.failures, ElementsAre(HasSubstr("it is of format '1', not '4'")));
  EXPECT_TRUE(Obtain().from_cache);  // it was replaced
}

TEST_F(NodeProfileTest, CorruptCacheIsIgnored) {
  Obtain();
  std::ifstream file(path());
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::string bad_value = text;
  const size_t at = bad_value.find("link_bytes_per_s: ");
  bad_value.insert(at + 18, "-");
  for (const std::string& spoilt :
       {std::string(), std::string("\x7f\x00garbage", 9), text.substr(0, text.size() / 2),
        text.substr(0, text.find("profile")), std::string(2 << 20, ' ') + text, bad_value}) {
    std::ofstream(path(), std::ios::binary) << spoilt;
    const int before = probes_;
    const NodeProfile node = Obtain();
    EXPECT_EQ(node.source, "measured");
    EXPECT_FALSE(node.from_cache);
    EXPECT_EQ(probes_, before + 1);
    EXPECT_THAT(node.failures, ElementsAre(HasSubstr("cache: "))) << spoilt.substr(0, 80);
    EXPECT_TRUE(Obtain().from_cache);  // it was replaced
  }
}

TEST_F(NodeProfileTest, UnwritableCacheCostsNothingElse) {
  config_.set_cache_dir(directory_.path() + "/none/cache");
  NodeProfile node = Obtain();
  EXPECT_EQ(node.source, "measured");
  EXPECT_THAT(node.failures, ElementsAre(HasSubstr("cache: ")));
  std::ofstream(directory_.path() + "/file") << "x";
  config_.set_cache_dir(directory_.path() + "/file");
  EXPECT_THAT(Obtain().failures, ElementsAre(HasSubstr("Not a directory")));
  config_.set_cache_dir("");
  EXPECT_THAT(Obtain().failures, IsEmpty());
}

TEST_F(NodeProfileTest, WithoutAProbeTheDefaultIsTaken) {
  probe_status_ = absl::ResourceExhaustedError("the probe needs 128 MiB of HBM, and 3 are free");
  const NodeProfile node = Obtain();
  EXPECT_EQ(node.source, "default");
  EXPECT_EQ(node.profile.link_bytes_per_s, 51.1e9);
  EXPECT_EQ(node.measured_unix_s, 0u);
  EXPECT_THAT(node.failures, ElementsAre(HasSubstr("128 MiB")));
  EXPECT_EQ(CachedFiles(), 0u);
}

TEST_F(NodeProfileTest, FailedMeasurementIsTheDefaultAndTriedAgain) {
  machine_.faults = {{"CopyToHost", absl::InternalError("cudaErrorIllegalAddress")}};
  NodeProfile node = Obtain();
  EXPECT_EQ(node.source, "default");
  EXPECT_EQ(node.profile.hbm_bytes_per_s, 2990e9);
  EXPECT_THAT(node.failures, ElementsAre(HasSubstr("cudaErrorIllegalAddress")));
  machine_.faults = {{"HbmBytesPerSBeside", absl::InternalError("no cliff")}};
  node = Obtain();
  EXPECT_EQ(node.source, "measured");
  EXPECT_EQ(node.profile.hbm_bytes_per_s, 3e12);
  EXPECT_THAT(node.failures, ElementsAre(HasSubstr("no cliff")));
  EXPECT_EQ(CachedFiles(), 0u);
  machine_.faults.clear();
  EXPECT_THAT(Obtain().failures, IsEmpty());
  EXPECT_EQ(CachedFiles(), 1u);
}

TEST_F(NodeProfileTest, ConfiguredValuesOverrideMeasuredOnes) {
  config_.set_cliff_bytes(2'000'000);
  NodeProfile node = Obtain();
  EXPECT_EQ(node.source, "configured");
  EXPECT_EQ(node.profile.cliff_bytes, 2'000'000u);
  EXPECT_EQ(node.profile.hbm_bytes_per_s, 3e12);
  EXPECT_FALSE(node.profile.batch_rates.empty());
  config_.set_hbm_bytes_per_s(2e12);
  node = Obtain();
  EXPECT_TRUE(node.profile.batch_rates.empty());  // they were measured beside another rate
  config_.clear_cliff_bytes();
  config_.clear_hbm_bytes_per_s();
  EXPECT_EQ(Obtain().profile.cliff_bytes, machine_.cliff_bytes);  // what was kept is what was measured
}

TEST_F(NodeProfileTest, NamedMachinesAndFilesAreNotMeasured) {
  config_.set_name("h100-pcie");
  EXPECT_EQ(Obtain().source, "configured");
  config_.clear_name();
  planner::Profile profile = *planner::NamedProfile("h100-pcie");
  profile.batch_rates = {{.batch = 8, .hbm_bytes_per_s = 2.5e12, .flops_per_s = 7e14, .operation_s = 1.5e-6}};
  const std::string file = directory_.path() + "/machine.json";
  std::ofstream(file) << planner::FormatProfile(profile);
  config_.set_source(file);
  const NodeProfile node = Obtain();
  EXPECT_EQ(node.source, "configured");
  EXPECT_EQ(planner::FormatProfile(node.profile), planner::FormatProfile(profile));
  EXPECT_EQ(probes_, 0);
  config_.set_source(directory_.path() + "/none.json");
  const auto missing = ObtainProfile(config_, device_, nullptr);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailOf(missing.status()).field, "profile.source");
}

TEST_F(NodeProfileTest, EmulatedDevicesAreNeverMeasured) {
  device_ = {};
  device_.kind = "emulated";
  for (const char* source : {"auto", "measure", "cached", "default"}) {
    config_.set_source(source);
    EXPECT_EQ(Obtain().source, "default");
  }
  EXPECT_EQ(probes_, 0);
  EXPECT_EQ(CachedFiles(), 0u);
}

// A shell script in the measuring process's place.
absl::StatusOr<Measurement> MeasureByScript(const std::string& script, double timeout_s = 20) {
  return MeasureInChild({"/bin/sh", "-c", script}, timeout_s);
}

TEST(MeasuringProcessTest, ItsOutputIsTheProfile) {
  const planner::Profile profile = *planner::NamedProfile("h100-pcie");
  const std::string print = "cat <<END\n" + planner::FormatProfile(profile) + "END\n";
  auto measured = MeasureByScript(print);
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_EQ(planner::FormatProfile(measured->profile), planner::FormatProfile(profile));
  EXPECT_THAT(measured->left_out, IsEmpty());
  measured = MeasureByScript(print + "exit 3");
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_EQ(measured->left_out.size(), 1u);
}

TEST(MeasuringProcessTest, EveryWayToFailIsAnError) {
  EXPECT_EQ(MeasureByScript("exit 1").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(MeasureByScript("kill -SEGV $$").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(MeasureByScript("echo nonsense").status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(MeasureByScript("").status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(MeasureByScript("yes").status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(MeasureInChild({"/no/such/program"}, 20).status().code(), absl::StatusCode::kUnavailable);
}

// It would go on for ever; killed, it is gone when the call returns.
TEST(MeasuringProcessTest, OneThatHangsIsKilled) {
  TempDir directory;
  const std::string pid_file = directory.path() + "/pid";
  const auto measured = MeasureByScript("echo $$ > " + pid_file + "; while :; do :; done", 3);
  EXPECT_EQ(measured.status().code(), absl::StatusCode::kDeadlineExceeded);
  pid_t pid = 0;
  std::ifstream(pid_file) >> pid;
  ASSERT_GT(pid, 0);
  EXPECT_EQ(::kill(pid, 0), -1);
}

TEST(ProfileConvertTest, ValuesSurviveTheConfigurationsMessage) {
  planner::Profile profile = *planner::NamedProfile("h100-pcie");
  profile.hbm_bytes_per_s = 1.0 / 3 * 1e13;
  profile.copy_to_host_bytes_per_s = 5e10;
  profile.batch_rates = {{.batch = 1,
                          .hbm_bytes_per_s = 1e12,
                          .flops_per_s = 2e14,
                          .operation_s = 1e-6,
                          .link_bytes_per_s = 4e10 / 3,
                          .remote_s = 1e-5},
                         {.batch = 8, .hbm_bytes_per_s = 1e12 / 3, .flops_per_s = 2e14, .operation_s = 0}};
  planner::Profile again = *planner::NamedProfile("h100-pcie");
  ASSERT_TRUE(ApplyValues(ValuesOf(profile), &again).ok());
  EXPECT_EQ(planner::FormatProfile(again), planner::FormatProfile(profile));
}

}  // namespace
}  // namespace dak::daemon

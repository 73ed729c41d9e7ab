// Where a node's profile comes from: configuration, cache, measurement or default, and what each failure leads to.
#include "daemon/profile/node_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "allocator/base/error_detail.h"
#include "daemon/planner/profile_file.h"
#include "daemon/profile/cache.h"
#include "daemon/profile/convert.h"
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
    device_.kind = "cuda";
    device_.name = "Some GPU";
    device_.uuid = "0123456789abcdef0123456789abcdef";
    device_.driver = "CUDA 13.0, 580.95.05";
    config_.set_cache_dir(directory_.path() + "/cache");
  }

  NodeProfile Obtain() {
    const absl::StatusOr<NodeProfile> node =
        ObtainProfile(config_, device_, [this](int) -> absl::StatusOr<std::unique_ptr<kernels::Probe>> {
          ++probes_;
          if (!probe_status_.ok()) return probe_status_;
          return std::make_unique<FakeProbe>(&machine_);
        });
    EXPECT_TRUE(node.ok()) << node.status();
    EXPECT_EQ(machine_.probes_alive, 0) << "the probe's memory isn't freed";
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
  text.replace(text.find("format: 1"), 9, "format: 9");
  std::ofstream(path()) << text << "something_new: 5\n";
  EXPECT_THAT(Obtain().failures, ElementsAre(HasSubstr("format '9'")));
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
  config_.set_link_bytes_per_s(20e9);
  NodeProfile node = Obtain();
  EXPECT_EQ(node.source, "configured");
  EXPECT_EQ(node.profile.link_bytes_per_s, 20e9);
  EXPECT_EQ(node.profile.hbm_bytes_per_s, 3e12);
  EXPECT_FALSE(node.profile.batch_rates.empty());
  config_.set_hbm_bytes_per_s(2e12);
  node = Obtain();
  EXPECT_TRUE(node.profile.batch_rates.empty());  // they were measured beside another rate
  config_.clear_link_bytes_per_s();
  config_.clear_hbm_bytes_per_s();
  EXPECT_EQ(Obtain().profile.link_bytes_per_s, 50e9);  // what was kept is what was measured
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

TEST(ProfileConvertTest, ValuesSurviveTheConfigurationsMessage) {
  planner::Profile profile = *planner::NamedProfile("h100-pcie");
  profile.hbm_bytes_per_s = 1.0 / 3 * 1e13;
  profile.copy_to_host_bytes_per_s = 5e10;
  profile.batch_rates = {{.batch = 1, .hbm_bytes_per_s = 1e12, .flops_per_s = 2e14, .operation_s = 1e-6},
                         {.batch = 8, .hbm_bytes_per_s = 1e12 / 3, .flops_per_s = 2e14, .operation_s = 0}};
  planner::Profile again = *planner::NamedProfile("h100-pcie");
  ASSERT_TRUE(ApplyValues(ValuesOf(profile), &again).ok());
  EXPECT_EQ(planner::FormatProfile(again), planner::FormatProfile(profile));
}

}  // namespace
}  // namespace dak::daemon

// The links of a node, as its device and its profile say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "daemon/config/command_line.h"
#include "daemon/planner/profile_file.h"
#include "daemon/profile/child.h"
#include "daemon/profile/links.h"
#include "daemon/profile/node_profile.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using testing::ElementsAre;

class NodeLinksTest : public testing::Test {
 protected:
  NodeLinksTest() {
    device_.kind = "emulated";
    device_.cxl_link =
        LinkModel{.bandwidth_bytes_per_s = 8'000'000'000, .round_trip_ns = 5'000, .cliff_bytes = 400'000};
  }
  planner::Profile Obtain() {
    const absl::StatusOr<NodeProfile> node = ObtainProfile(config_, device_, nullptr);
    EXPECT_TRUE(node.ok()) << node.status();
    return node.ok() ? node->profile : planner::Profile();
  }

  DeviceDescription device_;
  config::Profile config_;
};

TEST_F(NodeLinksTest, TheCxlTiersOwnLinkHasItsModelsProfile) {
  const std::vector<NodeLink> links = LinksOf(Obtain(), device_);
  ASSERT_EQ(links.size(), 2u);
  EXPECT_EQ(links[0].is_modelled, device_.kind == "emulated");
  EXPECT_EQ(links[0].profile.bandwidth_bytes_per_s, 51.1e9);
  EXPECT_EQ(links[0].profile.round_trip_ns, 1'800u);
  EXPECT_THAT(links[0].tiers, ElementsAre(Tier::kHost));
  EXPECT_EQ(links[1].profile.bandwidth_bytes_per_s, 8e9);
  EXPECT_EQ(links[1].profile.round_trip_ns, 5'000u);
  EXPECT_EQ(links[1].profile.cliff_bytes, 400'000u);
  EXPECT_EQ(links[1].knee_bytes, 40'000u);
  EXPECT_THAT(links[1].tiers, ElementsAre(Tier::kCxl));
}

TEST_F(NodeLinksTest, WithoutItCxlIsReadOverTheOther) {
  device_.cxl_link.reset();
  const std::vector<NodeLink> links = LinksOf(Obtain(), device_);
  ASSERT_EQ(links.size(), 1u);
  EXPECT_THAT(links[0].tiers, ElementsAre(Tier::kHost, Tier::kCxl));
}

TEST_F(NodeLinksTest, SingleValuesOverrideTheModels) {
  config_.mutable_cxl()->set_round_trip_ns(6'000);
  config_.mutable_cxl()->set_cliff_bytes(300'000);
  config_.mutable_cxl()->set_knee_bytes(50'000);
  const std::vector<NodeLink> links = LinksOf(Obtain(), device_);
  EXPECT_EQ(links[1].profile.bandwidth_bytes_per_s, 8e9);
  EXPECT_EQ(links[1].profile.round_trip_ns, 6'000u);
  EXPECT_EQ(links[1].profile.cliff_bytes, 300'000u);
  EXPECT_EQ(links[1].knee_bytes, 50'000u);
  EXPECT_EQ(links[0].profile.round_trip_ns, 1'800u);
}

// A machine that a file describes may have links that this device hasn't.
TEST_F(NodeLinksTest, WhichTierHasItsOwnIsTheDevicesToSay) {
  const std::string text = planner::FormatProfile(Obtain());
  const auto parsed = planner::ParseProfile(text);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->remote_tiers.size(), 2u);
  EXPECT_TRUE(parsed->remote_tiers[1].own_link);
  EXPECT_EQ(planner::FormatProfile(*parsed), text);
  TempDir directory;
  std::ofstream(directory.path() + "/two.json") << text;
  device_.cxl_link.reset();
  config_.set_source(directory.path() + "/two.json");
  const planner::Profile profile = Obtain();
  EXPECT_FALSE(profile.remote_tiers[1].own_link);
  EXPECT_EQ(profile.remote_tiers[1].bytes_per_s, 8e9);  // what it says of the tier stands
  EXPECT_EQ(LinksOf(profile, device_).size(), 1u);
}

// The process that measures has to know of the cxl tier, too.
TEST(MeasuringCommandTest, NamesTheGpuAndTheCxlNode) {
  DeviceDescription device;
  device.ordinal = 3;
  device.cxl_numa_node = 2;
  std::vector<std::string> command = MeasuringCommand("/usr/bin/dakd", device);
  command.erase(command.begin());
  const absl::StatusOr<CommandLine> line = ParseCommandLine(command);
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->mode, CommandLine::Mode::kPrintProfile);
  EXPECT_EQ(line->overrides.gpu_ordinal(), 3);
  EXPECT_EQ(line->overrides.cxl_numa_node(), 2);
  EXPECT_FALSE(ParseCommandLine(std::vector<std::string>{"--cxl-numa-node=near"}).ok());
}

}  // namespace
}  // namespace dak::daemon

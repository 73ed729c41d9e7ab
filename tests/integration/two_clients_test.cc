// Two client processes at work at once, and what is left when they die.
#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

using ::testing::Optional;
using ::testing::SizeIs;

class TwoClientsTest : public IntegrationTest {
 protected:
  std::unique_ptr<ChildProcess> Client(const std::string& name, const std::string& weight) {
    return std::make_unique<ChildProcess>(
        std::vector<std::string>{DAK_TEST_CLIENT_PATH, daemon_.runtime_dir(), name, weight, "work"});
  }
  std::map<std::string, v1::SessionInfo> ByName() {
    std::map<std::string, v1::SessionInfo> sessions;
    for (const v1::SessionInfo& session : daemon_.Sessions()) sessions[session.name()] = session;
    return sessions;
  }
};

TEST_F(TwoClientsTest, BothComputeRightAndWindowsFollowTheWeights) {
  auto heavy = Client("heavy", "300");
  auto light = Client("light", "100");
  ASSERT_THAT(heavy->ReadLine(), Optional(std::string("ready")));
  ASSERT_THAT(light->ReadLine(), Optional(std::string("ready")));
  // Both at work all the while, until the daemon has seen both active.
  heavy->WriteLine("passes");
  light->WriteLine("passes");
  EXPECT_TRUE(daemon_.WaitUntil([&] {
    const auto congestion = Ask(daemon_.node(), &v1::NodeService::Stub::GetCongestion, v1::GetCongestionRequest());
    std::map<std::string, v1::SessionWindow> windows;
    for (const v1::SessionWindow& window : congestion.links(0).sessions()) windows[window.name()] = window;
    if (!windows["heavy"].active() || !windows["light"].active()) return false;
    const double ratio = static_cast<double>(windows["heavy"].window_bytes()) /
                         static_cast<double>(std::max<uint64_t>(1, windows["light"].window_bytes()));
    EXPECT_FALSE(windows["heavy"].violating());
    return ratio > 2.5 && ratio < 3.5;
  })) << "windows never stood 3 to 1";
  for (ChildProcess* client : {heavy.get(), light.get()}) {
    client->WriteLine("");
    EXPECT_THAT(client->ReadLine(), Optional(std::string("ok")));
  }
  EXPECT_TRUE(daemon_.WaitUntil([&] { return ByName()["heavy"].remote_bytes() > 0; }));
  heavy->WriteLine("quit");
  light->WriteLine("quit");
  EXPECT_EQ(heavy->Wait(), 0);
  EXPECT_EQ(light->Wait(), 0);
  EXPECT_TRUE(daemon_.WaitUntil([&] { return daemon_.Sessions().empty(); }));
  ExpectPoolsEmpty();
}

TEST_F(TwoClientsTest, OnesDeathGivesItsMemoryBackAndLeavesTheOtherAlone) {
  auto victim = Client("victim", "100");
  auto survivor = Client("survivor", "100");
  ASSERT_THAT(victim->ReadLine(), Optional(std::string("ready")));
  ASSERT_THAT(survivor->ReadLine(), Optional(std::string("ready")));
  const uint64_t of_both = daemon_.SessionBytes();
  victim->Kill();
  EXPECT_TRUE(daemon_.WaitUntil([&] { return daemon_.SessionBytes() == of_both / 2; }));
  EXPECT_THAT(daemon_.Sessions(), SizeIs(1));
  survivor->WriteLine("pass");
  EXPECT_THAT(survivor->ReadLine(), Optional(std::string("ok")));
  survivor->Kill();
  EXPECT_TRUE(daemon_.WaitUntil([&] { return daemon_.SessionBytes() == 0; }));
  ExpectPoolsEmpty();
}

TEST_F(TwoClientsTest, TheDaemonStopsWhileTheyWork) {
  auto client = Client("client", "100");
  ASSERT_THAT(client->ReadLine(), Optional(std::string("ready")));
  EXPECT_EQ(daemon_.Terminate(), 0);
  for (int pass = 0; pass < 3; ++pass) {
    client->WriteLine("pass");
    EXPECT_THAT(client->ReadLine(), Optional(std::string("ok"))) << "mapped memory stays valid";
  }
  client->WriteLine("quit");
  EXPECT_EQ(client->Wait(), 0);
}

}  // namespace
}  // namespace dak::testing

// Starting and stopping: with everything open, twice, beside another, after one that was killed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <filesystem>
#include <fstream>

#include "allocator/base/error_detail.h"
#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

DaemonOptions OptionsIn(const TempDir& directory) {
  DaemonOptions options;
  options.runtime_dir = directory.path();
  options.device.kind = DeviceOptions::Kind::kEmulated;
  return options;
}

absl::Status StartStatus(const DaemonOptions& options) {
  return Daemon::Start(options, std::make_unique<EmulatedDevice>(options.device.emulated)).status();
}

TEST(ShutdownTest, OpenSessionsStreamsAndPublicationsEndInOrder) {
  TestDaemon daemon;
  const std::string directory = daemon.options().runtime_dir;
  TestSession session(directory), publisher(directory, "publisher");
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session.Allocate("g", {TestSession::Spec("w", 1024, 1024, 0.5)}, &response), IsOk());
  ASSERT_THAT(publisher.Allocate("g", {TestSession::Spec("w", 64, 64)}, &response), IsOk());
  ASSERT_THAT(publisher.Publish("g", "p", "f"), IsOk());
  grpc::ClientContext context;
  auto stream = session.stubs.node->WatchEvents(&context, v1::WatchEventsRequest());
  stream->WaitForInitialMetadata();

  daemon.Stop();
  v1::Event event;
  while (stream->Read(&event)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(session.connection.Receive().ended);
  EXPECT_FALSE(std::filesystem::exists(directory + "/control.sock"));
  EXPECT_FALSE(std::filesystem::exists(directory + "/handles.sock"));
  EXPECT_EQ(daemon->ledger().Pools()[0].session_bytes, 0u);
  daemon.Stop();  // harmless
}

TEST(ShutdownTest, MemoryOfEverySessionAndPublicationIsBackWhenTheDaemonIsGone) {
  const EmulatedDeviceOptions device_options = {.tier_bytes = {64 * kMiB, 64 * kMiB, 0}, .link = {}};
  TempDir directory;
  DaemonOptions options = OptionsIn(directory);
  auto emulated = std::make_unique<EmulatedDevice>(device_options);
  // Another device object over the same count outlives the daemon's: segments keep it alive, so read it before.
  auto daemon = Daemon::Start(options, std::move(emulated));
  ASSERT_TRUE(daemon.ok()) << daemon.status();
  TestSession session(directory.path());
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session.Allocate("g", {TestSession::Spec("w", 1024, 1024, 0.5)}, &response), IsOk());
  ReceivedReply fetched = session.connection.Fetch({response.segments(0).ticket(), response.segments(1).ticket()});
  ASSERT_EQ(fetched.fds.size(), 2u);
  daemon->reset();
  // What the client was given stays its own.
  struct stat info {};
  EXPECT_EQ(::fstat(fetched.fds[0].get(), &info), 0);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), 2 * kMiB);
}

TEST(ShutdownTest, SecondDaemonOnTheSameDirectoryIsRefused) {
  TestDaemon daemon;
  const absl::Status status = StartStatus(daemon.options());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailOf(status).reason, "ALREADY_RUNNING");
  EXPECT_EQ(DetailOf(status).field, "runtime_dir");
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(std::to_string(::getpid())));
  // The first one's sockets are still its own.
  TestSession session(daemon.options().runtime_dir);
  EXPECT_GT(session.id(), 0u);
}

TEST(ShutdownTest, DirectoryIsFreeAfterStop) {
  TempDir directory;
  for (int i = 0; i < 3; ++i) {
    const DaemonOptions options = OptionsIn(directory);
    auto daemon = Daemon::Start(options, std::make_unique<EmulatedDevice>(options.device.emulated));
    ASSERT_TRUE(daemon.ok()) << daemon.status();
    TestSession session(directory.path());
    EXPECT_GT(session.id(), 0u);
  }
}

TEST(ShutdownTest, StaleSocketsAreReplacedOtherFilesAreNot) {
  TempDir directory;
  const std::string path = directory.path() + "/handles.sock";
  {
    const UniqueFd stale(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, path.size());
    ASSERT_EQ(::bind(stale.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  EXPECT_TRUE(StartStatus(OptionsIn(directory)).ok());
  std::ofstream(path) << "precious";
  const absl::Status status = StartStatus(OptionsIn(directory));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(path));
  EXPECT_TRUE(std::filesystem::is_regular_file(path));
}

TEST(ShutdownTest, SocketsHaveTheConfiguredMode) {
  TempDir directory;
  DaemonOptions options = OptionsIn(directory);
  options.socket.mode = 0640;
  auto daemon = Daemon::Start(options, std::make_unique<EmulatedDevice>(options.device.emulated));
  ASSERT_TRUE(daemon.ok());
  for (const char* name : {"/control.sock", "/handles.sock"}) {
    struct stat info {};
    ASSERT_EQ(::stat((directory.path() + name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777u, 0640u);
  }
}

TEST(ShutdownTest, StartSaysWhatItCannotHave) {
  TempDir directory;
  DaemonOptions options = OptionsIn(directory);
  options.runtime_dir = directory.path() + "/no/such/parent";
  EXPECT_EQ(DetailOf(StartStatus(options)).field, "runtime_dir");
  options.runtime_dir = directory.path() + "/" + std::string(100, 'd');
  EXPECT_EQ(DetailOf(StartStatus(options)).field, "runtime_dir");

  options = OptionsIn(directory);
  options.capacity_bytes[0] = uint64_t{1} << 40;
  const absl::Status too_large = StartStatus(options);
  EXPECT_EQ(too_large.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailOf(too_large).field, "pools.hbm.capacity");
  EXPECT_EQ(DetailOf(too_large).reason, "POOL_TOO_LARGE");
  EXPECT_EQ(DetailOf(too_large).shortfall_bytes, (uint64_t{1} << 40) - (uint64_t{1} << 30));

  options = OptionsIn(directory);
  options.capacity_bytes[2] = 2 * kMiB;
  EXPECT_EQ(DetailOf(StartStatus(options)).reason, "TIER_ABSENT");

  options = OptionsIn(directory);
  options.metrics_address = "no-such-host.invalid:1";
  EXPECT_FALSE(StartStatus(options).ok());
  EXPECT_FALSE(std::filesystem::exists(directory.path() + "/control.sock"));
}

TEST(ShutdownTest, MetricsAreServedWhereAsked) {
  TempDir directory;
  DaemonOptions options = OptionsIn(directory);
  options.metrics_address = "127.0.0.1:0";
  auto daemon = Daemon::Start(options, std::make_unique<EmulatedDevice>(options.device.emulated));
  ASSERT_TRUE(daemon.ok()) << daemon.status();
  const std::string address = (*daemon)->metrics_address();
  EXPECT_THAT(address, testing::StartsWith("127.0.0.1:"));
  EXPECT_NE(address, "127.0.0.1:0");
  Stubs stubs(directory.path());
  v1::GetNodeResponse node;
  ASSERT_THAT(Call(*stubs.node, &v1::NodeService::Stub::GetNode, v1::GetNodeRequest(), &node), IsOk());
  EXPECT_EQ(node.metrics_address(), address);
}

}  // namespace
}  // namespace dak::daemon

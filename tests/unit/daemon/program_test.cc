// The program dakd: its exit codes, what it tells systemd, signals, what a killed one leaves to the next.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "daemon/planner/profile_file.h"
#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

// A dakd process, its output and what it tells systemd.
class Program {
 public:
  explicit Program(const std::vector<std::string>& arguments, const std::vector<std::string>& more_environment = {}) {
    const std::string notify_path = directory_.path() + "/notify.sock";
    notify_ = UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    notify_path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::bind(notify_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    std::vector<std::string> environment = {"NOTIFY_SOCKET=" + notify_path};
    environment.insert(environment.end(), more_environment.begin(), more_environment.end());
    std::vector<std::string> command = {DAK_DAKD_PATH};
    command.insert(command.end(), arguments.begin(), arguments.end());
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    const std::string output = OutputPath();
    ::posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT, 0600);
    ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
    EXPECT_EQ(::posix_spawn(&pid_, command[0].c_str(), &actions, nullptr, Pointers(command).data(),
                            Pointers(environment).data()),
              0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  ~Program() {
    if (pid_ > 0) Signal(SIGKILL), Wait();
  }

  void Signal(int signal) { ::kill(pid_, signal); }
  // The exit code, or 128 and the signal that killed it.
  int Wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  std::string Output() const {
    std::ifstream file(OutputPath());
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  // The next thing that it says to systemd.
  std::string NextNotice() {
    pollfd waiting = {.fd = notify_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, 20'000) != 1) return "nothing in 20 s";
    char buffer[256];
    const ssize_t got = ::recv(notify_.get(), buffer, sizeof(buffer), 0);
    return std::string(buffer, static_cast<size_t>(got > 0 ? got : 0));
  }

 private:
  std::string OutputPath() const { return directory_.path() + "/output"; }
  static std::vector<char*> Pointers(std::vector<std::string>& strings) {
    std::vector<char*> pointers;
    for (std::string& text : strings) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    return pointers;
  }
  TempDir directory_;
  UniqueFd notify_;
  pid_t pid_ = -1;
};

std::vector<std::string> Emulated(const std::string& runtime_dir) {
  return {"--runtime-dir=" + runtime_dir, "--device=emulated", "--metrics-address=off", "--hbm=64MiB", "--host=64MiB"};
}

TEST(ProgramTest, HelpAndVersionAnswerAndExit) {
  Program help({"--help"}), version({"--version"});
  EXPECT_EQ(help.Wait(), 0);
  EXPECT_THAT(help.Output(), testing::HasSubstr("--check-config"));
  EXPECT_EQ(version.Wait(), 0);
  EXPECT_EQ(version.Output(), std::string("dakd ") + Version() + "\n");
}

TEST(ProgramTest, WrongConfigurationExitsWithTwoAndNamesTheField) {
  TempDir directory;
  const std::string path = directory.path() + "/dakd.textproto";
  std::ofstream(path) << "lease_ms: 86400001";
  Program bad_file({"--config=" + path, "--check-config"}), bad_flag({"--hbm=lots"}), good({"--check-config"});
  EXPECT_EQ(bad_file.Wait(), 2);
  EXPECT_THAT(bad_file.Output(), testing::StartsWith("dakd: lease_ms:"));
  EXPECT_EQ(bad_flag.Wait(), 2);
  EXPECT_THAT(bad_flag.Output(), testing::HasSubstr("capacity"));
  EXPECT_EQ(good.Wait(), 0);
}

// Standard error has the log; here both are one file.
TEST(ProgramTest, PrintsTheProfileThatAStartWouldTake) {
  Program model({"--device=emulated", "--print-profile", "--log-level=off"});
  EXPECT_EQ(model.Wait(), 0);
  const auto profile = planner::ParseProfile(model.Output());
  ASSERT_TRUE(profile.ok()) << profile.status() << model.Output();
  EXPECT_EQ(profile->link_bytes_per_s, 51.1e9);
  TempDir directory;
  const std::string path = directory.path() + "/machine.json";
  std::ofstream(path) << R"({"hbm_bytes_per_s": 1e12, "link_bytes_per_s": 1e10, "flops_per_s": 1e14,
                             "round_trip_ns": 900})";
  Program file({"--device=emulated", "--print-profile", "--log-level=off", "--profile=" + path});
  EXPECT_EQ(file.Wait(), 0);
  EXPECT_EQ(planner::ParseProfile(file.Output())->round_trip_ns, 900u);
  const std::string config = directory.path() + "/two.textproto";
  std::ofstream(config) << "pools { tier: 'cxl' capacity: '2MiB' } emulated { cxl_link { round_trip_ns: 5000 } }";
  Program two({"--device=emulated", "--print-profile", "--log-level=off", "--config=" + config});
  EXPECT_EQ(two.Wait(), 0);
  const auto by_link = planner::ParseProfile(two.Output());
  ASSERT_TRUE(by_link.ok()) << by_link.status() << two.Output();
  ASSERT_EQ(by_link->remote_tiers.size(), 2u);
  EXPECT_TRUE(by_link->remote_tiers[1].own_link);
  EXPECT_EQ(by_link->remote_tiers[1].bytes_per_s, 51.1e9);
  EXPECT_EQ(by_link->remote_tiers[1].round_trip_ns, 5'000u);
  EXPECT_EQ(by_link->round_trip_ns, 1'800u);
  Program unmeasured({"--device=emulated", "--print-profile", "--profile=once"});
  EXPECT_EQ(unmeasured.Wait(), 1);
  EXPECT_THAT(unmeasured.Output(), testing::HasSubstr("nothing was measured"));
  Program missing({"--device=emulated", "--profile=/no/such/machine.json", "--runtime-dir=" + directory.path()});
  EXPECT_EQ(missing.Wait(), 2);
  EXPECT_THAT(missing.Output(), testing::HasSubstr("profile.source: "));
}

TEST(ProgramTest, SaysWhenItIsReadyAndWhenItStops) {
  for (const int signal : {SIGTERM, SIGINT}) {
    TempDir directory;
    Program program(Emulated(directory.path()));
    EXPECT_EQ(program.NextNotice(), "READY=1");
    TestSession session(directory.path());  // ready means ready
    v1::AllocateTensorsResponse response;
    EXPECT_THAT(session.Allocate("g", {TestSession::Spec("w", 64, 64)}, &response), IsOk());
    program.Signal(signal);
    EXPECT_EQ(program.NextNotice(), "STOPPING=1");
    EXPECT_EQ(program.Wait(), 0);
    EXPECT_TRUE(session.connection.Receive().ended);
  }
}

TEST(ProgramTest, FeedsTheWatchdogWhereThereIsOne) {
  TempDir directory;
  Program program(Emulated(directory.path()), {"WATCHDOG_USEC=100000"});
  EXPECT_EQ(program.NextNotice(), "READY=1");
  EXPECT_EQ(program.NextNotice(), "WATCHDOG=1");
  EXPECT_EQ(program.NextNotice(), "WATCHDOG=1");
  program.Signal(SIGTERM);
  EXPECT_EQ(program.Wait(), 0);
}

TEST(ProgramTest, SecondOneIsRefusedAndNamesTheFirst) {
  TempDir directory;
  Program first(Emulated(directory.path()));
  ASSERT_EQ(first.NextNotice(), "READY=1");
  Program second(Emulated(directory.path()));
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_THAT(second.Output(), testing::HasSubstr("another dakd (pid "));
  TestSession session(directory.path());
  EXPECT_GT(session.id(), 0u);
}

TEST(ProgramTest, KilledOneLeavesNothingInTheWayOfTheNext) {
  TempDir directory;
  Program first(Emulated(directory.path()));
  ASSERT_EQ(first.NextNotice(), "READY=1");
  TestSession session(directory.path());
  first.Signal(SIGKILL);
  EXPECT_EQ(first.Wait(), 128 + SIGKILL);
  EXPECT_TRUE(session.connection.Receive().ended);
  struct stat info {};
  ASSERT_EQ(::stat((directory.path() + "/control.sock").c_str(), &info), 0);
  Program next(Emulated(directory.path()));
  ASSERT_EQ(next.NextNotice(), "READY=1");
  TestSession again(directory.path());
  EXPECT_GT(again.id(), 0u);
}

TEST(ProgramTest, DeviceThatIsNotThereIsSaid) {
  TempDir directory;
  Program program({"--runtime-dir=" + directory.path(), "--device=cuda", "--gpu=9999"});
  EXPECT_EQ(program.Wait(), 1);
  EXPECT_THAT(program.Output(), testing::HasSubstr("dakd: "));
}

}  // namespace
}  // namespace dak::daemon

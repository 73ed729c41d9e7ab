// What dakctl says when it can't do what it was asked.
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "allocator/base/unique_fd.h"
#include "daemon/dakctl/client.h"
#include "tests/unit/dakctl/fake_daemon.h"

namespace dak::dakctl {
namespace {

using ::testing::AllOf;
using testing::Dakctl;
using testing::FakeDaemon;
using ::testing::HasSubstr;
using testing::MakeFolder;
using testing::Result;
using ::testing::StartsWith;

UniqueFd Bind(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

TEST(ErrorsTest, EveryCommandNamesTheSocketThatIsNotThere) {
  const std::string dir = MakeFolder();
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{{"status"},
                                                                                    {"pools"},
                                                                                    {"sessions"},
                                                                                    {"tensors"},
                                                                                    {"publications"},
                                                                                    {"quotas"},
                                                                                    {"quotas", "set", "1", "hbm", "1"},
                                                                                    {"congestion"},
                                                                                    {"profile"},
                                                                                    {"plans", "3"},
                                                                                    {"events"},
                                                                                    {"events", "--follow"},
                                                                                    {"watch"},
                                                                                    {"withdraw", "x"}}) {
    for (const char* style : {"--bytes", "--json"}) {
      std::vector<std::string> with_style = args;
      with_style.push_back(style);
      const Result result = Dakctl(dir, with_style);
      EXPECT_EQ(result.exit_code, kExitFailed) << args[0];
      EXPECT_EQ(result.out, "") << args[0];
      EXPECT_EQ(result.err, "dakctl: no daemon: there is no socket " + dir +
                                "/control.sock; is dakd running? (systemctl status dakd; --runtime-dir or "
                                "$DAK_RUNTIME_DIR names another place)\n");
    }
  }
}

TEST(ErrorsTest, TellsALeftOverSocketFromAMissingOne) {
  const std::string dir = MakeFolder();
  Bind(dir + "/control.sock");
  const Result result = Dakctl(dir, {"pools"});
  EXPECT_EQ(result.exit_code, kExitFailed);
  EXPECT_THAT(result.err, AllOf(HasSubstr("nobody listens at " + dir + "/control.sock"), HasSubstr("left behind")));
}

TEST(ErrorsTest, SaysWhoMayOpenASocketThatIsClosedToUs) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody who may not";
  const std::string dir = MakeFolder();
  std::filesystem::permissions(dir, std::filesystem::perms::all);
  const std::string path = dir + "/control.sock";
  const UniqueFd listener = Bind(path);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ASSERT_EQ(::chmod(path.c_str(), 0660), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    // The folder above may be closed to others too; the socket's own mode is what is tested.
    if (::chdir(dir.c_str()) != 0 || ::setgroups(0, nullptr) != 0 || ::setgid(65534) != 0 || ::setuid(65534) != 0)
      ::_exit(3);
    const std::string text = DiagnoseSocket("control.sock");
    ::_exit(text.find("may not open control.sock (it belongs to root:root, mode 0660)") != std::string::npos ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(ErrorsTest, SaysThatThePeerHungUp) {
  const std::string dir = MakeFolder();
  const UniqueFd listener = Bind(dir + "/control.sock");
  ASSERT_EQ(::listen(listener.get(), 8), 0);
  // As dakd does with users that it doesn't allow: accept, then close.
  std::thread refuser([fd = listener.get()] {
    for (;;) {
      const UniqueFd peer(::accept(fd, nullptr, nullptr));
      if (!peer.valid()) return;
    }
  });
  const Result result = Dakctl(dir, {"pools", "--timeout=5"});
  ::shutdown(listener.get(), SHUT_RDWR);
  refuser.join();
  EXPECT_EQ(result.exit_code, kExitFailed);
  EXPECT_THAT(result.err, HasSubstr("took the connection and closed it; its configuration may not allow user"));
}

TEST(ErrorsTest, SaysThatTheAnswerTookTooLong) {
  const std::string dir = MakeFolder();
  const UniqueFd listener = Bind(dir + "/control.sock");
  ASSERT_EQ(::listen(listener.get(), 8), 0);  // and nobody accepts
  const Result result = Dakctl(dir, {"pools", "--timeout=0.2"});
  EXPECT_EQ(result.exit_code, kExitFailed);
  EXPECT_EQ(result.err,
            "dakctl: dakd at " + dir + "/control.sock gave no answer within 0.2 s (--timeout raises that)\n");
}

TEST(ErrorsTest, SaysThatAPathIsTooLong) {
  const Result result = Dakctl("/" + std::string(150, 'd'), {"pools"});
  EXPECT_EQ(result.exit_code, kExitFailed);
  EXPECT_THAT(result.err, HasSubstr("has 164 characters; Linux takes at most 107"));
}

TEST(ErrorsTest, TakesFoldersWithOddNames) {
  FakeDaemon daemon;
  const std::string odd = MakeFolder() + "/a b%20?#";
  std::filesystem::create_directory(odd);
  std::filesystem::create_symlink(daemon.runtime_dir() + "/control.sock", odd + "/control.sock");
  const Result result = Dakctl(odd, {"pools"});
  EXPECT_EQ(result.exit_code, kExitOk) << result.err;
}

TEST(ErrorsTest, ShowsTheDaemonsReasonAndShortfall) {
  FakeDaemon daemon;
  v1::ErrorDetail detail;
  detail.set_field("limit_bytes");
  detail.set_reason("OUT_OF_RANGE\x1b[31m");
  detail.set_limit("whole granules of 2 MiB");
  detail.set_shortfall_bytes(uint64_t{3} << 30);
  v1::RpcStatus rpc;
  rpc.set_code(3);
  auto* other = rpc.add_details();
  other->set_type_url("type.googleapis.com/other");
  auto* any = rpc.add_details();
  any->set_type_url("type.googleapis.com/dak.v1.ErrorDetail");
  any->set_value(detail.SerializeAsString());
  daemon.script().set_quota = [&](const v1::SetQuotaRequest&, v1::SetQuotaResponse*) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "limit_bytes: 1 is \x1b[2Jno size",
                        rpc.SerializeAsString());
  };
  const Result result = Dakctl(daemon.runtime_dir(), {"quotas", "set", "1", "hbm", "1"});
  EXPECT_EQ(result.exit_code, kExitFailed);
  EXPECT_EQ(result.err,
            "dakctl: limit_bytes: 1 is \\x1b[2Jno size [INVALID_ARGUMENT]\n"
            "  field:    limit_bytes\n"
            "  reason:   OUT_OF_RANGE\\x1b[31m\n"
            "  limit:    whole granules of 2 MiB\n"
            "  short by: 3.00 GiB\n");
}

TEST(ErrorsTest, ShowsOtherRefusals) {
  FakeDaemon daemon;
  daemon.script().status = grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "only for root");
  for (const char* command :
       {"status", "pools", "sessions", "tensors", "publications", "quotas", "congestion", "profile", "events"}) {
    const Result result = Dakctl(daemon.runtime_dir(), {command});
    EXPECT_EQ(result.exit_code, kExitFailed) << command;
    EXPECT_EQ(result.err, "dakctl: only for root [PERMISSION_DENIED]\n") << command;
  }
  daemon.script().status = grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "");
  EXPECT_THAT(Dakctl(daemon.runtime_dir(), {"pools"}).err, HasSubstr("is it older than this dakctl?"));
  // UNAVAILABLE that the daemon itself gives a reason for isn't guessed at.
  v1::RpcStatus rpc;
  rpc.set_code(14);
  daemon.script().status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "shutting down", rpc.SerializeAsString());
  EXPECT_EQ(Dakctl(daemon.runtime_dir(), {"pools"}).err, "dakctl: shutting down\n");
}

TEST(ErrorsTest, AWrongCommandLineIsExitCodeTwo) {
  const Result unknown = Dakctl("", {"statsu"});
  EXPECT_EQ(unknown.exit_code, kExitUsage);
  EXPECT_EQ(unknown.err,
            "dakctl: unknown command 'statsu'; did you mean 'status'?\n'dakctl help' lists the commands\n");
  EXPECT_EQ(unknown.out, "");
  const Result nothing = Dakctl("", {});
  EXPECT_EQ(nothing.exit_code, kExitUsage);
  EXPECT_THAT(nothing.err, AllOf(StartsWith("dakctl: needs a command\n"), HasSubstr("commands:")));
}

}  // namespace
}  // namespace dak::dakctl

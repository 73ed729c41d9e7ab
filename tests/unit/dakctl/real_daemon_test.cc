// Every command against a real daemon on the emulated device.
#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <sstream>

#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"
#include "tests/unit/dakctl/fake_daemon.h"

namespace dak::dakctl {
namespace {

using daemon::IsOk;
using daemon::kMiB;
using daemon::TestDaemon;
using daemon::TestSession;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using testing::Dakctl;
using ::testing::HasSubstr;
using testing::Result;
using ::testing::StartsWith;

// A node with a session that holds a split tensor, and a publication.
class RealDaemonTest : public ::testing::Test {
 protected:
  void SetUp() override {
    v1::AllocateTensorsResponse allocated;
    ASSERT_THAT(session_.Allocate("layers", {TestSession::Spec("w", 1024, 1024, 0.25)}, &allocated), IsOk());
    ASSERT_THAT(session_.Allocate("shared", {TestSession::Spec("embed", 64, 64)}, &allocated), IsOk());
    ASSERT_THAT(session_.Publish("shared", "model/embed", "sha256:ab"), IsOk());
  }
  const std::string& dir() const { return daemon_.options().runtime_dir; }
  std::string Out(std::vector<std::string> args) {
    const Result result = Dakctl(dir(), std::move(args));
    EXPECT_EQ(result.exit_code, kExitOk) << result.err;
    EXPECT_EQ(result.err, "");
    return result.out;
  }
  std::string id() const { return std::to_string(session_.id()); }

  TestDaemon daemon_;
  TestSession session_{dir(), "llama", {{v1::TIER_HBM, 32 * kMiB}}};
};

TEST_F(RealDaemonTest, ShowsWhatItHolds) {
  EXPECT_THAT(Out({"status"}), AllOf(StartsWith("dakd "), HasSubstr("device    emulated 0: "),
                                     HasSubstr("metrics   off\n"), HasSubstr("sessions  1, ")));
  EXPECT_THAT(Out({"pools"}), ContainsRegex("hbm +64.0 MiB +2.00 MiB +2.00 MiB +60.0 MiB +6.2 %"));
  EXPECT_THAT(Out({"sessions"}), ContainsRegex(" llama +[0-9]+ .* 100 +1 +2.00 MiB +2.00 MiB +50.0 %"));
  EXPECT_THAT(Out({"tensors"}), AllOf(ContainsRegex(id() + " +layers +w +bf16 +1024 +1024 +1.50 MiB +512 KiB +25.0 %"),
                                      ContainsRegex("published +[^ ]+ +embed")));
  EXPECT_THAT(Out({"tensors", "--session=" + id()}), ::testing::Not(HasSubstr("embed")));
  EXPECT_THAT(Out({"publications"}), ContainsRegex("model/embed .* 2.00 MiB +0 B +1 +open +sha256:ab"));
  EXPECT_THAT(Out({"congestion"}), AllOf(StartsWith("link 0 (host): 0 B/s of "), HasSubstr("llama")));
}

TEST_F(RealDaemonTest, ChangesAQuotaWhileTheSessionRuns) {
  EXPECT_THAT(Out({"quotas"}), ContainsRegex(" llama +hbm +32.0 MiB +2.00 MiB +6.2 % +- +1\n"));
  EXPECT_THAT(Out({"quotas", "set", id(), "hbm", "4MiB", "--revision=1"}),
              "session " + id() + ": hbm limit 4.00 MiB, used 2.00 MiB (revision 2)\n");
  const Result stale = Dakctl(dir(), {"quotas", "set", id(), "hbm", "8MiB", "--revision=1"});
  EXPECT_EQ(stale.exit_code, kExitFailed);
  EXPECT_THAT(stale.err, HasSubstr("[ABORTED]"));
  EXPECT_THAT(Out({"quotas", "set", id(), "hbm", "0"}), HasSubstr("it holds 2.00 MiB more than that"));
  const Result nobody = Dakctl(dir(), {"quotas", "set", "999", "hbm", "8MiB"});
  EXPECT_EQ(nobody.exit_code, kExitFailed);
  EXPECT_THAT(nobody.err, HasSubstr("[NOT_FOUND]"));
}

TEST_F(RealDaemonTest, WithdrawsAPublicationOnce) {
  // The publisher stays attached to what it published.
  EXPECT_THAT(Out({"withdraw", "model/embed"}), HasSubstr("withdrawn; 1 session is still attached"));
  EXPECT_THAT(Out({"publications"}), ContainsRegex("model/embed .* withdrawn "));
  ASSERT_THAT(session_.Detach("model/embed"), IsOk());
  EXPECT_EQ(Out({"publications"}), "no publications\n");
  const Result again = Dakctl(dir(), {"withdraw", "model/embed"});
  EXPECT_EQ(again.exit_code, kExitFailed);
  EXPECT_THAT(again.err, HasSubstr("[NOT_FOUND]"));
}

TEST_F(RealDaemonTest, TellsWhatHappened) {
  const std::string events = Out({"events"});
  size_t at = 0;
  for (const char* type : {"SESSION_OPENED", "TENSORS_ALLOCATED", "GROUP_PUBLISHED"}) {
    at = events.find(type, at);
    EXPECT_NE(at, std::string::npos) << type << " in\n" << events;
  }
}

TEST_F(RealDaemonTest, FollowsEventsUntilTheDaemonStops) {
  // Dies with the first line that comes: by then the stream stands.
  class StopAtFirstLine : public std::stringbuf {
   public:
    explicit StopAtFirstLine(TestDaemon& daemon) : daemon_(daemon) {}
    int sync() override {
      if (!std::exchange(stopped_, true)) daemon_.Stop();
      return 0;
    }

   private:
    TestDaemon& daemon_;
    bool stopped_ = false;
  };
  StopAtFirstLine buffer(daemon_);
  std::ostream out(&buffer);
  std::ostringstream err;
  EXPECT_EQ(RunDakctl(std::vector<std::string>{"--runtime-dir", dir(), "events", "--follow"}, out, err), kExitFailed);
  EXPECT_THAT(buffer.str(), HasSubstr("SESSION_OPENED"));
  EXPECT_EQ(err.str(), "dakctl: the daemon is shutting down\n");
}

TEST_F(RealDaemonTest, EveryQueryIsOneJsonDocument) {
  for (const char* command :
       {"status", "pools", "sessions", "tensors", "publications", "quotas", "congestion", "profile"}) {
    google::protobuf::Struct document;
    const std::string out = Out({command, "--json"});
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(out, &document).ok()) << command << "\n" << out;
  }
}

TEST_F(RealDaemonTest, WatchSeesTheDaemonStop) {
  Terminal terminal;
  terminal.is_tty = true;
  int frames = 0;
  terminal.wait = [&](double) {
    if (++frames == 2) daemon_.Stop();
    return true;
  };
  const Result result = Dakctl(dir(), {"watch"}, terminal);
  EXPECT_EQ(frames, 2);
  EXPECT_EQ(result.exit_code, kExitFailed);
  EXPECT_THAT(result.out, HasSubstr("llama"));
  EXPECT_THAT(result.err, StartsWith("dakctl: dakd went away: "));
}

}  // namespace
}  // namespace dak::dakctl

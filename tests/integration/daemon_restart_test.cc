// The daemon dies, stays away, comes back.
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>

#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

using ::testing::Optional;

class DaemonRestartTest : public IntegrationTest {};

TEST_F(DaemonRestartTest, MappedMemoryOutlivesTheDaemonAndANewSessionStartsAfresh) {
  dak::Session old_session = Open("old");
  auto w = old_session.Allocate(Matrix("w", 512, 256, 0.5));
  ASSERT_TRUE(w.ok());
  const std::vector<uint8_t> bytes = Pattern(512 * 256 * 2, 3);
  ASSERT_TRUE(w->Upload(std::span(bytes)).ok());
  daemon_.Kill();
  EXPECT_EQ(old_session.GetInfo()->connected, 0);
  EXPECT_EQ(old_session.Allocate(Matrix("v", 64, 64, 0)).status().code(), DAK_UNAVAILABLE);
  EXPECT_EQ(OpenSession(daemon_, "nobody there").status().code(), DAK_UNAVAILABLE);
  daemon_.Start();
  EXPECT_EQ(old_session.GetInfo()->connected, 0) << "the session is gone for good";
  EXPECT_EQ(old_session.Free(*w).code(), DAK_UNAVAILABLE);
  EXPECT_EQ(Contents(*w), bytes);
  ASSERT_TRUE(w->Upload(std::span(bytes).first(10), 7).ok());
  dak::Session new_session = Open("new");
  EXPECT_TRUE(new_session.Allocate(Matrix("w", 512, 256, 0.5)).ok());
  old_session.Close();
  EXPECT_EQ(new_session.GetInfo()->connected, 1);
}

TEST_F(DaemonRestartTest, StopsInOrderWhileSessionsAreOpen) {
  dak::Session session = Open();
  ASSERT_TRUE(session.Allocate(Matrix("w", 64, 64, 0)).ok());
  EXPECT_EQ(daemon_.Terminate(), 0);
  EXPECT_EQ(session.GetInfo()->connected, 0);
  struct stat info;
  EXPECT_NE(stat((daemon_.runtime_dir() + "/handles.sock").c_str(), &info), 0) << "sockets are removed";
  daemon_.Start();
}

TEST_F(DaemonRestartTest, ADaemonThatIsStoppedIsWaitedForOnlySoLong) {
  auto session = dak::Session::Open(
      {.runtime_dir = daemon_.runtime_dir(), .name = "hasty", .timeout = std::chrono::milliseconds(300)});
  ASSERT_TRUE(session.ok());
  auto w = session->Allocate(Matrix("w", 64, 64, 0.5));
  ASSERT_TRUE(w.ok()) << w.status().ToString();
  kill(daemon_.pid(), SIGSTOP);
  siginfo_t stopped;  // kill returns before every thread of the daemon has stopped
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(daemon_.pid()), &stopped, WSTOPPED), 0);
  EXPECT_EQ(session->Allocate(Matrix("lost", 64, 64, 0.5)).status().code(), DAK_DEADLINE_EXCEEDED);
  EXPECT_EQ(session->GetInfo()->connected, 1);
  std::vector<uint8_t> byte(1);
  EXPECT_TRUE(w->Download(std::span(byte)).ok());
  kill(daemon_.pid(), SIGCONT);
  // What became of the lost allocation is settled by the next call that gets through.
  dak::Result<dak::Tensor> next = dak::Status();
  EXPECT_TRUE(daemon_.WaitUntil([&] {
    next = session->Allocate(Matrix("next", 64, 64, 0.5));
    return next.ok() || next.status().code() != DAK_DEADLINE_EXCEEDED;
  }));
  EXPECT_TRUE(next.ok()) << next.status().ToString();
}

TEST_F(DaemonRestartTest, AForkedChildDoesNotKeepTheSessionAlive) {
  ChildProcess owner({DAK_TEST_CLIENT_PATH, daemon_.runtime_dir(), "owner", "100", "work"});
  ASSERT_THAT(owner.ReadLine(), Optional(std::string("ready")));
  owner.WriteLine("fork");  // the child lingers until its input is closed
  ASSERT_THAT(owner.ReadLine(), Optional(std::string("forked")));
  owner.Kill();
  EXPECT_TRUE(daemon_.WaitUntil([&] { return daemon_.Sessions().empty() && daemon_.SessionBytes() == 0; }));
}

}  // namespace
}  // namespace dak::testing

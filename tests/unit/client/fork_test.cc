// A forked child may not use its parent's session, and doesn't prolong it.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "tests/unit/client/client_fixture.h"

namespace dak::testing {
namespace {

class ForkTest : public ClientTest {
 protected:
  // Runs `body` in a forked child; true if it returned true there.
  static bool TrueInChild(const std::function<bool()>& body) {
    const pid_t child = fork();
    if (child == 0) _exit(body() ? 0 : 1);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
};

TEST_F(ForkTest, EveryCallIsRefusedInTheChild) {
  dak::Session session = Open();
  dak::Tensor w = *session.Allocate(Spec("w"));
  EXPECT_TRUE(TrueInChild([&] {
    std::vector<uint8_t> bytes(1);
    const std::vector<dak::Status> refusals = {session.GetInfo().status(),
                                               session.Allocate(Spec("x")).status(),
                                               session.Free(w),
                                               w.Upload(std::span(bytes)),
                                               w.Download(std::span(bytes)),
                                               session.Gemm(w, 64, 128, 1),
                                               session.Publish("default", "p", "f"),
                                               session.Synchronize()};
    for (const dak::Status& status : refusals) {
      if (status.code() != DAK_FAILED_PRECONDITION || status.reason() != "FORKED") return false;
    }
    session.Close();
    return true;
  }));
  EXPECT_EQ(session.GetInfo()->connected, 1);
  EXPECT_TRUE(session.Free(w).ok());
}

TEST_F(ForkTest, TheChildHoldsNeitherTheConnectionNorTheMemory) {
  dak::Session session = Open();
  dak::Tensor w = *session.Allocate(Spec("w"));
  void* const memory = w.GetParts()->front().host_pointer;
  EXPECT_TRUE(TrueInChild([&] {
    // mincore fails with ENOMEM where nothing is mapped.
    unsigned char resident = 0;
    return mincore(memory, 1, &resident) != 0 && errno == ENOMEM;
  }));
  const auto seqpackets = [] {
    int count = 0;
    for (int fd = 3; fd < 1024; ++fd) {
      int type = 0;
      int listening = 0;
      socklen_t length = sizeof(type);
      if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_SEQPACKET) continue;
      length = sizeof(listening);
      getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length);
      if (listening == 0) ++count;
    }
    return count;
  };
  ASSERT_EQ(seqpackets(), 2) << "the session's end and the fake daemon's";
  EXPECT_TRUE(TrueInChild([&] { return seqpackets() == 1; })) << "only the fake daemon's";
  EXPECT_TRUE(session.Free(w).ok());
}

TEST_F(ForkTest, TheChildOpensASessionOfItsOwnAfterExec) {
  // What survives exec is closed there: everything is O_CLOEXEC.
  dak::Session session = Open();
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    struct stat info;
    if (fd > 2 && fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode)) {
      EXPECT_NE(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0) << fd;
    }
  }
}

}  // namespace
}  // namespace dak::testing

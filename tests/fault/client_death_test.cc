// A client killed by SIGKILL at every call to the kernel that a phase makes, one after the other. After each death the
// daemon's books must be even: no session, no bytes, no descriptor more than before, publications whole or absent.
#include <cstdio>
#include <map>
#include <set>

#include "tests/integration/integration_fixture.h"

namespace dak::testing {
namespace {

using ::testing::SizeIs;

constexpr int kMostCalls = 1000;

class ClientDeathTest : public IntegrationTest, public ::testing::WithParamInterface<const char*> {
 protected:
  // A link so slow that a GEMM sleeps on it.
  ClientDeathTest()
      : IntegrationTest(
            {.flags = {}, .config = "emulated { bandwidth_bytes_per_s: 5000000 }", .hbm = "64MiB", .host = "64MiB"}) {}
  void SetUp() override {
    // What the attach phase attaches; published by a session that is gone.
    dak::Session publisher = Open("publisher");
    auto w = publisher.Allocate(Matrix("w", 1024, 512, 0.5), "shared");
    ASSERT_TRUE(w.ok()) << w.status().ToString();
    shared_bytes_ = Pattern(1024 * 512 * 2, 11);
    ASSERT_TRUE(w->Upload(std::span(shared_bytes_)).ok());
    ASSERT_TRUE(publisher.Publish("shared", "shared", "v1").ok());
    publisher.Close();
    // Threads and descriptors that the server makes on demand.
    for (int i = 0; i < 4; ++i) {
      ASSERT_EQ(RunAndKill("none", 1), "done");
      ASSERT_TRUE(daemon_.WaitUntil([&] { return BooksAreEven(); }));
      CheckPublications();
    }
    ASSERT_TRUE(daemon_.WaitUntil([&] {
      const size_t now = daemon_.OpenDescriptors();
      return std::exchange(descriptors_, now) == now;
    }));
  }
  // "stopped" at the n-th `call` of the phase, or "done" if it has fewer. It is dead when this returns.
  std::string RunAndKill(const std::string& call, int n) {
    ChildProcess victim({DAK_STOPPING_CLIENT_PATH, daemon_.runtime_dir(), GetParam(), call, std::to_string(n)});
    const auto line = victim.ReadLine();
    EXPECT_TRUE(line.has_value()) << "the client ended by itself";
    victim.Kill();
    return line.value_or("failed");
  }
  bool BooksAreEven() {
    for (const v1::PublicationInfo& publication : daemon_.Publications()) {
      if (publication.attached_sessions() != 0) return false;
    }
    return daemon_.Sessions().empty() && daemon_.SessionBytes() == 0;
  }
  // A publication of the victim is there with all it had, or not at all.
  void CheckPublications() {
    dak::Session reader = Open("reader");
    auto shared = reader.Attach("shared", "v1");
    ASSERT_TRUE(shared.ok()) << shared.status().ToString();
    EXPECT_EQ(Contents(shared->front()), shared_bytes_);
    auto victims = reader.Attach("victims", "v1");
    if (!victims.ok()) {
      EXPECT_EQ(victims.status().code(), DAK_NOT_FOUND);
      return;
    }
    ASSERT_THAT(*victims, SizeIs(2));
    const std::vector<uint8_t> expected(1024 * 512 * 2, 0x5a);
    for (const dak::Tensor& tensor : *victims) EXPECT_TRUE(Contents(tensor) == expected);
    ASSERT_TRUE(reader.Withdraw("victims").ok());
    ASSERT_TRUE(reader.Detach("victims").ok());
  }
  void CheckThatAllMemoryIsUsable() {
    dak::Session session = Open("all");
    const uint64_t free_bytes = daemon_.Pools().at("hbm").free_bytes();
    auto all = session.Allocate(Matrix("all", free_bytes / 1024, 512, 0));
    EXPECT_TRUE(all.ok()) << all.status().ToString();
  }

  std::vector<uint8_t> shared_bytes_;
  size_t descriptors_ = 0;
};

// Calls that a phase is sure to make: if it stopped at none of them, the test tested nothing.
std::set<std::string> CallsOf(const std::string& phase) {
  static const std::map<std::string, std::set<std::string>> calls = {
      {"open", {"connect", "sendmsg", "send", "recvmsg", "mmap"}},
      {"allocate", {"sendmsg", "recvmsg", "mmap", "madvise"}},
      {"upload", {}},
      {"gemm", {"sleep"}},
      {"prepare_move", {"sendmsg", "send", "recvmsg", "mmap"}},
      {"commit_move", {"sendmsg"}},
      {"abort_move", {"munmap", "sendmsg"}},
      {"suspend", {"sendmsg"}},
      {"resume", {"sendmsg"}},
      {"publish", {"sendmsg", "mprotect"}},
      {"detach", {"munmap", "sendmsg"}},
      {"attach", {"sendmsg", "send", "recvmsg", "mmap"}},
      {"free", {"munmap", "sendmsg"}},
      {"close", {"munmap", "sendmsg", "close"}}};
  return calls.at(phase);
}

TEST_P(ClientDeathTest, LeavesNothingBehindWhereverItHappens) {
  const uint64_t published = daemon_.PublishedBytes();
  std::map<std::string, int> stops;
  for (const char* const call :
       {"connect", "send", "sendmsg", "recvmsg", "mmap", "munmap", "mprotect", "madvise", "close", "sleep"}) {
    for (int n = 1;; ++n) {
      ASSERT_LT(n, kMostCalls) << call;
      const std::string outcome = RunAndKill(call, n);
      const std::string where = outcome + " at " + call + " " + std::to_string(n);
      ASSERT_NE(outcome, "failed") << where;
      ASSERT_TRUE(daemon_.WaitUntil([&] { return BooksAreEven(); })) << where;
      CheckPublications();
      ASSERT_TRUE(daemon_.WaitUntil([&] { return BooksAreEven() && daemon_.PublishedBytes() == published; })) << where;
      ASSERT_TRUE(daemon_.WaitUntil([&] { return daemon_.OpenDescriptors() <= descriptors_; }))
          << where << ": " << daemon_.OpenDescriptors() << " descriptors open, " << descriptors_ << " before";
      if (outcome == "done") break;
      ++stops[call];
    }
  }
  CheckThatAllMemoryIsUsable();
  for (const std::string& call : CallsOf(GetParam())) EXPECT_GT(stops[call], 0) << call;
  std::printf("%s: killed at", GetParam());
  for (const auto& [call, count] : stops) std::printf(" %d %s", count, call.c_str());
  std::printf("\n");
}

INSTANTIATE_TEST_SUITE_P(Phases, ClientDeathTest,
                         ::testing::Values("open", "allocate", "upload", "gemm", "prepare_move", "commit_move",
                                           "abort_move", "suspend", "resume", "publish", "detach", "attach", "free",
                                           "close"),
                         [](const auto& suite) { return std::string(suite.param); });

}  // namespace
}  // namespace dak::testing

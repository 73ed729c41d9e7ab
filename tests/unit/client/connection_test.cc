// Coming and going of the daemon.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "tests/unit/client/client_fixture.h"

namespace dak::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ConnectionTest : public ClientTest {};

dak::Status OpenAt(const std::string& runtime_dir) {
  return dak::Session::Open({.runtime_dir = runtime_dir,
                             .name = "",
                             .weight = 0,
                             .hbm_quota_bytes = 0,
                             .host_quota_bytes = 0,
                             .cxl_quota_bytes = 0,
                             .timeout = std::chrono::seconds(20)})
      .status();
}

TEST_F(ConnectionTest, NobodyListening) {
  const dak::Status status = OpenAt("/nonexistent/dak");
  EXPECT_EQ(status.code(), DAK_UNAVAILABLE);
  EXPECT_THAT(status.message(), HasSubstr("/nonexistent/dak/handles.sock"));
}

TEST_F(ConnectionTest, ASocketThatNobodyServesAnyMore) {
  daemon_.Stop();
  EXPECT_EQ(OpenAt(daemon_.runtime_dir()).code(), DAK_UNAVAILABLE);
}

TEST_F(ConnectionTest, APathTooLongForASocket) {
  const dak::Status status = OpenAt("/" + std::string(200, 'x'));
  EXPECT_EQ(status.code(), DAK_INVALID_ARGUMENT);
  EXPECT_EQ(status.field(), "runtime_dir");
}

TEST_F(ConnectionTest, TakesTheRuntimeDirFromTheEnvironment) {
  setenv("DAK_RUNTIME_DIR", daemon_.runtime_dir().c_str(), 1);
  const dak::Status status = OpenAt("");
  unsetenv("DAK_RUNTIME_DIR");
  EXPECT_TRUE(status.ok()) << status.message();
}

TEST_F(ConnectionTest, AnotherVersionIsRefusedWithBothVersions) {
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->edit_greeting = [](v1::HandleReply* greeting) {
      greeting->set_api_version(9);
      greeting->set_daemon_version("4.5.6");
    };
  });
  const dak::Status status = TryOpen().status();
  EXPECT_EQ(status.code(), DAK_FAILED_PRECONDITION);
  EXPECT_EQ(status.reason(), "VERSION_MISMATCH");
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr("dakd 4.5.6"), HasSubstr("version 9"), HasSubstr("version 1"), HasSubstr(dak_version())));
  EXPECT_EQ(daemon_.calls("OpenSession"), 0);
}

TEST_F(ConnectionTest, AGreetingThatRefuses) {
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->edit_greeting = [](v1::HandleReply* greeting) {
      greeting->set_code(DAK_PERMISSION_DENIED);
      greeting->set_message("uid 7 may not");
    };
  });
  const dak::Status status = TryOpen().status();
  EXPECT_EQ(status.code(), DAK_PERMISSION_DENIED);
  EXPECT_THAT(status.message(), HasSubstr("uid 7 may not"));
}

TEST_F(ConnectionTest, SomethingElseListens) {
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->raw_greeting = "220 mail.example ESMTP"; });
  const dak::Status status = TryOpen().status();
  EXPECT_EQ(status.code(), DAK_INTERNAL);
  EXPECT_THAT(status.message(), HasSubstr("doesn't speak dak's protocol"));
}

TEST_F(ConnectionTest, ADaemonThatDoesNotGreet) {
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->no_greeting = true; });
  EXPECT_EQ(TryOpen(std::chrono::milliseconds(30)).status().code(), DAK_DEADLINE_EXCEEDED);
}

TEST_F(ConnectionTest, ADaemonThatDoesNotAccept) {
  const std::string path = daemon_.runtime_dir() + "/full";
  ASSERT_EQ(mkdir(path.c_str(), 0700), 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof(address.sun_path), "%s/handles.sock", path.c_str());
  const auto* const generic = reinterpret_cast<const sockaddr*>(&address);
  const UniqueFd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  ASSERT_EQ(bind(listener.get(), generic, sizeof(address)), 0);
  ASSERT_EQ(listen(listener.get(), 0), 0);
  std::vector<UniqueFd> waiting;  // until the queue is full
  do {
    waiting.emplace_back(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  } while (connect(waiting.back().get(), generic, sizeof(address)) == 0);
  const dak::Status status =
      dak::Session::Open({.runtime_dir = path, .timeout = std::chrono::milliseconds(30)}).status();
  EXPECT_EQ(status.code(), DAK_DEADLINE_EXCEEDED) << status.message();
}

TEST_F(ConnectionTest, ADaemonThatGoesAwayBeforeItGreets) {
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->no_greeting = true; });
  std::thread stopper([&] { daemon_.Stop(); });
  const dak::Status status = TryOpen().status();
  stopper.join();
  EXPECT_EQ(status.code(), DAK_UNAVAILABLE) << status.message();
}

TEST_F(ConnectionTest, ASessionThatIsRefused) {
  daemon_.Set([](FakeDaemon::Faults* faults) {
    faults->before["OpenSession"] = Answer(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many sessions");
  });
  EXPECT_EQ(TryOpen().status().code(), DAK_RESOURCE_EXHAUSTED);
}

TEST_F(ConnectionTest, ADeviceThatThisProcessDoesNotKnow) {
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->device_kind = "abacus"; });
  const dak::Status status = TryOpen().status();
  EXPECT_EQ(status.code(), DAK_FAILED_PRECONDITION);
  EXPECT_THAT(status.message(), HasSubstr("abacus"));
  EXPECT_EQ(daemon_.calls("CloseSession"), 1) << "a session that can't be used is given back";
}

TEST_F(ConnectionTest, AControlPageOfAnotherLayout) {
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->page_version = 2; });
  const dak::Status status = TryOpen().status();
  EXPECT_EQ(status.code(), DAK_FAILED_PRECONDITION);
  EXPECT_EQ(status.reason(), "VERSION_MISMATCH");
  EXPECT_THAT(status.message(), AllOf(HasSubstr("version 2"), HasSubstr("version 1")));
}

TEST_F(ConnectionTest, SaysWhatTheSessionIs) {
  dak::Session session = Open();
  const auto info = session.GetInfo();
  ASSERT_TRUE(info.ok()) << info.status().ToString();
  EXPECT_EQ(info->session_id, 7u);
  EXPECT_STREQ(info->device_kind, "emulated");
  EXPECT_EQ(info->device_ordinal, -1);
  EXPECT_STREQ(info->daemon_version, "0.0.1-fake");
  EXPECT_EQ(info->window_bytes, 128u * 1024);
  EXPECT_EQ(info->connected, 1);
}

TEST_F(ConnectionTest, MappedMemoryOutlivesTheDaemon) {
  dak::Session session = Open();
  dak::Tensor w = *session.Allocate(Spec("w"));
  const std::vector<uint8_t> bytes = Bytes(128 * 128, 3);
  ASSERT_TRUE(w.Upload(std::span(bytes)).ok());
  daemon_.Stop();
  EXPECT_EQ(session.GetInfo()->connected, 0);
  const dak::Status status = session.Allocate(Spec("more")).status();
  EXPECT_EQ(status.code(), DAK_UNAVAILABLE);
  EXPECT_THAT(status.message(), HasSubstr("gone away"));
  EXPECT_EQ(session.Free(w).code(), DAK_UNAVAILABLE);
  EXPECT_EQ(session.Publish("default", "p", "f").code(), DAK_UNAVAILABLE);
  EXPECT_EQ(session.PlanPass(std::vector<dak::Operation>(1), 1).status().code(), DAK_UNAVAILABLE);
  std::vector<uint8_t> read(bytes.size());
  ASSERT_TRUE(w.Download(std::span(read)).ok());
  EXPECT_EQ(read, bytes);
  ASSERT_TRUE(w.Upload(std::span(bytes).first(1), 5).ok());
  alignas(64) static uint16_t x[64];
  alignas(64) static uint16_t y[128];
  EXPECT_TRUE(session.Gemm(w, reinterpret_cast<uint64_t>(x), reinterpret_cast<uint64_t>(y), 1).ok());
}

TEST_F(ConnectionTest, KeepsALeaseAlive) {
  daemon_.Set([](FakeDaemon::Faults* faults) { faults->lease_ns = 3'000'000; });
  dak::Session session = Open();
  while (daemon_.calls("KeepSession") < 3) std::this_thread::yield();
  session.Close();
  EXPECT_EQ(daemon_.calls("CloseSession"), 1);
}

TEST_F(ConnectionTest, SessionsOfOneProcessAreIndependent) {
  dak::Session first = Open();
  dak::Session second = Open();
  ASSERT_TRUE(first.Allocate(Spec("w")).ok());
  first = dak::Session();
  EXPECT_EQ(second.GetInfo()->connected, 1);
  EXPECT_TRUE(second.Allocate(Spec("w")).ok());
}

}  // namespace
}  // namespace dak::testing

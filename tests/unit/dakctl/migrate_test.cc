// demote and promote against a real daemon on the emulated device.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/daemon/migration_client.h"
#include "tests/unit/daemon/test_daemon.h"
#include "tests/unit/dakctl/fake_daemon.h"

namespace dak::dakctl {
namespace {

using daemon::IsOk;
using daemon::kMiB;
using daemon::MigrationClient;
using daemon::TestDaemon;
using daemon::TestSession;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using testing::Dakctl;
using ::testing::HasSubstr;
using testing::Result;

class MigrateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_THAT(client_.Allocate("g", {TestSession::Spec("w", 1024, 4096)}), IsOk());
    client_.Fill(client_.tensor("w"));
  }
  std::string id() const { return std::to_string(client_.session.id()); }
  Result Served(std::vector<std::string> args) {
    std::thread server([&] { client_.Serve(); });
    const Result result = Dakctl(daemon_.options().runtime_dir, std::move(args));
    server.join();
    return result;
  }
  Result Refused(std::vector<std::string> args) { return Dakctl(daemon_.options().runtime_dir, std::move(args)); }

  TestDaemon daemon_;
  MigrationClient client_{daemon_.options().runtime_dir};
};

TEST_F(MigrateTest, SaysWhatWasCopiedAndWhatTheDriverHasFree) {
  ASSERT_THAT(client_.Suspend(), IsOk());
  const Result out = Served({"demote", id()});
  EXPECT_EQ(out.exit_code, kExitOk) << out.err;
  EXPECT_THAT(out.out, ContainsRegex("session " + id() + ": 8.00 MiB of 8.00 MiB copied \\(100 %\\)\n"));
  EXPECT_THAT(out.out, ContainsRegex("session " + id() + ": out of HBM, 1 segment, 8.00 MiB copied in .*B/s\\)\n"));
  EXPECT_THAT(out.out, HasSubstr("the device has 64.0 MiB of HBM free, and had 56.0 MiB\n"));
  client_.ExpectFilled(client_.tensor("w"));
  const Result back = Served({"promote", id(), "--json"});
  EXPECT_EQ(back.exit_code, kExitOk) << back.err;
  EXPECT_THAT(back.out, AllOf(HasSubstr("\"finished\":false"), HasSubstr("\"finished\":true"),
                              HasSubstr("\"from\":\"TIER_HOST\""), HasSubstr("\"done_bytes\":\"8388608\"")));
  client_.ExpectFilled(client_.tensor("w"));
}

TEST_F(MigrateTest, RefusalsSayWhy) {
  const Result busy = Refused({"demote", id()});
  EXPECT_EQ(busy.exit_code, kExitFailed);
  EXPECT_EQ(busy.out, "");
  EXPECT_THAT(busy.err, AllOf(HasSubstr("is busy: its process hasn't suspended it"), HasSubstr("NOT_SUSPENDED")));
  EXPECT_THAT(Refused({"promote", id()}).err, HasSubstr("NOT_DEMOTED"));
  EXPECT_THAT(Refused({"demote", "999"}).err, HasSubstr("there is no session 999"));
}

TEST_F(MigrateTest, ACommandLineWithoutASessionIsRefused) {
  for (const char* command : {"demote", "promote"}) {
    EXPECT_EQ(Refused({command}).exit_code, kExitUsage);
    EXPECT_EQ(Refused({command, "zero"}).exit_code, kExitUsage);
    EXPECT_EQ(Refused({command, "0"}).exit_code, kExitUsage);
    EXPECT_EQ(Refused({command, "1", "2"}).exit_code, kExitUsage);
  }
}

}  // namespace
}  // namespace dak::dakctl

// Every command against a scripted daemon: what people see, and what programs get.
#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>

#include "tests/unit/dakctl/fake_daemon.h"

namespace dak::dakctl {
namespace {

using testing::Dakctl;
using testing::FakeDaemon;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Result;
using testing::Script;
using ::testing::StartsWith;

// The output as a JSON document; the test fails if it isn't one.
google::protobuf::Struct Json(const std::string& text) {
  google::protobuf::Struct document;
  const auto status = google::protobuf::util::JsonStringToMessage(text, &document);
  EXPECT_TRUE(status.ok()) << status.ToString() << "\n" << text;
  return document;
}
template <typename Message>
Message FromJson(const std::string& text) {
  Message message;
  const auto status = google::protobuf::util::JsonStringToMessage(text, &message);
  EXPECT_TRUE(status.ok()) << status.ToString() << "\n" << text;
  return message;
}

class CommandsTest : public ::testing::Test {
 protected:
  std::string Out(std::vector<std::string> args) {
    const Result result = Dakctl(daemon_.runtime_dir(), std::move(args));
    EXPECT_EQ(result.exit_code, kExitOk) << result.err;
    EXPECT_EQ(result.err, "");
    return result.out;
  }
  Script& script() { return daemon_.script(); }
  FakeDaemon daemon_;
};

TEST_F(CommandsTest, StatusShowsTheNodeAtAGlance) {
  EXPECT_EQ(Out({"status"}),
            R"(dakd 0.1.0 (API 1), pid 4242, up 2h 13m
device    cuda 0: NVIDIA H100 80GB HBM3 (GPU-1234)
metrics   http://127.0.0.1:9465/metrics
sessions  2, reading 48.7 GB/s from remote tiers

POOL  CAPACITY  SESSIONS  PUBLISHED      FREE    USED  SEGMENTS  UNPLACED  LARGEST HOLE  NUMA
hbm   80.0 GiB  20.0 GiB   10.0 GiB  50.0 GiB  37.5 %        12  1.50 KiB      1.00 KiB     -
host   100 GiB  1.00 GiB        0 B  99.0 GiB   1.0 %         1       0 B           0 B     0
cxl        0 B       0 B        0 B       0 B       -         0       0 B           0 B     1
)");
  script().node.clear_metrics_address();
  EXPECT_THAT(Out({"status"}), HasSubstr("metrics   off\n"));
}

TEST_F(CommandsTest, StatusAsJsonHoldsAllFourAnswers) {
  const auto document = Json(Out({"status", "--json"}));
  EXPECT_EQ(document.fields().at("node").struct_value().fields().at("daemon_version").string_value(), "0.1.0");
  EXPECT_EQ(document.fields().at("pools").list_value().values_size(), 3);
  EXPECT_EQ(document.fields().at("sessions").list_value().values_size(), 2);
  EXPECT_EQ(document.fields().at("links").list_value().values_size(), 1);
  EXPECT_EQ(document.fields_size(), 4);
}

TEST_F(CommandsTest, PoolsShowsExactBytesOnRequest) {
  EXPECT_THAT(Out({"pools"}), HasSubstr("hbm   80.0 GiB  20.0 GiB   10.0 GiB  50.0 GiB  37.5 %"));
  EXPECT_THAT(Out({"pools", "--bytes"}),
              HasSubstr("hbm    85899345920  21474836480  10737418240   53687091200  37.5 %"));
}

TEST_F(CommandsTest, SessionsShowsWhoHoldsWhat) {
  EXPECT_EQ(
      Out({"sessions"}),
      R"(ID  NAME        PID  USER           AGE  WEIGHT  TENSORS       HBM      HOST  REMOTE      READ   WINDOW  PLAN
 3  llama-3-8b  811  4294900001  5m 12s     100      225  19.0 GiB  1.00 GiB   5.0 %  92.0 GiB  128 KiB    v2
12  idle          9  4294900002      4s      50        0  1.00 GiB       0 B     0 %       0 B      0 B     -
)");
}

TEST_F(CommandsTest, TensorsComeFromAllPages) {
  const std::string all = Out({"tensors"});
  EXPECT_EQ(all,
            R"(ID    SESSION  GROUP    NAME        TYPE  ROWS  COLS       HBM      HOST   CXL  REMOTE
 1          3  default  layers.0.q  bf16  4096  4096  24.0 MiB  8.00 MiB   0 B  25.0 %
 2         12  cache    kv          u8      10   100  0.98 KiB       0 B   0 B     0 %
 5  published  weights  embed       f32      2     2       0 B       0 B  16 B   100 %
)");
  EXPECT_THAT(Out({"tensors", "--session=12"}), Not(HasSubstr("layers.0.q")));
  const auto response = FromJson<v1::ListTensorsResponse>(Out({"tensors", "--json"}));
  EXPECT_EQ(response.tensors_size(), 3);
  EXPECT_EQ(response.next_page_token(), 0u);
}

TEST_F(CommandsTest, TensorsWhosePagesDoNotEndIsAnError) {
  script().endless_pages = true;
  const Result result = Dakctl(daemon_.runtime_dir(), {"tensors"});
  EXPECT_EQ(result.exit_code, kExitFailed);
  EXPECT_THAT(result.err, HasSubstr("don't end"));
}

TEST_F(CommandsTest, PublicationsShowsOwnersAndWhoIsAttached) {
  EXPECT_EQ(Out({"publications"}),
            R"(NAME           OWNER         AGE  TENSORS       HBM      HOST  ATTACHED  STATE      FINGERPRINT
llama/weights  4294900001  1d 2h      225  10.0 GiB       0 B         2  open       sha256:ab12
old            root           1s        1       0 B  4.00 KiB         1  withdrawn  f
)");
}

TEST_F(CommandsTest, QuotasShowsOverage) {
  EXPECT_EQ(Out({"quotas"}),
            R"(SESSION  NAME        TIER     LIMIT      USED  OF LIMIT  OVER BY  REVISION
      3  llama-3-8b  hbm   32.0 GiB  19.0 GiB    59.4 %        -         1
      3  llama-3-8b  host   512 MiB  1.00 GiB     200 %  512 MiB         4
     12  idle        hbm       none  1.00 GiB         -        -         1
)");
  EXPECT_THAT(Out({"quotas", "get", "--session=12"}), Not(HasSubstr("llama")));
}

TEST_F(CommandsTest, QuotasSetSendsWhatWasAskedFor) {
  v1::SetQuotaRequest seen;
  script().set_quota = [&](const v1::SetQuotaRequest& request, v1::SetQuotaResponse* response) {
    seen = request;
    auto* quota = response->mutable_quota();
    quota->set_session_id(3);
    quota->set_tier(v1::TIER_HOST);
    quota->set_limit_bytes(request.limit_bytes());
    quota->set_used_bytes(uint64_t{1} << 30);
    quota->set_overage_bytes(uint64_t{512} << 20);
    quota->set_revision(5);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Out({"quotas", "set", "3", "host", "512MiB", "--revision=4"}),
            "session 3: host limit 512 MiB, used 1.00 GiB (revision 5)\n"
            "it holds 512 MiB more than that: it keeps them, but may allocate nothing there until it is under\n");
  EXPECT_EQ(seen.session_id(), 3u);
  EXPECT_EQ(seen.tier(), v1::TIER_HOST);
  EXPECT_EQ(seen.limit_bytes(), uint64_t{512} << 20);
  EXPECT_EQ(seen.expected_revision(), 4u);
  Out({"quotas", "set", "3", "host", "none"});
  EXPECT_EQ(seen.limit_bytes(), ~uint64_t{0});
}

TEST_F(CommandsTest, CongestionShowsWindowsByLink) {
  EXPECT_EQ(Out({"congestion"}),
            R"(link 0 (host): 48.7 GB/s of 51.1 GB/s (95.3 %), windows 136 KiB of 180 KiB, unloaded round trip 1.80 us
  SESSION  NAME        WEIGHT  STATE     WINDOW       RATE  OF LINK  ROUND TRIP  PEAK IN FLIGHT
        3  llama-3-8b     100  active   128 KiB  48.7 GB/s   95.3 %     2.60 us         128 KiB
       12  idle            50  idle    8.00 KiB      0 B/s      0 %           -             0 B
)");
  script().congestion.mutable_links(0)->mutable_sessions(1)->set_violating(true);
  EXPECT_THAT(Out({"congestion"}), HasSubstr("past its window"));
}

TEST_F(CommandsTest, ProfileSaysWhereItComesFrom) {
  EXPECT_EQ(Out({"profile"}),
            R"(source        measured 2h 13m ago in 1.40 s, by an earlier run
HBM           3.01 TB/s
link 0        51.2 GB/s, full with 128 KiB in flight, round trip 1.84 us
  reads of    host, cxl
  cxl         27.0 GB/s, full with 64.0 KiB in flight, round trip 2.30 us
  cliff       1.00 MiB in flight
link 1        10.0 GB/s, round trip 5.00 us
  cliff       512 KiB in flight
copy engine   54.9 GB/s to HBM, 55.1 GB/s to the host
tensor cores  812 TFLOP/s

BATCH        HBM     PRODUCTS       LINK  AN OPERATION  REMOTE READS
    1  2.89 TB/s  812 TFLOP/s  50.0 GB/s       1.50 us       12.0 us
  512  3.01 TB/s  690 TFLOP/s  51.2 GB/s       4.00 us           0 s
)");
  v1::Profile& profile = script().profile;
  profile.clear_links();  // as from an earlier dakd
  EXPECT_THAT(Out({"profile"}), HasSubstr("link 0        51.2 GB/s, full with 128 KiB in flight, round trip 1.84 us\n"
                                          "  cliff       1.00 MiB in flight\n"));
  profile.set_source("configured");
  profile.set_from_cache(false);
  EXPECT_THAT(Out({"profile"}), HasSubstr("source        configured, measured 2h 13m ago in 1.40 s\n"));
  profile.clear_batch_rates();
  profile.clear_copy_to_host_bytes_per_s();
  profile.clear_measured_unix_s();
  profile.set_source("default");
  EXPECT_THAT(Out({"profile"}), HasSubstr("source        default\n"));
  EXPECT_THAT(Out({"profile"}), HasSubstr("54.9 GB/s to HBM\n"));
  EXPECT_THAT(Out({"profile"}), Not(HasSubstr("BATCH")));
}

TEST_F(CommandsTest, PlansShowsTheRemoteShareOfEachOperation) {
  EXPECT_EQ(Out({"plans", "3"}),
            R"(session 3, plan v2: 1.00 GiB remote, 32.0 MiB moved since the version before
a pass takes 5.50 ms (further steps may bring 5.40 ms; one ratio for all 6.00 ms; all in HBM 4.80 ms)
OPERATION     REMOTE  ROWS  TIER     TIME
layers.0.qkv   6.2 %   384  host  20.0 us
layers.0.kv      0 %     -  -     10.0 us
)");
  const Result none = Dakctl(daemon_.runtime_dir(), {"plans", "4"});
  EXPECT_EQ(none.exit_code, kExitFailed);
  EXPECT_THAT(none.err, HasSubstr("there is no such session"));
}

TEST_F(CommandsTest, WithdrawSaysWhoIsStillAttached) {
  std::string seen;
  uint32_t attached = 2;
  script().withdraw = [&](const v1::WithdrawPublicationRequest& request, v1::WithdrawPublicationResponse* response) {
    seen = request.publication();
    response->set_still_attached(attached);
    return grpc::Status::OK;
  };
  EXPECT_EQ(Out({"withdraw", "llama/weights"}),
            "llama/weights: withdrawn; 2 sessions are still attached, and its memory goes with the last\n");
  EXPECT_EQ(seen, "llama/weights");
  attached = 1;
  EXPECT_THAT(Out({"withdraw", "x"}), HasSubstr("1 session is still attached"));
  attached = 0;
  EXPECT_EQ(Out({"withdraw", "x"}), "x: withdrawn, and its memory is free\n");
}

TEST_F(CommandsTest, EveryAnswerSurvivesTheWayThroughJson) {
  const auto same = [](const google::protobuf::Message& a, const google::protobuf::Message& b) {
    EXPECT_EQ(a.DebugString(), b.DebugString());
  };
  same(FromJson<v1::ListPoolsResponse>(Out({"pools", "--json"})), script().pools);
  same(FromJson<v1::ListSessionsResponse>(Out({"sessions", "--json"})), script().sessions);
  same(FromJson<v1::ListPublicationsResponse>(Out({"publications", "--json"})), script().publications);
  same(FromJson<v1::GetQuotasResponse>(Out({"quotas", "--json"})), script().quotas);
  same(FromJson<v1::GetCongestionResponse>(Out({"congestion", "--json"})), script().congestion);
  same(FromJson<v1::Profile>(Out({"profile", "--json"})), script().profile);
  same(FromJson<v1::Plan>(Out({"plans", "3", "--json"})), script().plan);
  EXPECT_THAT(Out({"sessions", "--json"}), HasSubstr("\"session_id\": \"3\"")) << "the API's field names";
}

TEST_F(CommandsTest, EventsShowsThePastAndEnds) {
  ::setenv("TZ", "UTC", 1);
  EXPECT_EQ(Out({"events"}),
            R"(2023-11-14 22:13:20.123  #1      SESSION_OPENED         session 3  llama-3-8b
2023-11-14 22:13:21.000  #2      TENSORS_ALLOCATED      session 3  default  225 tensors  (hbm 19.0 GiB, host 1.00 GiB)
2023-11-14 22:13:22.000  #3      PUBLICATION_FREED      old
)");
  EXPECT_THAT(Out({"events", "--replay=1"}), StartsWith("2023-11-14 22:13:22.000  #3"));
  EXPECT_EQ(Out({"events", "--replay=0"}), "");
  script().events.clear();
  EXPECT_EQ(Out({"events"}), "no events\n");
  EXPECT_EQ(Out({"events", "--json"}), "");
}

TEST_F(CommandsTest, EventsAsJsonAreOneALine) {
  const std::string out = Out({"events", "--json"});
  std::istringstream lines(out);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    EXPECT_EQ(FromJson<v1::Event>(line).DebugString(), script().events[count].DebugString());
  }
  EXPECT_EQ(count, 3);
}

TEST_F(CommandsTest, EventsFollowedEndWithTheStream) {
  script().end_events = [] { return grpc::Status(grpc::StatusCode::DATA_LOSS, "4096 events behind"); };
  const Result behind = Dakctl(daemon_.runtime_dir(), {"events", "--follow"});
  EXPECT_EQ(behind.exit_code, kExitFailed);
  EXPECT_THAT(behind.out, HasSubstr("#3"));
  EXPECT_EQ(behind.err, "dakctl: 4096 events behind [DATA_LOSS]\n");
  script().end_events = [] { return grpc::Status::OK; };
  const Result ended = Dakctl(daemon_.runtime_dir(), {"events", "--follow"});
  EXPECT_EQ(ended.exit_code, kExitFailed);
  EXPECT_EQ(ended.err, "dakctl: dakd ended the stream of events\n");
}

TEST_F(CommandsTest, NothingThereIsSaidSo) {
  script() = Script();
  EXPECT_EQ(Out({"pools"}), "no pools\n");
  EXPECT_EQ(Out({"sessions"}), "no sessions\n");
  EXPECT_EQ(Out({"tensors"}), "no tensors\n");
  EXPECT_EQ(Out({"publications"}), "no publications\n");
  EXPECT_EQ(Out({"quotas"}), "no quotas\n");
  EXPECT_EQ(Out({"congestion"}), "no links\n");
  EXPECT_THAT(Out({"sessions", "--json"}), HasSubstr("\"sessions\": []"));
}

TEST_F(CommandsTest, NamesFromTheDaemonCannotSteerTheTerminal) {
  const std::string hostile =
      "a\x1b]0;owned\x07\n\xc2\x9b"
      "2J\xe2\x80\xae";
  script().node.set_daemon_version(hostile);
  script().node.set_metrics_address(hostile);
  script().node.mutable_device()->set_name(hostile);
  script().sessions.mutable_sessions(0)->set_name(hostile);
  script().tensors.mutable_tensors(0)->set_name(hostile);
  script().tensors.mutable_tensors(0)->set_group(hostile);
  script().publications.mutable_publications(0)->set_name(hostile);
  script().publications.mutable_publications(0)->set_fingerprint(hostile);
  script().congestion.mutable_links(0)->mutable_sessions(0)->set_name(hostile);
  script().profile.set_source(hostile);
  script().events[0].set_subject(hostile);
  script().events[1].set_message(hostile);
  for (const char* command :
       {"status", "sessions", "tensors", "publications", "quotas", "congestion", "profile", "events", "watch"}) {
    for (const char* style : {"--bytes", "--json"}) {
      std::vector<std::string> args = {command, style};
      if (args[0] == "watch") args.push_back("--count=1");
      const std::string out = Out(args);
      EXPECT_EQ(out.find_first_of("\x1b\x07\x7f"), std::string::npos) << command;
      EXPECT_THAT(out, Not(HasSubstr("\xc2\x9b"))) << command;
      if (args[0] == "quotas" && args[1] == "--json") continue;  // has no names
      EXPECT_THAT(out, HasSubstr(args[1] == "--json" ? "\\u001b" : "\\x1b")) << command;
    }
  }
}

TEST(StandaloneTest, HelpAndVersionNeedNoDaemon) {
  const Result help = Dakctl("", {"help"});
  EXPECT_EQ(help.exit_code, kExitOk);
  EXPECT_THAT(help.out, HasSubstr("usage: dakctl COMMAND"));
  const Result topic = Dakctl("", {"watch", "--help"});
  EXPECT_EQ(topic.exit_code, kExitOk);
  EXPECT_THAT(topic.out, StartsWith("usage: dakctl watch [options]"));
  EXPECT_THAT(topic.out, HasSubstr("--interval=SECONDS"));
  const Result version = Dakctl("", {"version"});
  EXPECT_EQ(version.exit_code, kExitOk);
  EXPECT_THAT(version.out, ::testing::MatchesRegex("dakctl [0-9.]+ \\(API 1\\)\n"));
}

TEST(StandaloneTest, PlanIsThePlannersCommand) {
  const Result help = Dakctl("", {"plan", "--help"});
  EXPECT_EQ(help.exit_code, kExitOk);
  EXPECT_THAT(help.out, StartsWith("Usage: dakctl plan "));
  const Result nothing = Dakctl("", {"plan"});
  EXPECT_EQ(nothing.exit_code, kExitUsage);
  EXPECT_THAT(nothing.err, HasSubstr("--config"));
}

TEST(StandaloneTest, RuntimeDirComesFromTheEnvironment) {
  FakeDaemon daemon;
  ::setenv("DAK_RUNTIME_DIR", daemon.runtime_dir().c_str(), 1);
  const Result result = Dakctl("", {"pools"});
  ::unsetenv("DAK_RUNTIME_DIR");
  EXPECT_EQ(result.exit_code, kExitOk) << result.err;
}

}  // namespace
}  // namespace dak::dakctl

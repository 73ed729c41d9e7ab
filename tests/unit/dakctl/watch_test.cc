#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <sstream>

#include "daemon/dakctl/text.h"
#include "tests/unit/dakctl/fake_daemon.h"

namespace dak::dakctl {
namespace {

using testing::Dakctl;
using testing::FakeDaemon;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Result;
using ::testing::StartsWith;

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string WithoutEscapes(const std::string& text) {
  return std::regex_replace(text, std::regex("\x1b\\[[0-9]*[A-Za-z]"), "");
}

Terminal Tty(int columns, int rows) {
  Terminal terminal;
  terminal.is_tty = true;
  terminal.columns = columns;
  terminal.rows = rows;
  return terminal;
}

TEST(WatchTest, RedrawsInPlaceOnATerminal) {
  FakeDaemon daemon;
  Terminal terminal = Tty(100, 40);
  int waits = 0;
  double asked = 0;
  terminal.wait = [&](double seconds) {
    asked = seconds;
    daemon.script().congestion.mutable_links(0)->mutable_sessions(0)->set_achieved_bytes_per_s(12'000'000'000);
    return ++waits < 2;
  };
  const Result result = Dakctl(daemon.runtime_dir(), {"watch", "--interval=0.25"}, terminal);
  EXPECT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(asked, 0.25);
  EXPECT_THAT(result.out, StartsWith("\x1b[H\x1b[2J"));
  EXPECT_EQ(result.out.find("\x1b[2J", 5), std::string::npos) << "only the first frame clears";
  const std::string text = WithoutEscapes(result.out);
  EXPECT_THAT(text, HasSubstr("dakd 0.1.0 on NVIDIA H100 80GB HBM3, up 2h 13m"));
  EXPECT_THAT(text, HasSubstr("hbm   [######===...............]  37.5 %  20.0 GiB   10.0 GiB  50.0 GiB  80.0 GiB\n"));
  EXPECT_THAT(text, HasSubstr("host  [#.......................]   1.0 %"));
  EXPECT_THAT(text, HasSubstr("link 0 (host): 48.7 GB/s of 51.1 GB/s (95.3 %), windows 136 KiB of 180 KiB\n"));
  EXPECT_THAT(text, HasSubstr("3  llama-3-8b  19.0 GiB  1.00 GiB  5.0 %  48.7 GB/s   128 KiB     2.60 us    v2\n"));
  EXPECT_THAT(text, HasSubstr("12.0 GB/s")) << "the second frame shows what changed";
}

TEST(WatchTest, FitsTheTerminal) {
  FakeDaemon daemon;
  for (int i = 0; i < 50; ++i) {
    auto* session = daemon.script().sessions.add_sessions();
    session->set_session_id(100 + i);
    session->set_name("a-rather-long-name-for-a-session");
  }
  daemon.script().congestion.mutable_links(0)->mutable_sessions(0)->set_violating(true);
  for (const auto& [columns, rows] : {std::pair{40, 20}, {80, 24}, {200, 30}}) {
    const Result result = Dakctl(daemon.runtime_dir(), {"watch", "--count=1"}, Tty(columns, rows));
    const auto lines = Lines(WithoutEscapes(result.out));
    EXPECT_LT(lines.size(), static_cast<size_t>(rows));
    for (const std::string& line : lines) EXPECT_LE(DisplayWidth(line), static_cast<size_t>(columns)) << line;
    EXPECT_THAT(result.out, HasSubstr("more (dakctl"));
  }
}

TEST(WatchTest, MarksWhoReadsPastItsWindow) {
  FakeDaemon daemon;
  EXPECT_THAT(Dakctl(daemon.runtime_dir(), {"watch", "--count=1"}, Tty(100, 40)).out, Not(HasSubstr("!")));
  daemon.script().congestion.mutable_links(0)->mutable_sessions(0)->set_violating(true);
  const std::string out = Dakctl(daemon.runtime_dir(), {"watch", "--count=1"}, Tty(100, 40)).out;
  EXPECT_THAT(out, HasSubstr("128 KiB !"));
  EXPECT_THAT(WithoutEscapes(out), HasSubstr("! reads past its window\n"));
}

TEST(WatchTest, WritesPlainLinesIntoAPipe) {
  FakeDaemon daemon;
  Terminal pipe;
  pipe.wait = [](double) { return true; };
  const Result result = Dakctl(daemon.runtime_dir(), {"watch", "--count=2"}, pipe);
  EXPECT_EQ(result.exit_code, kExitOk);
  EXPECT_THAT(result.out, Not(HasSubstr("\x1b")));
  const auto lines = Lines(result.out);
  ASSERT_EQ(lines.size(), 12u) << "3 pools, 2 sessions, 1 link, twice";
  for (const std::string& line : lines) {
    EXPECT_TRUE(std::regex_search(line, std::regex("^[0-9]{2}:[0-9]{2}:[0-9]{2} (pool|session|link) "))) << line;
  }
  EXPECT_EQ(lines[0].substr(9), "pool hbm: sessions 20.0 GiB, published 10.0 GiB, free 50.0 GiB of 80.0 GiB");
  EXPECT_EQ(lines[3].substr(9),
            "session 3 llama-3-8b: hbm 19.0 GiB, remote 1.00 GiB (5.0 %), reads 48.7 GB/s, window 128 KiB, "
            "round trip 2.60 us, plan v2");
}

TEST(WatchTest, WritesADocumentALineAsJson) {
  FakeDaemon daemon;
  Terminal pipe;
  pipe.wait = [](double) { return true; };
  const Result result = Dakctl(daemon.runtime_dir(), {"watch", "--count=3", "--json"}, pipe);
  const auto lines = Lines(result.out);
  ASSERT_EQ(lines.size(), 3u);
  for (const std::string& line : lines) {
    google::protobuf::Struct document;
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(line, &document).ok()) << line;
    EXPECT_EQ(document.fields_size(), 4);
  }
}

TEST(WatchTest, SumsASessionsLinks) {
  FakeDaemon daemon;
  auto* second = daemon.script().congestion.add_links();
  second->set_link(1);
  auto* session = second->add_sessions();
  session->set_session_id(3);
  session->set_achieved_bytes_per_s(1'300'000'000);
  session->set_window_bytes(131072);
  session->set_round_trip_ns(9000);
  const std::string out = Dakctl(daemon.runtime_dir(), {"watch", "--count=1"}).out;
  EXPECT_THAT(out, HasSubstr("reads 50.0 GB/s, window 256 KiB, round trip 9.00 us"));
}

TEST(WatchTest, SaysThatTheDaemonWentAway) {
  FakeDaemon daemon;
  Terminal terminal = Tty(100, 40);
  terminal.wait = [&](double) {
    daemon.Stop();
    return true;
  };
  const Result result = Dakctl(daemon.runtime_dir(), {"watch"}, terminal);
  EXPECT_EQ(result.exit_code, kExitFailed);
  EXPECT_THAT(result.out, HasSubstr("llama-3-8b")) << "the last frame stays";
  EXPECT_THAT(result.err, StartsWith("dakctl: dakd went away: no daemon: there is no socket"));
}

TEST(WatchTest, FailsAtOnceWithoutADaemon) {
  const Result result = Dakctl(testing::MakeFolder(), {"watch"}, Tty(80, 24));
  EXPECT_EQ(result.exit_code, kExitFailed);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, StartsWith("dakctl: no daemon"));
}

TEST(WatchTest, EndsWhenNobodyReads) {
  FakeDaemon daemon;
  std::ostringstream out, err;
  Terminal pipe;
  pipe.wait = [&](double) {
    out.setstate(std::ios::badbit);
    return true;
  };
  const std::vector<std::string> args = {"--runtime-dir", daemon.runtime_dir(), "watch"};
  EXPECT_EQ(RunDakctl(args, out, err, pipe), kExitOk);
}

}  // namespace
}  // namespace dak::dakctl

// The bench of processes that share a link, on the emulated device: what it runs and writes, not how fast.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "client/demo/child_process.h"

namespace dak::testing {
namespace {

using demo::ChildProcess;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

class NeighboursTest : public ::testing::Test {
 protected:
  // All that it prints, errors included; *code is its exit code.
  std::string Run(const std::vector<std::string>& flags, int* code, const ChildProcess::Environment& environment = {}) {
    std::string command = "exec </dev/null 2>&1; exec " DAK_NEIGHBOURS_PATH;
    for (const std::string& flag : flags) command += " '" + flag + "'";
    ChildProcess program({"/bin/sh", "-c", command}, environment);
    std::string output;
    while (const auto line = program.ReadLine()) output += *line + "\n";
    *code = program.Wait();
    return output;
  }
  json RunForJson(const std::string& experiments) {
    const std::string path = ::testing::TempDir() + "/neighbours-" + std::to_string(getpid()) + ".json";
    int code = -1;
    const std::string output =
        Run({"--device=emulated", "--hold=0.1", "--experiments=" + experiments, "--json=" + path}, &code);
    EXPECT_EQ(code, 0) << output;
    const json parsed = json::parse(std::ifstream(path), nullptr, /*allow_exceptions=*/false);
    std::filesystem::remove(path);
    return parsed;
  }
};

TEST_F(NeighboursTest, SharingShowsEveryJoinAndLeave) {
  const json report = RunForJson("sharing");
  ASSERT_TRUE(report.is_object());
  EXPECT_EQ(report["device_kind"], "emulated");
  const json& rows = report["tables"][0]["rows"];
  ASSERT_EQ(rows.size(), 7u);
  const int sessions[] = {1, 2, 3, 4, 3, 2, 1};
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i]["sessions"], sessions[i]);
    EXPECT_TRUE(rows[i]["link_gbps"].is_number());
    EXPECT_EQ(rows[i]["bars"], "-");  // they are for hardware under MPS
  }
  const json& course = report["courses"][0];
  EXPECT_EQ(course["states"].size(), 7u);
  ASSERT_EQ(course["sessions"].size(), 4u);
  for (const json& session : course["sessions"]) {
    EXPECT_EQ(session["gbps"].size(), session["window_kib"].size());
    EXPECT_GE(session["gbps"].size(), 50u);
  }
  EXPECT_GT(course["controller"]["t_ms"].size(), 0u);
}

TEST_F(NeighboursTest, AStreamOfHbmIsComparedWithIdleCtas) {
  const json report = RunForJson("hbm,off");
  ASSERT_TRUE(report.is_object());
  ASSERT_EQ(report["tables"].size(), 2u);
  for (const json& table : report["tables"]) {
    for (const json& row : table["rows"]) {
      const bool remote = row["neighbours"].get<std::string>().find("remote") != std::string::npos;
      EXPECT_TRUE(row.contains("of_idle")) << row;
      if (!remote) {
        EXPECT_TRUE(row["of_idle"].is_null()) << row;
        EXPECT_EQ(row["link_gbps"], 0) << row;
      }
    }
  }
  // Windows bind nothing where the controller is off.
  const auto most_window = [&](int course) {
    double most = 0;
    for (const json& session : report["courses"][course]["sessions"]) {
      for (const json& window : session["window_kib"]) most = std::max(most, window.get<double>());
    }
    return most;
  };
  EXPECT_LE(most_window(0), 400'000 / 2 / 1024.0);  // half the emulated link's cliff
  EXPECT_GT(most_window(1), 4'000);
}

TEST_F(NeighboursTest, ACrowdShowsWhatTheLoopCosts) {
  const json report = RunForJson("crowd");
  ASSERT_TRUE(report.is_object());
  const json& rows = report["tables"][0]["rows"];
  ASSERT_EQ(rows.size(), 5u);
  for (const json& row : rows) {
    EXPECT_EQ(row["sessions"], 64);
    EXPECT_TRUE(row["core_percent"].is_number());
  }
}

// Killed in its second experiment, it leaves the first one's rows in the pipe and in its file.
TEST_F(NeighboursTest, AKilledRunLeavesWhatItHad) {
  const std::string path = ::testing::TempDir() + "/neighbours-" + std::to_string(getpid()) + ".json";
  ChildProcess program({DAK_NEIGHBOURS_PATH, "--device=emulated", "--hold=0.1", "--experiments=sharing,weights,crowd",
                        "--json=" + path});
  std::string output;
  while (const auto line = program.ReadLine()) {
    output += *line + "\n";
    if (line->starts_with("3 processes ready")) break;  // of the second
  }
  program.Kill();
  program.Wait();
  EXPECT_THAT(output, HasSubstr("b leaves"));
  EXPECT_THAT(output, Not(HasSubstr("weights:")));
  const json parsed = json::parse(std::ifstream(path), nullptr, /*allow_exceptions=*/false);
  std::filesystem::remove(path);
  ASSERT_TRUE(parsed.is_object());
  ASSERT_GE(parsed["tables"].size(), 1u);
  EXPECT_EQ(parsed["tables"][0]["rows"].size(), 7u);
  EXPECT_GE(parsed["courses"].size(), 1u);
}

TEST_F(NeighboursTest, FailsWhereItsDaemonDoes) {
  int code = -1;
  EXPECT_THAT(Run({"--device=emulated", "--dakd=/bin/false"}, &code), HasSubstr("dakd: "));
  EXPECT_EQ(code, 1);
  Run({"--device=none"}, &code);
  EXPECT_EQ(code, 2);
}

TEST_F(NeighboursTest, SaysWhereThereIsNoMps) {
  int code = -1;
  EXPECT_THAT(Run({"--device=emulated", "--mps=on"}, &code, {{"PATH", "/nonexistent"}}),
              HasSubstr("MPS: no nvidia-cuda-mps-control in PATH"));
  EXPECT_EQ(code, 1);
}

TEST_F(NeighboursTest, AProcessSaysWhyItFailed) {
  int code = -1;
  EXPECT_THAT(Run({"worker", "--role=remote", "--runtime-dir=/nonexistent"}, &code), HasSubstr("failed UNAVAILABLE"));
  EXPECT_EQ(code, 1);
  EXPECT_THAT(Run({"worker", "--role=idle"}, &code), Not(HasSubstr("failed")));  // its input is at its end
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace dak::testing

// What a bench that is killed leaves behind: rows in the pipe, and a file that is whole.
#include "tests/bench/dak_bench/report_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/bench/dak_bench/table.h"

namespace dak::bench {
namespace {

using nlohmann::json;

class ReportFileTest : public ::testing::Test {
 protected:
  ReportFileTest() { std::filesystem::create_directories(directory_); }
  ~ReportFileTest() override { std::filesystem::remove_all(directory_); }
  json Parsed() const { return json::parse(std::ifstream(path_), nullptr, /*allow_exceptions=*/false); }
  ReportFile Open() const {
    return {path_, [](const std::vector<std::string>& tables) { return "{\"table\": " + JoinTables(tables) + "}"; }};
  }

  const std::string directory_ = ::testing::TempDir() + "/report-" + std::to_string(getpid());
  const std::string path_ = directory_ + "/report.json";
};

TEST_F(ReportFileTest, HoldsAllRowsAfterEachRow) {
  ReportFile report = Open();
  Table first("first", &report);
  EXPECT_FALSE(std::filesystem::exists(path_));
  for (int i = 1; i <= 3; ++i) {
    first.Add(Table::Row().Text("result", "ok").Number("n", i));
    const json parsed = Parsed();
    ASSERT_TRUE(parsed.is_object());
    EXPECT_EQ(parsed["table"]["title"], "first");
    ASSERT_EQ(parsed["table"]["rows"].size(), static_cast<size_t>(i));
    EXPECT_EQ(parsed["table"]["rows"][i - 1]["n"], i);
  }
  Table second("second", &report);
  second.Add(Table::Row().Number("m", 7));
  const json parsed = Parsed();
  ASSERT_EQ(parsed["table"].size(), 2u);
  EXPECT_EQ(parsed["table"][0]["rows"].size(), 3u);
  EXPECT_EQ(parsed["table"][1]["rows"][0]["m"], 7);
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) EXPECT_EQ(entry.path(), path_);
}

TEST_F(ReportFileTest, WithoutRowsThereIsAWholeFileToo) {
  Open().Write();
  EXPECT_EQ(Parsed()["table"], json::array());
  ReportFile none;
  Table table("none", &none);
  table.Add(Table::Row().Number("m", 7));  // writes nothing, and needs nothing
}

TEST_F(ReportFileTest, AFileThatCannotBeWrittenStaysAsItIs) {
  ASSERT_TRUE(WriteWhole(path_, "old"));
  const std::string under_a_file = path_ + "/x.json";
  EXPECT_FALSE(WriteWhole(under_a_file, "new"));
  EXPECT_EQ(errno, ENOTDIR);
  const std::string directory = directory_ + "/folder";
  std::filesystem::create_directories(directory + "/sub");
  EXPECT_FALSE(WriteWhole(directory, "new"));  // written beside it, but not renamed over a directory
  EXPECT_FALSE(std::filesystem::exists(directory + ".part"));
  std::string text;
  std::getline(std::ifstream(path_), text);
  EXPECT_EQ(text, "old");
  EXPECT_EXIT(ReportFile(under_a_file, [](const auto&) { return "{}"; }).Write(), ::testing::ExitedWithCode(1),
              "x.json can't be written: ");
}

// A bench prints into a pipe, and is killed while it measures its third row.
TEST_F(ReportFileTest, AKilledProgramLeavesItsRows) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    ::alarm(60);  // should this test end early
    FlushEveryLine();
    ReportFile report = Open();
    std::printf("profile: 7 GB/s\n");
    Table table("killed", &report);
    table.Add(Table::Row().Text("result", "ok").Number("n", 1));
    table.Add(Table::Row().Text("result", "ok").Number("n", 2));
    std::printf("measuring the third\n");
    while (true) ::pause();
  }
  ::close(ends[1]);
  std::string output;
  char buffer[4096];
  // Line by line into the pipe: were the lines held back until the buffer is full, nothing would come.
  while (output.find("measuring the third\n") == std::string::npos) {
    const ssize_t bytes = ::read(ends[0], buffer, sizeof(buffer));
    ASSERT_GT(bytes, 0);
    output.append(buffer, static_cast<size_t>(bytes));
  }
  ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  ::close(ends[0]);
  EXPECT_EQ(output.find("profile: 7 GB/s\n"), 0u);
  const json parsed = Parsed();
  ASSERT_TRUE(parsed.is_object());
  ASSERT_EQ(parsed["table"]["rows"].size(), 2u);
  EXPECT_EQ(parsed["table"]["rows"][1]["n"], 2);
}

}  // namespace
}  // namespace dak::bench

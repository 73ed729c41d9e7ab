// docs/metrics.md, the dashboard and the alert rules against what the registry exposes.
#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <vector>

#include "tests/unit/monitoring/test_support.h"

namespace dak::monitoring {
namespace {

using testing::Exposition;
using ::testing::HasSubstr;
using testing::Parse;
using testing::PopulatedMetrics;
using testing::ReadFile;
using testing::RunCommand;
using testing::WriteFile;

const std::string kRoot = DAK_SOURCE_DIR;
const std::string kPromtool = DAK_PROMTOOL;  // empty: not installed
const std::string kDashboard = kRoot + "/monitoring/dashboards/dak.json";
const std::string kRules = kRoot + "/monitoring/alerts/dak.rules.yml";

struct DocRow {
  std::string type, unit, meaning;
  std::set<std::string> labels;
};

std::vector<std::string> Cells(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream in(line.substr(1));
  for (std::string cell; std::getline(in, cell, '|');) {
    cell = std::regex_replace(cell, std::regex("^ +| +$"), "");
    cells.push_back(cell);
  }
  return cells;
}

std::map<std::string, DocRow> DocumentedFamilies() {
  std::map<std::string, DocRow> rows;
  std::istringstream lines(ReadFile(kRoot + "/docs/metrics.md"));
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("| `dak_")) continue;
    const std::vector<std::string> cells = Cells(line);
    if (cells.size() < 5) {
      ADD_FAILURE() << "not five columns: " << line;
      continue;
    }
    DocRow row{cells[1], cells[3], cells[4], {}};
    static const std::regex quoted("`([a-z]+)`");
    for (std::sregex_iterator it(cells[2].begin(), cells[2].end(), quoted), end; it != end; ++it) {
      row.labels.insert((*it)[1]);
    }
    const std::string name = cells[0].substr(1, cells[0].size() - 2);
    EXPECT_FALSE(rows.contains(name)) << "documented twice: " << name;
    rows[name] = row;
  }
  return rows;
}

// Names of series that a text of PromQL mentions.
std::set<std::string> SeriesIn(const std::string& text) {
  std::set<std::string> names;
  static const std::regex series("\\bdak_[a-z0-9_]+");
  for (std::sregex_iterator it(text.begin(), text.end(), series), end; it != end; ++it) names.insert(it->str());
  return names;
}

void ExpectAllExist(const std::set<std::string>& series, const Exposition& exposed, const std::string& where) {
  EXPECT_FALSE(series.empty()) << where;
  for (const std::string& name : series) {
    if (auto it = exposed.families.find(name); it != exposed.families.end()) {
      EXPECT_NE(it->second.type, "histogram") << name << " in " << where << " needs _bucket, _sum or _count";
      continue;
    }
    const std::string base = std::regex_replace(name, std::regex("_(bucket|sum|count)$"), "");
    auto it = exposed.families.find(base);
    EXPECT_TRUE(it != exposed.families.end() && it->second.type == "histogram") << name << " in " << where;
  }
}

google::protobuf::Struct Dashboard() {
  google::protobuf::Struct dashboard;
  const auto status = google::protobuf::util::JsonStringToMessage(ReadFile(kDashboard), &dashboard);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return dashboard;
}

std::vector<std::string> DashboardExpressions() {
  std::vector<std::string> expressions;
  const google::protobuf::Struct dashboard = Dashboard();
  for (const auto& panel : dashboard.fields().at("panels").list_value().values()) {
    const auto& fields = panel.struct_value().fields();
    if (!fields.contains("targets")) continue;
    for (const auto& target : fields.at("targets").list_value().values()) {
      expressions.push_back(target.struct_value().fields().at("expr").string_value());
    }
  }
  return expressions;
}

TEST(FamiliesTest, DocumentsExactlyWhatIsExposed) {
  const Exposition exposed = Parse(PopulatedMetrics()->Render());
  const auto documented = DocumentedFamilies();
  for (const auto& [name, family] : exposed.families) {
    ASSERT_TRUE(documented.contains(name)) << name << " isn't in docs/metrics.md";
    EXPECT_EQ(documented.at(name).type, family.type) << name;
    EXPECT_EQ(documented.at(name).labels, family.labels) << name;
    EXPECT_FALSE(documented.at(name).meaning.empty()) << name;
  }
  for (const auto& [name, row] : documented) {
    EXPECT_TRUE(exposed.families.contains(name)) << name << " is documented but isn't exposed";
  }
}

TEST(FamiliesTest, NamesAndUnitsFollowTheRules) {
  for (const auto& [name, row] : DocumentedFamilies()) {
    EXPECT_EQ(name.ends_with("_total"), row.type == "counter") << name;
    const std::string base = std::regex_replace(name, std::regex("_total$"), "");
    EXPECT_EQ(base.ends_with("_bytes"), row.unit == "bytes") << name;
    EXPECT_EQ(base.ends_with("_seconds"), row.unit == "seconds") << name;
    EXPECT_EQ(base.ends_with("_bytes_per_second"), row.unit == "bytes per second") << name;
  }
}

TEST(FamiliesTest, EveryFamilyHasHelp) {
  for (const auto& [name, family] : Parse(PopulatedMetrics()->Render()).families) {
    EXPECT_THAT(family.help, ::testing::EndsWith(".")) << name;
    EXPECT_FALSE(family.type.empty()) << name;
  }
}

TEST(FamiliesTest, DashboardNamesOnlyWhatExistsAndShowsEveryFamily) {
  const Exposition exposed = Parse(PopulatedMetrics()->Render());
  const std::string text = ReadFile(kDashboard);
  std::set<std::string> series;
  for (const std::string& expression : DashboardExpressions()) series.merge(SeriesIn(expression));
  ExpectAllExist(series, exposed, kDashboard);
  ExpectAllExist(SeriesIn(text), exposed, "variables of the dashboard");
  for (const auto& [name, family] : exposed.families) {
    if (name == "dak_sessions_unlisted") continue;  // 0 unless a node has a thousand sessions
    EXPECT_NE(text.find(name), std::string::npos) << "no panel shows " << name;
  }
}

TEST(FamiliesTest, DashboardPanelsDoNotOverlapAndHaveDescriptions) {
  std::set<std::pair<int, int>> taken;
  std::set<int> ids;
  const google::protobuf::Struct dashboard = Dashboard();
  for (const auto& panel : dashboard.fields().at("panels").list_value().values()) {
    const auto& fields = panel.struct_value().fields();
    const std::string title = fields.at("title").string_value();
    EXPECT_TRUE(ids.insert(static_cast<int>(fields.at("id").number_value())).second) << title;
    if (fields.at("type").string_value() != "row") {
      EXPECT_TRUE(fields.contains("description") && !fields.at("description").string_value().empty()) << title;
    }
    const auto& grid = fields.at("gridPos").struct_value().fields();
    const int x0 = static_cast<int>(grid.at("x").number_value()), y0 = static_cast<int>(grid.at("y").number_value());
    EXPECT_LE(x0 + grid.at("w").number_value(), 24) << title;
    for (int x = x0; x < x0 + grid.at("w").number_value(); ++x) {
      for (int y = y0; y < y0 + grid.at("h").number_value(); ++y) {
        EXPECT_TRUE(taken.emplace(x, y).second) << title << " overlaps at " << x << ", " << y;
      }
    }
  }
}

TEST(FamiliesTest, AlertsNameOnlyWhatExists) {
  ExpectAllExist(SeriesIn(ReadFile(kRules)), Parse(PopulatedMetrics()->Render()), kRules);
}

TEST(FamiliesTest, DocExpressionsNameOnlyWhatExists) {
  ExpectAllExist(
      SeriesIn(ReadFile(kRoot + "/docs/metrics.md")),
      [] {
        Exposition exposed = Parse(PopulatedMetrics()->Render());
        // Prose and table name the families themselves.
        for (auto& [name, family] : exposed.families) {
          if (family.type != "histogram") continue;
          for (const char* suffix : {"_bucket", "_sum", "_count"}) exposed.families[name + suffix].type = "part";
          family.type = "named";
        }
        exposed.families["dak_session_"].type = "prefix";
        exposed.families["dak_"].type = "prefix";
        return exposed;
      }(),
      "docs/metrics.md");
}

// Alert names with their severities, as a pattern finds them.
std::map<std::string, std::string> AlertsIn(const std::string& text, const char* pattern) {
  std::map<std::string, std::string> alerts;
  const std::regex regex(pattern);
  for (std::sregex_iterator it(text.begin(), text.end(), regex), end; it != end; ++it) alerts[(*it)[1]] = (*it)[2];
  return alerts;
}

TEST(FamiliesTest, EveryAlertSaysWhatToDo) {
  const auto rules = AlertsIn(ReadFile(kRules), "alert: (\\w+)[^]*?severity: (\\w+)");
  EXPECT_GE(rules.size(), 10u);
  EXPECT_EQ(AlertsIn(ReadFile(kRoot + "/docs/operations.md"), "\n\\| `(Dak\\w+)` \\| (\\w+) \\|"), rules);
}

class PromtoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (kPromtool.empty()) GTEST_SKIP() << "promtool isn't installed";
    dir_ = ::testing::TempDir() + "/dak_promtool_" + std::to_string(::getpid());
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override {
    if (!dir_.empty()) std::filesystem::remove_all(dir_);
  }
  std::string dir_;
};

TEST_F(PromtoolTest, FindsNothingToSayOfTheExposition) {
  WriteFile(dir_ + "/metrics", PopulatedMetrics()->Render());
  const auto result = RunCommand(kPromtool + " check metrics < " + dir_ + "/metrics");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(result.output, "");
}

TEST_F(PromtoolTest, AcceptsTheAlertRules) {
  const auto result = RunCommand(kPromtool + " check rules " + kRules);
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

TEST_F(PromtoolTest, AlertsFireWhereTheyShould) {
  std::filesystem::copy(kRules, dir_ + "/dak.rules.yml");
  std::filesystem::copy(kRoot + "/tests/unit/monitoring/alerts_test.yml", dir_ + "/alerts_test.yml");
  const auto result = RunCommand(kPromtool + " test rules " + dir_ + "/alerts_test.yml");
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

TEST_F(PromtoolTest, EveryAlertHasATest) {
  const std::string tests = ReadFile(kRoot + "/tests/unit/monitoring/alerts_test.yml");
  const std::string rules = ReadFile(kRules);
  static const std::regex alert("alert: (\\w+)");
  for (std::sregex_iterator it(rules.begin(), rules.end(), alert), end; it != end; ++it) {
    EXPECT_TRUE(std::regex_search(tests, std::regex("alertname: " + (*it)[1].str() + "\\n\\s+exp_alerts:")))
        << it->str();
  }
}

TEST_F(PromtoolTest, AcceptsTheExampleConfiguration) {
  std::filesystem::copy(kRules, dir_ + "/dak.rules.yml");
  std::filesystem::copy(kRoot + "/deploy/prometheus.yml", dir_ + "/prometheus.yml");
  const auto result = RunCommand(kPromtool + " check config " + dir_ + "/prometheus.yml");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("rules found"));
}

// Each expression of the dashboard becomes a recording rule, so that the PromQL parser sees it.
TEST_F(PromtoolTest, ParsesEveryExpressionOfTheDashboard) {
  std::string rules = "groups:\n  - name: dashboard\n    rules:\n";
  int number = 0;
  for (std::string expression : DashboardExpressions()) {
    expression = std::regex_replace(expression, std::regex("\\$__rate_interval"), "1m");
    rules +=
        "      - record: dashboard:" + std::to_string(number++) + "\n        expr: >-\n          " + expression + "\n";
  }
  EXPECT_GT(number, 20);
  WriteFile(dir_ + "/dashboard.yml", rules);
  const auto result = RunCommand(kPromtool + " check rules " + dir_ + "/dashboard.yml");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr(std::to_string(number) + " rules found"));
}

}  // namespace
}  // namespace dak::monitoring

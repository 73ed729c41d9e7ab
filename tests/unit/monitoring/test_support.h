// What the monitoring tests share: a populated Metrics, the text format taken apart, a small HTTP client.
#ifndef DAK_TESTS_UNIT_MONITORING_TEST_SUPPORT_H_
#define DAK_TESTS_UNIT_MONITORING_TEST_SUPPORT_H_

#include <map>
#include <memory>
#include <set>
#include <string>

#include "monitoring/metrics.h"

namespace dak::monitoring::testing {

// Two tiers, two sessions (one without limits and plan), one link.
Snapshot SampleSnapshot();
// Metrics over SampleSnapshot in which every family has at least one series.
std::unique_ptr<Metrics> PopulatedMetrics();

struct ParsedFamily {
  std::string type;
  std::string help;
  std::set<std::string> labels;  // names, without a histogram's "le"
};
struct Exposition {
  std::map<std::string, ParsedFamily> families;
  std::map<std::string, double> samples;  // by `name{label="value",...}` as written
};
// Fails the test where a line isn't the text format, or a sample has no family.
Exposition Parse(const std::string& text);

// The whole answer to "GET <path>", headers included; empty if the connection fails.
std::string HttpGet(const std::string& address, const std::string& path);
// What follows the headers.
std::string Body(const std::string& response);

struct CommandResult {
  int exit_code = -1;
  std::string output;  // stdout and stderr
};
// Runs a shell command line.
CommandResult RunCommand(const std::string& command);
std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& text);

}  // namespace dak::monitoring::testing

#endif  // DAK_TESTS_UNIT_MONITORING_TEST_SUPPORT_H_

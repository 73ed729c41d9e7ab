#include "tests/unit/monitoring/test_support.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cstdio>
#include <fstream>
#include <regex>
#include <sstream>

#include "allocator/base/unique_fd.h"
#include "allocator/ledger.h"

namespace dak::monitoring::testing {

Snapshot SampleSnapshot() {
  Snapshot snapshot;
  snapshot.version = "0.1.0";
  snapshot.device_kind = "emulated";
  snapshot.device_name = "emulated";
  snapshot.publication_count = 1;
  snapshot.profile_source = "measured";
  snapshot.profile_failures = 2;
  snapshot.profile_measured_unix_s = 1'700'000'000;
  snapshot.pools.push_back({.tier = Tier::kHbm,
                            .capacity_bytes = 100 << 20,
                            .free_bytes = 60 << 20,
                            .session_bytes = 30 << 20,
                            .published_bytes = 10 << 20,
                            .segment_count = 3,
                            .unplaced_bytes = 4096});
  snapshot.pools.push_back(
      {.tier = Tier::kHost, .capacity_bytes = 200 << 20, .free_bytes = 190 << 20, .session_bytes = 10 << 20});
  SessionSample planned;
  planned.session_id = 7;
  planned.name = "llama";
  planned.used_bytes = {30 << 20, 10 << 20, 0};
  planned.limit_bytes = {50 << 20, kNoLimit, kNoLimit};
  planned.tensor_count = 12;
  planned.remote_bytes = 123456789;
  planned.remote_bytes_per_s = 48.5e9;
  planned.window_bytes = 131072;
  planned.inflight_peak_bytes = 262144;
  planned.round_trip_ns_sum = 2'500'000'000;
  planned.round_trips = 1000;
  planned.violating = true;
  planned.plan_version = 4;
  planned.plan_predicted_s = 0.0055;
  SessionSample idle;
  idle.session_id = 8;
  idle.name = "idle";
  idle.limit_bytes = {kNoLimit, kNoLimit, kNoLimit};
  snapshot.sessions = {planned, idle};
  snapshot.links.push_back(
      {.link = 0, .target_bytes = 184'000, .bandwidth_bytes_per_s = 51'100'000'000, .unexplained_bytes = 600'000});
  return snapshot;
}

std::unique_ptr<Metrics> PopulatedMetrics() {
  auto metrics = std::make_unique<Metrics>(SampleSnapshot);
  metrics->ObserveRpc("dak.v1.TensorService/AllocateTensors", "OK", 0.0003);
  metrics->CountReclaimedSession("connection", {1 << 20, 2 << 20, 0});
  metrics->CountRefusedAllocation("QUOTA_EXCEEDED");
  metrics->CountEvent("SESSION_OPENED");
  metrics->ObserveRoundTrip(0, 2.6e-6);
  metrics->CountWindowViolation(7, "llama");
  return metrics;
}

namespace {

std::string FamilyOf(const Exposition& parsed, const std::string& series) {
  if (auto it = parsed.families.find(series); it != parsed.families.end() && it->second.type != "histogram")
    return series;
  for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
    if (!series.ends_with(suffix)) continue;
    const std::string base = series.substr(0, series.size() - suffix.size());
    if (auto it = parsed.families.find(base);
        it != parsed.families.end() && (it->second.type == "histogram" || it->second.type == "summary")) {
      return base;
    }
  }
  return "";
}

void ParseSample(const std::string& line, Exposition& parsed) {
  static const std::regex sample(R"re(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(.*)\})? (\S+))re");
  static const std::regex label(R"re(([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"(?:,|$))re");
  std::smatch match;
  ASSERT_TRUE(std::regex_match(line, match, sample)) << line;
  const std::string family = FamilyOf(parsed, match[1]);
  ASSERT_FALSE(family.empty()) << "no family: " << line;
  std::string labels = match[3];
  for (std::smatch m; std::regex_search(labels, m, label, std::regex_constants::match_continuous);) {
    if (m[1] != "le") parsed.families[family].labels.insert(m[1]);
    labels = m.suffix();
  }
  EXPECT_EQ(labels, "") << line;
  const std::string key = line.substr(0, line.rfind(' '));
  EXPECT_FALSE(parsed.samples.contains(key)) << "twice: " << key;
  parsed.samples[key] = std::stod(match[4]);
}

}  // namespace

Exposition Parse(const std::string& text) {
  Exposition parsed;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash, kind, name;
    if (line.starts_with("# HELP ")) {
      words >> hash >> kind >> name;
      std::getline(words >> std::ws, parsed.families[name].help);
    } else if (line.starts_with("# TYPE ")) {
      words >> hash >> kind >> name >> parsed.families[name].type;
    } else {
      ParseSample(line, parsed);
    }
  }
  return parsed;
}

std::string HttpGet(const std::string& address, const std::string& path) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) return "";
  const std::string request = "GET " + path + " HTTP/1.1\r\nHost: dak\r\nConnection: close\r\n\r\n";
  if (::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) return "";
  std::string response;
  char buffer[16384];
  for (ssize_t n = 0; (n = ::recv(fd.get(), buffer, sizeof(buffer), 0)) > 0;) response.append(buffer, n);
  return response;
}

std::string Body(const std::string& response) {
  const size_t end = response.find("\r\n\r\n");
  return end == std::string::npos ? "" : response.substr(end + 4);
}

CommandResult RunCommand(const std::string& command) {
  CommandResult result;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return result;
  char buffer[4096];
  for (size_t n = 0; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) result.output.append(buffer, n);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  return result;
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in.good()) << path;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void WriteFile(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

}  // namespace dak::monitoring::testing

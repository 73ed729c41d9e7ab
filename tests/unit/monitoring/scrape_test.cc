// Metrics over HTTP.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "monitoring/http_server.h"
#include "monitoring/metrics.h"
#include "tests/unit/monitoring/test_support.h"

namespace dak::monitoring {
namespace {

using testing::Body;
using ::testing::HasSubstr;
using testing::HttpGet;
using testing::Parse;
using testing::PopulatedMetrics;
using testing::SampleSnapshot;
using ::testing::StartsWith;

TEST(ScrapeTest, ServesWhatRenderShowsOnAPickedPort) {
  auto metrics = PopulatedMetrics();
  EXPECT_EQ(metrics->address(), "");
  ASSERT_TRUE(metrics->Serve("127.0.0.1:0").ok());
  EXPECT_THAT(metrics->address(), StartsWith("127.0.0.1:"));
  EXPECT_NE(metrics->address(), "127.0.0.1:0");
  const std::string response = HttpGet(metrics->address(), "/metrics");
  EXPECT_THAT(response, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(response, HasSubstr("text/plain"));
  const auto scraped = Parse(Body(response)).samples;
  for (const auto& [key, value] : Parse(metrics->Render()).samples) {
    ASSERT_TRUE(scraped.contains(key)) << key;
    EXPECT_EQ(scraped.at(key), value) << key;
  }
}

TEST(ScrapeTest, AnswersHealth) {
  auto metrics = PopulatedMetrics();
  ASSERT_TRUE(metrics->Serve("127.0.0.1:0").ok());
  const std::string response = HttpGet(metrics->address(), "/healthz");
  EXPECT_THAT(response, StartsWith("HTTP/1.1 200"));
  EXPECT_EQ(Body(response), "ok\n");
  EXPECT_THAT(HttpGet(metrics->address(), "/healthz/more"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(HttpGet(metrics->address(), "/"), StartsWith("HTTP/1.1 404"));
}

TEST(ScrapeTest, ManyScrapesAtOnceWhileCounting) {
  Metrics metrics(SampleSnapshot);
  ASSERT_TRUE(metrics.Serve("127.0.0.1:0").ok());
  std::atomic<bool> done = false;
  std::atomic<int> counted = 0;
  std::thread counter([&] {
    while (!done) {
      metrics.ObserveRpc("m", "OK", 1e-4);
      ++counted;
    }
  });
  constexpr int kScrapers = 4, kScrapes = 10;
  std::atomic<int> good = 0;
  std::vector<std::thread> scrapers;
  for (int s = 0; s < kScrapers; ++s) {
    scrapers.emplace_back([&] {
      double last = -1;
      for (int i = 0; i < kScrapes; ++i) {
        const auto samples = Parse(Body(HttpGet(metrics.address(), "/metrics"))).samples;
        auto it = samples.find(R"(dak_rpc_duration_seconds_count{code="OK",method="m"})");
        const double now = it == samples.end() ? 0 : it->second;
        if (samples.contains("dak_sessions") && now >= last) ++good;
        last = now;
      }
    });
  }
  for (std::thread& scraper : scrapers) scraper.join();
  done = true;
  counter.join();
  EXPECT_EQ(good, kScrapers * kScrapes);
  const auto samples = Parse(Body(HttpGet(metrics.address(), "/metrics"))).samples;
  EXPECT_EQ(samples.at(R"(dak_rpc_duration_seconds_count{code="OK",method="m"})"), counted);
}

TEST(ScrapeTest, RefusesAnAddressThatIsNone) {
  for (const char* bad :
       {"", "9465", "127.0.0.1", "127.0.0.1:", ":9465", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:9465s",
        "127.0.0.1:1,127.0.0.1:2", "::1:9465", "[]:9465", "a b:1", "h\n:1", "127.0.0.1:+80", "[::1%lo]:80"}) {
    Metrics metrics(SampleSnapshot);
    const absl::Status status = metrics.Serve(bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), StartsWith("metrics address: ")) << bad;
    EXPECT_EQ(metrics.address(), "");
  }
}

TEST(ScrapeTest, TakesAddressesApart) {
  auto parsed = ParseHostPort("[::1]:9465");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->host, "[::1]");
  EXPECT_EQ(parsed->port, 9465);
  parsed = ParseHostPort("node-3.example:65535");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->host, "node-3.example");
  EXPECT_EQ(parsed->port, 65535);
}

TEST(ScrapeTest, SaysWhichAddressCouldNotBeBound) {
  Metrics first(SampleSnapshot), second(SampleSnapshot);
  ASSERT_TRUE(first.Serve("127.0.0.1:0").ok());
  const std::string taken = first.address();
  absl::Status status = second.Serve(taken);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(taken));
  EXPECT_EQ(second.address(), "");
  // A failed start leaves nothing behind: the same object serves elsewhere.
  ASSERT_TRUE(second.Serve("127.0.0.1:0").ok());
  EXPECT_THAT(HttpGet(second.address(), "/metrics"), HasSubstr("dak_sessions 2"));
  // 192.0.2.0/24 is reserved for documentation: no machine has it.
  Metrics third(SampleSnapshot);
  EXPECT_EQ(third.Serve("192.0.2.1:0").code(), absl::StatusCode::kUnavailable);
}

TEST(ScrapeTest, ServesOnceAndFreesThePortWhenItDies) {
  std::string address;
  {
    Metrics metrics(SampleSnapshot);
    ASSERT_TRUE(metrics.Serve("127.0.0.1:0").ok());
    address = metrics.address();
    EXPECT_EQ(metrics.Serve("127.0.0.1:0").code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(metrics.address(), address);
    EXPECT_NE(HttpGet(address, "/metrics"), "");
  }
  EXPECT_EQ(HttpGet(address, "/metrics"), "");
}

}  // namespace
}  // namespace dak::monitoring

// What the demo judges with: its reference, its reader of metrics, its flags.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "client/demo/model.h"
#include "client/demo/options.h"
#include "client/demo/scrape.h"
#include "client/demo/table.h"
#include "tests/integration/harness/matrix.h"

namespace dak::demo {
namespace {

using ::testing::HasSubstr;
using ::testing::Optional;

class ModelTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kBatch = 3;
  ModelTest() {
    rows_.resize(layer_.n);
    std::iota(rows_.begin(), rows_.end(), uint64_t{0});
    x_.resize(kBatch * layer_.k);
    for (uint32_t b = 0; b < kBatch; ++b) FillRow(1, 99, b, std::span(x_).subspan(b * layer_.k, layer_.k));
    for (uint64_t row = 0; row < layer_.n; ++row) {
      std::vector<uint16_t> w(layer_.k);
      FillRow(1, 0, row, w);
      w_.insert(w_.end(), w.begin(), w.end());
    }
    y_.resize(kBatch * layer_.n);
    for (uint32_t b = 0; b < kBatch; ++b) {
      for (uint64_t row = 0; row < layer_.n; ++row) {
        float sum = 0;
        for (uint64_t i = 0; i < layer_.k; ++i) {
          sum +=
              static_cast<float>(testing::FromBf16(w_[row * layer_.k + i]) * testing::FromBf16(x_[b * layer_.k + i]));
        }
        y_[b * layer_.n + row] = testing::ToBf16(sum);
      }
    }
  }
  double Worst() const { return WorstError(layer_, 1, 0, rows_, x_, y_, kBatch); }

  const LinearLayer layer_{.name = "l", .n = 37, .k = 72};
  std::vector<uint64_t> rows_;
  std::vector<uint16_t> x_;
  std::vector<uint16_t> w_;
  std::vector<uint16_t> y_;
};

TEST_F(ModelTest, AcceptsARightResult) { EXPECT_LE(Worst(), kTolerance); }

TEST_F(ModelTest, FindsOneWrongElement) {
  y_[kBatch * layer_.n - 1] = testing::ToBf16(1000);
  EXPECT_GT(Worst(), kTolerance);
}

TEST_F(ModelTest, FindsAnElementThatWasNotWritten) {
  y_[5] = 0x7fff;
  EXPECT_TRUE(std::isinf(Worst()));
}

TEST_F(ModelTest, FindsTwoRowsThatWereExchanged) {
  std::swap(y_[0], y_[1]);
  EXPECT_GT(Worst(), kTolerance);
}

TEST_F(ModelTest, RowsAreReproducibleAndDiffer) {
  std::vector<uint16_t> again(layer_.k);
  FillRow(1, 0, 0, again);
  EXPECT_TRUE(std::equal(again.begin(), again.end(), w_.begin()));
  for (const auto& [seed, matrix, row] : {std::tuple<int, int, int>{2, 0, 0}, {1, 1, 0}, {1, 0, 1}}) {
    std::vector<uint16_t> other(layer_.k);
    FillRow(seed, matrix, row, other);
    EXPECT_NE(other, again);
  }
  for (const uint16_t element : w_) EXPECT_LT(std::abs(testing::FromBf16(element)), 1);
}

TEST(ScrapeTest, FindsASeriesByNameAndLabels) {
  const std::string text =
      "# HELP dak_pool_bytes the pool by state\n"
      "dak_pool_bytes_total{tier=\"hbm\"} 1\n"
      "dak_pool_bytes{state=\"free\",tier=\"hbm\"} 3.5e+06\n"
      "dak_pool_bytes{state=\"free\",tier=\"host\"} 7\n"
      "dak_sessions 2\n";
  EXPECT_THAT(FindSeries(text, "dak_pool_bytes", {"tier=\"host\""}), Optional(7));
  EXPECT_THAT(FindSeries(text, "dak_pool_bytes", {"tier=\"hbm\"", "state=\"free\""}), Optional(3.5e6));
  EXPECT_THAT(FindSeries(text, "dak_sessions", {}), Optional(2));
  EXPECT_EQ(FindSeries(text, "dak_pool_bytes", {"tier=\"cxl\""}), std::nullopt);
  EXPECT_EQ(FindSeries(text, "dak_pool", {}), std::nullopt);
}

TEST(ScrapeTest, NobodyAnswers) {
  EXPECT_EQ(HttpGet("127.0.0.1:1", "/metrics"), std::nullopt);
  EXPECT_EQ(HttpGet("nonsense", "/metrics"), std::nullopt);
  EXPECT_EQ(HttpGet("", "/metrics"), std::nullopt);
}

std::optional<Options> Parse(std::vector<std::string> arguments, std::string* error) {
  arguments.insert(arguments.begin(), "dak-demo");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  return ParseOptions(static_cast<int>(argv.size()), argv.data(), error);
}

TEST(OptionsTest, TakesBothFormsOfAFlag) {
  std::string error;
  const auto options = Parse({"--device=emulated", "--seconds", "2.5", "--keep-going"}, &error);
  ASSERT_TRUE(options.has_value()) << error;
  EXPECT_EQ(options->device, "emulated");
  EXPECT_EQ(options->seconds, 2.5);
  EXPECT_TRUE(options->keep_going);
  EXPECT_FALSE(options->worker);
}

TEST(OptionsTest, NamesTheFlagAtFault) {
  std::string error;
  EXPECT_FALSE(Parse({"--divice=cuda"}, &error).has_value());
  EXPECT_THAT(error, HasSubstr("--divice"));
  EXPECT_FALSE(Parse({"--layers=0"}, &error).has_value());
  EXPECT_THAT(error, HasSubstr("--layers: '0'"));
  EXPECT_FALSE(Parse({"--hbm-share=2"}, &error).has_value());
  EXPECT_FALSE(Parse({"--seconds=1h"}, &error).has_value());
  EXPECT_FALSE(Parse({"--seconds"}, &error).has_value());
  EXPECT_THAT(error, HasSubstr("needs a value"));
}

TEST(TableTest, WritesSizesAndRatesAsPeopleDo) {
  EXPECT_EQ(SizeText(uint64_t{3} << 20), "3 MiB");
  EXPECT_EQ(SizeText(uint64_t{3} << 29), "1.50 GiB");
  EXPECT_EQ(RateText(51.1e9), "51.10 GB/s");
  EXPECT_EQ(RateText(2.5e6), "2.5 MB/s");
}

}  // namespace
}  // namespace dak::demo

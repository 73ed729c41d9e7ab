#include "daemon/dakctl/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/dakctl/table.h"

namespace dak::dakctl {
namespace {

TEST(PrintableTest, KeepsTextAndShowsWhatSteersATerminal) {
  EXPECT_EQ(Printable("llama-3/8b"), "llama-3/8b");
  EXPECT_EQ(Printable("größe 模型"), "größe 模型");
  EXPECT_EQ(Printable("\x1b[2J\n\t\r\x7f"), "\\x1b[2J\\x0a\\x09\\x0d\\x7f");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m"),
            "\\u009b31m")
      << "C1's CSI";
  EXPECT_EQ(Printable("\xe2\x80\xae"
                      "abc"),
            "\\u202eabc")
      << "right-to-left override";
  EXPECT_EQ(Printable("\xef\xbb\xbf\xe2\x81\xa6"), "\\ufeff\\u2066");
  EXPECT_EQ(Printable(absl::string_view("a\0b", 3)), "a\\x00b");
}

TEST(PrintableTest, ShowsInvalidUtf8ByteByByte) {
  EXPECT_EQ(Printable("\xff\xfe"), "\\xff\\xfe");
  EXPECT_EQ(Printable("\xc0\x80"), "\\xc0\\x80") << "overlong";
  EXPECT_EQ(Printable("\xe0\x80\x80"), "\\xe0\\x80\\x80");
  EXPECT_EQ(Printable("\xed\xa0\x80"), "\\xed\\xa0\\x80") << "surrogate";
  EXPECT_EQ(Printable("\xf5\x80\x80\x80"), "\\xf5\\x80\\x80\\x80");
  EXPECT_EQ(Printable("\xe6\xa8"), "\\xe6\\xa8") << "cut off";
  EXPECT_EQ(Printable("\xc3("), "\\xc3(");
}

TEST(FormatTest, ShowsThreeFigures) {
  const Format format;
  EXPECT_EQ(format.Bytes(0), "0 B");
  EXPECT_EQ(format.Bytes(999), "999 B");
  EXPECT_EQ(format.Bytes(1024), "1.00 KiB");
  EXPECT_EQ(format.Bytes(131072), "128 KiB");
  EXPECT_EQ(format.Bytes((uint64_t{1} << 20) - 1), "1.00 MiB") << "not 1024 KiB";
  EXPECT_EQ(format.Bytes(uint64_t{24} << 30), "24.0 GiB");
  EXPECT_EQ(format.Limit(~uint64_t{0}), "none");
  EXPECT_EQ(format.Rate(48.7e9), "48.7 GB/s");
  EXPECT_EQ(format.Rate(0), "0 B/s");
  EXPECT_EQ(format.Rate(999.6), "1.00 KB/s");
  EXPECT_EQ(format.Rate(2e15), "2000 TB/s");
}

TEST(FormatTest, ShowsExactBytesOnRequest) {
  const Format format{.exact_bytes = true};
  EXPECT_EQ(format.Bytes(20401094656), "20401094656");
  EXPECT_EQ(format.Limit(~uint64_t{0}), "none");
  EXPECT_EQ(format.Rate(48.7e9), "48700000000");
}

TEST(FormatTest, ShowsTimesAndShares) {
  EXPECT_EQ(Duration(0), "0 s");
  EXPECT_EQ(Duration(370e-9), "370 ns");
  EXPECT_EQ(Duration(2.6e-6), "2.60 us");
  EXPECT_EQ(Duration(5.5e-3), "5.50 ms");
  EXPECT_EQ(Duration(1.25), "1.25 s");
  EXPECT_EQ(Age(999'999'999), "0s");
  EXPECT_EQ(Age(312'000'000'000), "5m 12s");
  EXPECT_EQ(Age(7'980'000'000'000), "2h 13m");
  EXPECT_EQ(Age(93'600'000'000'000), "1d 2h");
  EXPECT_EQ(Percent(1, 8), "12.5 %");
  EXPECT_EQ(Percent(0, 8), "0 %");
  EXPECT_EQ(Percent(8, 8), "100 %");
  EXPECT_EQ(Percent(1, 0), "-");
}

TEST(ClipTest, CutsAtCodePoints) {
  EXPECT_EQ(Clip("abcdef", 6), "abcdef");
  EXPECT_EQ(Clip("abcdef", 4), "abc~");
  EXPECT_EQ(Clip("äöü", 2), "ä~");
  EXPECT_EQ(Clip("abc", 1), "~");
  EXPECT_EQ(Clip("abc", 0), "");
}

TEST(TableTest, AlignsColumnsAndTrimsLines) {
  Table table;
  table.Column("NAME").Column("SIZE", Table::Align::kRight).Column("STATE");
  table.Row({"a", "1 B", ""});
  table.Row({"größer", "1000 B", "on"});
  EXPECT_EQ(table.Render(2),
            "  NAME      SIZE  STATE\n"
            "  a          1 B\n"
            "  größer  1000 B  on\n");
}

TEST(TableTest, MakesCellsPrintable) {
  Table table;
  table.Column("NAME");
  table.Row({"a\x1b[31m\nb"});
  EXPECT_EQ(table.Render(), "NAME\na\\x1b[31m\\x0ab\n");
}

}  // namespace
}  // namespace dak::dakctl

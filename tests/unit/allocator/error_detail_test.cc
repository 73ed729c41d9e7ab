#include "allocator/base/error_detail.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"

namespace dak {
namespace {

TEST(ErrorDetailTest, CarriesAllFourParts) {
  const absl::Status status =
      WithDetail(absl::ResourceExhaustedError("too much"),
                 {.field = "tensors[3].rows", .reason = "POOL_EXHAUSTED", .limit = "at most 7", .shortfall_bytes = 42});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(std::string(status.message()), "too much");
  const ErrorDetail detail = DetailOf(status);
  EXPECT_EQ(detail.field, "tensors[3].rows");
  EXPECT_EQ(detail.reason, "POOL_EXHAUSTED");
  EXPECT_EQ(detail.limit, "at most 7");
  EXPECT_EQ(detail.shortfall_bytes, 42u);
}

TEST(ErrorDetailTest, CarriesTheLargestShortfall) {
  const uint64_t most = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(DetailOf(WithDetail(absl::AbortedError(""), {.shortfall_bytes = most})).shortfall_bytes, most);
}

TEST(ErrorDetailTest, IsEmptyWithoutADetail) {
  for (const absl::Status& status : {absl::OkStatus(), absl::InternalError("plain")}) {
    const ErrorDetail detail = DetailOf(status);
    EXPECT_EQ(detail.field, "");
    EXPECT_EQ(detail.reason, "");
    EXPECT_EQ(detail.limit, "");
    EXPECT_EQ(detail.shortfall_bytes, 0u);
  }
}

TEST(ErrorDetailTest, LeavesOutWhatIsEmpty) {
  const absl::Status status = WithDetail(absl::NotFoundError("x"), {.reason = "UNKNOWN_SESSION"});
  int payloads = 0;
  status.ForEachPayload([&](absl::string_view, const absl::Cord&) { ++payloads; });
  EXPECT_EQ(payloads, 1);
}

TEST(ErrorDetailTest, LeavesAnOkStatusAlone) {
  const absl::Status status = WithDetail(absl::OkStatus(), {.field = "a", .reason = "b"});
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(DetailOf(status).reason, "");
}

TEST(ErrorDetailTest, ALaterDetailReplacesParts) {
  absl::Status status = WithDetail(absl::InternalError("x"), {.field = "a", .reason = "FIRST"});
  status = WithDetail(status, {.reason = "SECOND"});
  EXPECT_EQ(DetailOf(status).field, "a");
  EXPECT_EQ(DetailOf(status).reason, "SECOND");
}

TEST(ErrorDetailTest, AShortfallThatIsNoNumberReadsAsZero) {
  absl::Status status = WithDetail(absl::InternalError("x"), {.shortfall_bytes = 5});
  std::string url;
  status.ForEachPayload([&](absl::string_view name, const absl::Cord&) { url = std::string(name); });
  status.SetPayload(url, absl::Cord("many"));
  EXPECT_EQ(DetailOf(status).shortfall_bytes, 0u);
}

TEST(ErrorDetailTest, InvalidFieldNamesFieldAndLimit) {
  const absl::Status status = InvalidField("weight", "0 is out of range", "1 to 1000");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status.message()), "weight: 0 is out of range (1 to 1000)");
  EXPECT_EQ(DetailOf(status).field, "weight");
  EXPECT_EQ(DetailOf(status).reason, "OUT_OF_RANGE");
  EXPECT_EQ(DetailOf(status).limit, "1 to 1000");
  EXPECT_EQ(DetailOf(InvalidField("f", "p", "l", "BAD_TICKET")).reason, "BAD_TICKET");
}

}  // namespace
}  // namespace dak

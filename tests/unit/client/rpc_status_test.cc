#include "client/src/rpc_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "allocator/base/error_detail.h"
#include "client/src/structs.h"
#include "dak/v1/types.pb.h"

namespace dak::client {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

std::string Trailer(const std::string& type_url, const std::string& value) {
  v1::RpcStatus status;
  status.set_code(8);
  v1::AnyDetail* const any = status.add_details();
  any->set_type_url(type_url);
  any->set_value(value);
  return status.SerializeAsString();
}

std::string DetailBytes() {
  v1::ErrorDetail detail;
  detail.set_field("tensors[3].rows");
  detail.set_reason("QUOTA_EXCEEDED");
  detail.set_limit("at most 4");
  detail.set_shortfall_bytes(4096);
  return detail.SerializeAsString();
}

TEST(RpcStatusTest, TakesTheDetailOutOfTheTrailer) {
  const absl::Status status = StatusFromRpc({grpc::StatusCode::RESOURCE_EXHAUSTED, "no room",
                                             Trailer("type.googleapis.com/dak.v1.ErrorDetail", DetailBytes())});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "no room");
  const ErrorDetail detail = DetailOf(status);
  EXPECT_EQ(detail.field, "tensors[3].rows");
  EXPECT_EQ(detail.reason, "QUOTA_EXCEEDED");
  EXPECT_EQ(detail.limit, "at most 4");
  EXPECT_EQ(detail.shortfall_bytes, 4096u);
}

TEST(RpcStatusTest, SkipsDetailsOfOtherTypes) {
  v1::RpcStatus wire;
  ASSERT_TRUE(wire.ParseFromString(Trailer("type.googleapis.com/google.rpc.Help", DetailBytes())));
  EXPECT_TRUE(DetailOf(StatusFromRpc({grpc::StatusCode::INTERNAL, "x", wire.SerializeAsString()})).reason.empty());
  v1::AnyDetail* const second = wire.add_details();
  second->set_type_url("type.googleapis.com/dak.v1.ErrorDetail");
  second->set_value(DetailBytes());
  EXPECT_EQ(DetailOf(StatusFromRpc({grpc::StatusCode::INTERNAL, "x", wire.SerializeAsString()})).reason,
            "QUOTA_EXCEEDED");
}

TEST(RpcStatusTest, SurvivesATrailerThatIsCutOffAnywhere) {
  const std::string whole = Trailer("type.googleapis.com/dak.v1.ErrorDetail", DetailBytes());
  for (size_t length = 0; length < whole.size(); ++length) {
    const absl::Status status = StatusFromRpc({grpc::StatusCode::NOT_FOUND, "gone", whole.substr(0, length)});
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << length;
    EXPECT_EQ(status.message(), "gone") << length;
  }
}

TEST(RpcStatusTest, CodesThatDontExistBecomeUnknown) {
  v1::HandleReply reply;
  reply.set_code(4711);
  EXPECT_EQ(StatusFromReply(reply).code(), absl::StatusCode::kUnknown);
  reply.set_code(-1);
  EXPECT_EQ(StatusFromReply(reply).code(), absl::StatusCode::kUnknown);
  reply.set_code(0);
  EXPECT_TRUE(StatusFromReply(reply).ok());
}

TEST(RpcStatusTest, APrefixKeepsCodeAndDetail) {
  const absl::Status status = Prefixed("while loading", InvalidField("rows", "0 is too few", "at least 1"));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("while loading: rows"));
  EXPECT_EQ(DetailOf(status).limit, "at least 1");
}

TEST(ReportStatusTest, CutsTextsThatAreTooLong) {
  dak_error error;
  std::memset(&error, 0x7f, sizeof(error));
  const std::string longer(4096, 'x');
  EXPECT_EQ(ReportStatus(InvalidField(longer, longer, longer, longer), &error), DAK_INVALID_ARGUMENT);
  EXPECT_EQ(std::strlen(error.message), sizeof(error.message) - 1);
  EXPECT_EQ(std::strlen(error.field), sizeof(error.field) - 1);
  EXPECT_EQ(std::strlen(error.reason), sizeof(error.reason) - 1);
}

TEST(ReportStatusTest, SuccessClearsTheError) {
  dak_error error;
  std::memset(&error, 0x7f, sizeof(error));
  EXPECT_EQ(ReportStatus(absl::OkStatus(), &error), DAK_OK);
  const auto* const bytes = reinterpret_cast<const char*>(&error);
  EXPECT_THAT(std::string(bytes, sizeof(error)), Each('\0'));
  EXPECT_EQ(ReportStatus(absl::NotFoundError("x"), nullptr), DAK_NOT_FOUND);
}

TEST(CodeNameTest, EveryCodeHasItsCanonicalName) {
  EXPECT_STREQ(dak_code_name(DAK_OK), "OK");
  EXPECT_STREQ(dak_code_name(DAK_RESOURCE_EXHAUSTED), "RESOURCE_EXHAUSTED");
  EXPECT_STREQ(dak_code_name(DAK_UNAUTHENTICATED), "UNAUTHENTICATED");
  EXPECT_STREQ(dak_code_name(static_cast<dak_code>(17)), "UNKNOWN_CODE");
  EXPECT_STREQ(dak_code_name(static_cast<dak_code>(-1)), "UNKNOWN_CODE");
}

struct Versioned {
  size_t struct_size;
  uint64_t known;
};
struct Longer {
  Versioned first;
  uint64_t added;
};

TEST(StructsTest, TakesALongerStructOnlyIfItsUnknownPartIsZero) {
  Longer longer{.first = {.struct_size = sizeof(Longer), .known = 3}, .added = 0};
  Versioned read{};
  ASSERT_TRUE(ReadStruct("options", &longer.first, &read).ok());
  EXPECT_EQ(read.known, 3u);
  longer.added = 1;
  EXPECT_EQ(DetailOf(ReadStruct("options", &longer.first, &read)).field, "options.struct_size");
}

TEST(StructsTest, RefusesSizesThatNobodySet) {
  Versioned given{.struct_size = sizeof(Versioned) - 1, .known = 0};
  Versioned read{};
  EXPECT_EQ(DetailOf(ReadStruct("options", &given, &read)).reason, "STRUCT_SIZE");
  given.struct_size = ~size_t{0};
  EXPECT_EQ(DetailOf(ReadStruct("options", &given, &read)).reason, "STRUCT_SIZE");
  given.struct_size = 0;
  EXPECT_EQ(DetailOf(CheckOutput("info", &given)).reason, "STRUCT_SIZE");
  EXPECT_EQ(DetailOf(ReadStruct<Versioned>("options", nullptr, &read)).reason, "NULL_POINTER");
}

TEST(StructsTest, FillsOnlyWhatItKnowsAndKeepsTheSize) {
  Longer target{.first = {.struct_size = sizeof(Longer), .known = 0}, .added = 9};
  WriteStruct(Versioned{.struct_size = 0, .known = 5}, &target.first);
  EXPECT_EQ(target.first.struct_size, sizeof(Longer));
  EXPECT_EQ(target.first.known, 5u);
  EXPECT_EQ(target.added, 9u);
}

}  // namespace
}  // namespace dak::client

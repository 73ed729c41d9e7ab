// Every way in which a TensorService call is refused: code, reason, field, and that nothing changed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/unit/daemon/test_client.h"
#include "tests/unit/daemon/test_daemon.h"

namespace dak::daemon {
namespace {

using grpc::StatusCode;

class TensorErrorsTest : public testing::Test {
 protected:
  // Sends a request for one good tensor after `spoil` has been at it.
  grpc::Status AllocateSpoilt(const std::function<void(v1::AllocateTensorsRequest&)>& spoil) {
    v1::AllocateTensorsRequest request = session_.AllocateRequest("g", {TestSession::Spec("w", 64, 64)});
    spoil(request);
    v1::AllocateTensorsResponse response;
    return Call(*session_.stubs.tensor, &v1::TensorService::Stub::AllocateTensors, request, &response);
  }

  TestDaemon daemon_;
  TestSession session_{daemon_.options().runtime_dir};
};

TEST_F(TensorErrorsTest, InvalidFieldsOfAllocateAreNamed) {
  using Request = v1::AllocateTensorsRequest;
  struct Case {
    const char* field;
    std::function<void(Request&)> spoil;
  };
  const Case cases[] = {
      {"group", [](Request& r) { r.set_group("a group"); }},
      {"group", [](Request& r) { r.set_group(std::string(129, 'g')); }},
      {"tensors", [](Request& r) { r.clear_tensors(); }},
      {"tensors",
       [](Request& r) {
         for (int i = 0; i < 1024; ++i) *r.add_tensors() = TestSession::Spec("x" + std::to_string(i), 1, 8);
       }},
      {"tensors[0].name", [](Request& r) { r.mutable_tensors(0)->set_name("\n"); }},
      {"tensors[0].data_type", [](Request& r) { r.mutable_tensors(0)->clear_data_type(); }},
      {"tensors[0].data_type", [](Request& r) { r.mutable_tensors(0)->set_data_type(static_cast<v1::DataType>(99)); }},
      {"tensors[0].rows", [](Request& r) { r.mutable_tensors(0)->set_rows(0); }},
      {"tensors[0].rows", [](Request& r) { r.mutable_tensors(0)->set_rows(uint64_t{1} << 31); }},
      {"tensors[0].cols", [](Request& r) { r.mutable_tensors(0)->set_cols(0); }},
      {"tensors[0]",
       [](Request& r) {
         r.mutable_tensors(0)->set_rows((uint64_t{1} << 31) - 1);
         r.mutable_tensors(0)->set_cols((uint64_t{1} << 31) - 1);
       }},
      {"tensors[0].offload_ratio", [](Request& r) { r.mutable_tensors(0)->set_offload_ratio(1.5); }},
      {"tensors[0].remote_tier",
       [](Request& r) {
         r.mutable_tensors(0)->set_offload_ratio(0.5);
         r.mutable_tensors(0)->clear_remote_tier();
       }},
      {"tensors[0].remote_tier",
       [](Request& r) {
         r.mutable_tensors(0)->set_offload_ratio(0.5);
         r.mutable_tensors(0)->set_remote_tier(v1::TIER_HBM);
       }},
      {"tensors[0].tile_rows", [](Request& r) { r.mutable_tensors(0)->set_tile_rows(5000); }},
      {"tensors[0].box_rows", [](Request& r) { r.mutable_tensors(0)->set_box_rows(257); }},
      {"tensors[0].box_cols", [](Request& r) { r.mutable_tensors(0)->set_box_cols(63); }},
      {"tensors[1].rows", [](Request& r) { *r.add_tensors() = TestSession::Spec("v", 0, 1); }},
  };
  for (const Case& one : cases) {
    EXPECT_THAT(AllocateSpoilt(one.spoil), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", one.field));
  }
  EXPECT_EQ(daemon_.DeviceUsage(), TierArray{});
}

TEST_F(TensorErrorsTest, TokenOfNobodyIsUnauthenticatedEverywhere) {
  for (const std::string& token : {std::string(), std::string("short"), std::string(16, 'x')}) {
    v1::AllocateTensorsRequest allocate = session_.AllocateRequest("g", {TestSession::Spec("w", 64, 64)});
    v1::FreeTensorsRequest free;
    v1::PublishGroupRequest publish;
    v1::AttachPublicationRequest attach;
    v1::DetachPublicationRequest detach;
    allocate.set_session_token(token), free.set_session_token(token), publish.set_session_token(token);
    attach.set_session_token(token), detach.set_session_token(token);
    v1::AllocateTensorsResponse allocated;
    v1::FreeTensorsResponse freed;
    v1::PublishGroupResponse published;
    v1::AttachPublicationResponse attached;
    v1::DetachPublicationResponse detached;
    using Stub = v1::TensorService::Stub;
    Stub& stub = *session_.stubs.tensor;
    const auto refused = FailsWith(StatusCode::UNAUTHENTICATED, "UNKNOWN_SESSION", "session_token");
    EXPECT_THAT(Call(stub, &Stub::AllocateTensors, allocate, &allocated), refused);
    EXPECT_THAT(Call(stub, &Stub::FreeTensors, free, &freed), refused);
    EXPECT_THAT(Call(stub, &Stub::PublishGroup, publish, &published), refused);
    EXPECT_THAT(Call(stub, &Stub::AttachPublication, attach, &attached), refused);
    EXPECT_THAT(Call(stub, &Stub::DetachPublication, detach, &detached), refused);
  }
}

TEST_F(TensorErrorsTest, NamesAreUniqueInAGroupOnly) {
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session_.Allocate("g", {TestSession::Spec("w", 64, 64)}, &response), IsOk());
  EXPECT_THAT(session_.Allocate("g", {TestSession::Spec("v", 64, 64), TestSession::Spec("w", 64, 64)}, &response),
              FailsWith(StatusCode::ALREADY_EXISTS, "NAME_TAKEN", "tensors[1].name"));
  EXPECT_THAT(session_.Allocate("h", {TestSession::Spec("v", 64, 64), TestSession::Spec("v", 64, 64)}, &response),
              FailsWith(StatusCode::ALREADY_EXISTS, "NAME_TAKEN", "tensors[1].name"));
  EXPECT_THAT(session_.Allocate("h", {TestSession::Spec("w", 64, 64)}, &response), IsOk());
  EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{4 * kMiB, 0, 0}));
}

TEST_F(TensorErrorsTest, PoolThatIsTooSmallSaysByHowMuch) {
  v1::AllocateTensorsResponse response;
  // 66 MiB of 64; the host part would fit, and must be given back.
  const grpc::Status status = session_.Allocate("g", {TestSession::Spec("w", 67 * 1024, 1024, 1.0 / 67)}, &response);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailIn(status).reason(), "POOL_EXHAUSTED");
  EXPECT_EQ(DetailIn(status).field(), "tensors");
  EXPECT_EQ(DetailIn(status).shortfall_bytes(), 68 * kMiB * 2 - 64 * kMiB - 4 * kMiB);
  EXPECT_EQ(daemon_.DeviceUsage(), TierArray{});
  EXPECT_EQ(daemon_.LedgerUsage(), TierArray{});
}

TEST_F(TensorErrorsTest, QuotaIsKeptWhereThePoolWouldDo) {
  TestSession small(daemon_.options().runtime_dir, "small", {{v1::TIER_HBM, 4 * kMiB}});
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(small.Allocate("g", {TestSession::Spec("w", 1024, 1024)}, &response), IsOk());
  const grpc::Status status = small.Allocate("g", {TestSession::Spec("v", 2048, 1024)}, &response);
  EXPECT_THAT(status, FailsWith(StatusCode::RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", "tensors"));
  EXPECT_EQ(DetailIn(status).shortfall_bytes(), 2 * kMiB);
  EXPECT_EQ(daemon_.DeviceUsage(), (TierArray{2 * kMiB, 0, 0}));
}

TEST_F(TensorErrorsTest, TierThatTheNodeLacks) {
  v1::TensorSpec spec = TestSession::Spec("w", 64, 64, 0.5);
  spec.set_remote_tier(v1::TIER_CXL);
  v1::AllocateTensorsResponse response;
  EXPECT_THAT(session_.Allocate("g", {spec}, &response),
              FailsWith(StatusCode::FAILED_PRECONDITION, "TIER_ABSENT", "tensors[0].remote_tier"));
}

TEST_F(TensorErrorsTest, FreeIsAllOrNothing) {
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session_.Allocate("g", {TestSession::Spec("w", 64, 64)}, &response), IsOk());
  const uint64_t id = response.tensors(0).tensor_id();
  TestSession other(daemon_.options().runtime_dir, "other");
  EXPECT_THAT(session_.Free({id, 999}), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_TENSOR", "tensor_ids[1]"));
  EXPECT_THAT(session_.Free({id, id}), FailsWith(StatusCode::INVALID_ARGUMENT, "DUPLICATE", "tensor_ids[1]"));
  EXPECT_THAT(session_.Free({}), FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "tensor_ids"));
  EXPECT_THAT(session_.Free(std::vector<uint64_t>(1025, id)),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "tensor_ids"));
  EXPECT_THAT(other.Free({id}), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_TENSOR", "tensor_ids[0]"));
  EXPECT_THAT(session_.Free({id}), IsOk());
  EXPECT_THAT(session_.Free({id}), FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_TENSOR", "tensor_ids[0]"));
}

TEST(TensorLimitsTest, TensorsGroupsAndTicketsOfASessionAreBounded) {
  TestDaemon daemon([](DaemonOptions* options) {
    options->limits.max_tensors_per_session = 4;
    options->limits.max_groups_per_session = 2;
    options->limits.max_tickets_per_session = 6;
  });
  TestSession session(daemon.options().runtime_dir);
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session.Allocate("a", {TestSession::Spec("w", 1, 8)}, &response), IsOk());
  ASSERT_THAT(session.Allocate("b", {TestSession::Spec("w", 1, 8)}, &response), IsOk());
  EXPECT_THAT(session.Allocate("c", {TestSession::Spec("w", 1, 8)}, &response),
              FailsWith(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_GROUPS", "group"));
  EXPECT_THAT(
      session.Allocate("a", {TestSession::Spec("x", 1, 8), TestSession::Spec("y", 1, 8), TestSession::Spec("z", 1, 8)},
                       &response),
      FailsWith(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_TENSORS", "tensors"));
  // The control pages' ticket and two segments' are outstanding; one more segment and the next call could need three.
  ASSERT_THAT(session.Allocate("a", {TestSession::Spec("x", 2048, 1024)}, &response), IsOk());
  EXPECT_THAT(session.Allocate("a", {TestSession::Spec("y", 1, 8)}, &response),
              FailsWith(StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_TICKETS", ""));
  ASSERT_EQ(session.connection.Fetch({session.opened.control_ticket()}).reply.code(), 0);
  EXPECT_THAT(session.Allocate("a", {TestSession::Spec("y", 1, 8)}, &response), IsOk());
}

TEST_F(TensorErrorsTest, ListTensorsPagesInOrderOfId) {
  std::vector<v1::TensorSpec> specs;
  for (int i = 0; i < 25; ++i) specs.push_back(TestSession::Spec("w" + std::to_string(i), 1, 8));
  v1::AllocateTensorsResponse response;
  ASSERT_THAT(session_.Allocate("g", specs, &response), IsOk());
  TestSession other(daemon_.options().runtime_dir, "other");
  ASSERT_THAT(other.Allocate("g", {TestSession::Spec("v", 1, 8)}, &response), IsOk());
  ASSERT_THAT(session_.Allocate("p", {TestSession::Spec("v", 1, 8)}, &response), IsOk());
  ASSERT_THAT(session_.Publish("p", "pub", "f"), IsOk());

  auto list_all = [&](uint64_t session_id, uint32_t page_size) {
    std::vector<v1::Tensor> all;
    v1::ListTensorsRequest request;
    request.set_session_id(session_id);
    request.set_page_size(page_size);
    do {
      v1::ListTensorsResponse page;
      EXPECT_THAT(Call(*session_.stubs.tensor, &v1::TensorService::Stub::ListTensors, request, &page), IsOk());
      EXPECT_LE(page.tensors_size(), page_size == 0 ? 100 : static_cast<int>(page_size));
      all.insert(all.end(), page.tensors().begin(), page.tensors().end());
      request.set_page_token(page.next_page_token());
    } while (request.page_token() != 0);
    return all;
  };
  for (const uint32_t page_size : {0u, 1u, 7u, 27u, 1000u}) {
    const std::vector<v1::Tensor> all = list_all(0, page_size);
    ASSERT_EQ(all.size(), 27u);
    for (size_t i = 1; i < all.size(); ++i) EXPECT_LT(all[i - 1].tensor_id(), all[i].tensor_id());
    EXPECT_EQ(all[25].session_id(), other.id());
    EXPECT_EQ(all[26].session_id(), 0u);
    EXPECT_EQ(all[26].group(), "pub");
    EXPECT_TRUE(all[0].parts(0).tensor_map().empty());
  }
  EXPECT_EQ(list_all(session_.id(), 10).size(), 25u);

  v1::ListTensorsRequest request;
  v1::ListTensorsResponse page;
  request.set_page_size(1001);
  EXPECT_THAT(Call(*session_.stubs.tensor, &v1::TensorService::Stub::ListTensors, request, &page),
              FailsWith(StatusCode::INVALID_ARGUMENT, "OUT_OF_RANGE", "page_size"));
  request.set_page_size(0);
  request.set_session_id(999);
  EXPECT_THAT(Call(*session_.stubs.tensor, &v1::TensorService::Stub::ListTensors, request, &page),
              FailsWith(StatusCode::NOT_FOUND, "UNKNOWN_SESSION", "session_id"));
}

}  // namespace
}  // namespace dak::daemon

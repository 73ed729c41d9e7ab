#include "tests/unit/daemon/migration_client.h"

#include <gtest/gtest.h>

#include <thread>
#include <utility>

namespace dak::daemon {
namespace {

std::vector<std::byte> RowOf(const v1::Tensor& tensor, uint64_t row) {
  std::vector<std::byte> bytes(tensor.cols() * 2);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(row * 131 + i * 7 + tensor.tensor_id() + (row >> 8));
  }
  return bytes;
}

grpc::Status Drain(std::unique_ptr<grpc::ClientReader<v1::MigrationProgress>> reader,
                   std::vector<v1::MigrationProgress>* progress) {
  v1::MigrationProgress message;
  while (reader->Read(&message)) {
    if (progress != nullptr) progress->push_back(message);
  }
  return reader->Finish();
}

void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
}

}  // namespace

MigrationClient::MigrationClient(const std::string& runtime_dir)
    : session(runtime_dir), migration(v1::MigrationService::NewStub(session.stubs.channel)) {
  ReceivedReply pages = session.connection.Fetch({session.opened.control_ticket()});
  auto page = device_.MapSharedPage(std::move(pages.fds[0]), v1::kControlPageBytes, Access::kReadOnly);
  EXPECT_TRUE(page.ok()) << page.status();
  control_page_ = *std::move(page);
}

const v1::ControlPage& MigrationClient::control_page() const {
  return *static_cast<const v1::ControlPage*>(control_page_->host_pointer());
}

grpc::Status MigrationClient::Allocate(const std::string& group, const std::vector<v1::TensorSpec>& specs) {
  v1::AllocateTensorsResponse response;
  grpc::Status status = session.Allocate(group, specs, &response);
  if (!status.ok()) return status;
  MapGrants(response.segments());
  for (const v1::Tensor& tensor : response.tensors()) tensors_[tensor.name()] = tensor;
  return status;
}

void MigrationClient::MapGrants(const google::protobuf::RepeatedPtrField<v1::SegmentGrant>& grants) {
  for (const v1::SegmentGrant& grant : grants) {
    ReceivedReply reply = session.connection.Fetch({grant.ticket()});
    ASSERT_EQ(reply.fds.size(), 1u) << reply.reply.message();
    auto mapping =
        device_.Map({std::move(reply.fds[0]), HandleKind::kMemfd, static_cast<Tier>(grant.tier()), grant.bytes()},
                    Access::kReadWrite);
    ASSERT_TRUE(mapping.ok()) << mapping.status();
    mappings_[grant.segment_id()] = *std::move(mapping);
  }
}

void MigrationClient::Fill(const v1::Tensor& tensor) {
  const uint64_t row_bytes = tensor.cols() * 2;
  for (const v1::TensorPart& part : tensor.parts()) {
    for (uint64_t row = 0; row < part.rows(); ++row) {
      ASSERT_TRUE(device_
                      .Upload(*mappings_.at(part.segment_id()), part.offset_bytes() + row * row_bytes,
                              RowOf(tensor, part.first_row() + row))
                      .ok());
    }
  }
}

void MigrationClient::ExpectFilled(const v1::Tensor& tensor, uint64_t rows) {
  const uint64_t row_bytes = tensor.cols() * 2;
  std::vector<std::byte> found(row_bytes);
  for (const v1::TensorPart& part : tensor.parts()) {
    for (uint64_t row = 0; row < part.rows(); ++row) {
      if (rows != 0 && part.first_row() + row >= rows) return;
      ASSERT_TRUE(
          device_
              .Download(*mappings_.at(part.segment_id()), part.offset_bytes() + row * row_bytes, absl::MakeSpan(found))
              .ok());
      ASSERT_EQ(found, RowOf(tensor, part.first_row() + row)) << "row " << part.first_row() + row;
    }
  }
}

v1::TensorMove MigrationClient::Move(uint64_t tensor_id, double ratio) const {
  v1::TensorMove move;
  move.set_tensor_id(tensor_id);
  move.set_offload_ratio(ratio);
  return move;
}

v1::PrepareMoveRequest MigrationClient::PrepareRequest(const std::vector<v1::TensorMove>& moves) const {
  v1::PrepareMoveRequest request;
  request.set_session_token(session.token());
  for (const v1::TensorMove& move : moves) *request.add_moves() = move;
  return request;
}

grpc::Status MigrationClient::PrepareMove(const std::vector<v1::TensorMove>& moves, v1::PrepareMoveResponse* response) {
  response->Clear();
  return Call(*migration, &v1::MigrationService::Stub::PrepareMove, PrepareRequest(moves), response);
}

grpc::Status MigrationClient::CommitMove(uint64_t move_id, v1::CommitMoveResponse* response) {
  v1::CommitMoveRequest request;
  v1::CommitMoveResponse unused;
  request.set_session_token(session.token());
  request.set_move_id(move_id);
  return Call(*migration, &v1::MigrationService::Stub::CommitMove, request, response == nullptr ? &unused : response);
}

grpc::Status MigrationClient::AbortMove(uint64_t move_id) {
  v1::AbortMoveRequest request;
  v1::AbortMoveResponse response;
  request.set_session_token(session.token());
  request.set_move_id(move_id);
  return Call(*migration, &v1::MigrationService::Stub::AbortMove, request, &response);
}

void MigrationClient::MoveAll(v1::Tensor& tensor, double ratio) {
  v1::PrepareMoveResponse response;
  const grpc::Status prepared = PrepareMove({Move(tensor.tensor_id(), ratio)}, &response);
  ASSERT_TRUE(prepared.ok()) << prepared.error_message();
  MapGrants(response.segments());
  ASSERT_TRUE(CommitMove(response.move_id()).ok());
  tensor = response.tensors(0);
}

grpc::Status MigrationClient::Suspend() {
  v1::SuspendSessionRequest request;
  v1::SuspendSessionResponse response;
  request.set_session_token(session.token());
  return Call(*migration, &v1::MigrationService::Stub::SuspendSession, request, &response);
}

grpc::Status MigrationClient::Resume(v1::ResumeSessionResponse* response) {
  v1::ResumeSessionRequest request;
  v1::ResumeSessionResponse unused;
  request.set_session_token(session.token());
  return Call(*migration, &v1::MigrationService::Stub::ResumeSession, request,
              response == nullptr ? &unused : response);
}

grpc::Status MigrationClient::TakeExchange(v1::TakeExchangeResponse* response) {
  v1::TakeExchangeRequest request;
  request.set_session_token(session.token());
  return Call(*migration, &v1::MigrationService::Stub::TakeExchange, request, response);
}

grpc::Status MigrationClient::FinishExchange(uint64_t exchange_id, int code, const std::string& message) {
  v1::FinishExchangeRequest request;
  v1::FinishExchangeResponse response;
  request.set_session_token(session.token());
  request.set_exchange_id(exchange_id);
  request.set_code(code);
  request.set_message(message);
  return Call(*migration, &v1::MigrationService::Stub::FinishExchange, request, &response);
}

v1::TakeExchangeResponse MigrationClient::AwaitExchange() {
  const uint64_t& announced = control_page().links[0].exchange;
  while (__atomic_load_n(&announced, __ATOMIC_RELAXED) == seen_exchange_) std::this_thread::yield();
  seen_exchange_ = __atomic_load_n(&announced, __ATOMIC_RELAXED);
  v1::TakeExchangeResponse exchange;
  const grpc::Status taken = TakeExchange(&exchange);
  EXPECT_TRUE(taken.ok()) << taken.error_message();
  return exchange;
}

void MigrationClient::Replace(const v1::TakeExchangeResponse& exchange) {
  for (const v1::SegmentGrant& grant : exchange.segments()) {
    ReceivedReply reply = session.connection.Fetch({grant.ticket()});
    // The new memory, and the old to go back to.
    ASSERT_EQ(reply.fds.size(), 2u) << reply.reply.message();
    const absl::Status replaced =
        device_.Replace(*mappings_.at(grant.segment_id()),
                        {std::move(reply.fds[0]), HandleKind::kMemfd, static_cast<Tier>(grant.tier()), grant.bytes()});
    ASSERT_TRUE(replaced.ok()) << replaced;
  }
}

void MigrationClient::Serve() {
  const v1::TakeExchangeResponse exchange = AwaitExchange();
  Replace(exchange);
  const grpc::Status finished = FinishExchange(exchange.exchange_id());
  EXPECT_TRUE(finished.ok()) << finished.error_message();
}

void MigrationClient::ServeUntil(const std::atomic<bool>& done) {
  while (!done) {
    if (__atomic_load_n(&control_page().links[0].exchange, __ATOMIC_RELAXED) != seen_exchange_) Serve();
    std::this_thread::yield();
  }
}

grpc::Status MigrationClient::Demote(std::vector<v1::MigrationProgress>* progress) {
  grpc::ClientContext context;
  SetDeadline(context);
  v1::DemoteSessionRequest request;
  request.set_session_id(session.id());
  return Drain(migration->DemoteSession(&context, request), progress);
}

grpc::Status MigrationClient::Promote(std::vector<v1::MigrationProgress>* progress) {
  grpc::ClientContext context;
  SetDeadline(context);
  v1::PromoteSessionRequest request;
  request.set_session_id(session.id());
  return Drain(migration->PromoteSession(&context, request), progress);
}

std::vector<v1::Event> MigrationClient::Events(uint32_t count) {
  grpc::ClientContext context;
  SetDeadline(context);
  v1::WatchEventsRequest request;
  request.set_replay(count);
  auto reader = session.stubs.node->WatchEvents(&context, request);
  std::vector<v1::Event> events(count);
  for (v1::Event& event : events) {
    if (!reader->Read(&event)) break;
  }
  context.TryCancel();
  return events;
}

}  // namespace dak::daemon

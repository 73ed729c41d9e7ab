#include "daemon/rpc/migration_service.h"

#include "absl/strings/str_cat.h"
#include "allocator/base/status_macros.h"
#include "daemon/rpc/convert.h"
#include "daemon/session/layout.h"

namespace dak::daemon {
namespace {

constexpr uint64_t kProgressIntervalNs = 100'000'000;

absl::StatusOr<TensorMoveSpec> MoveFrom(const std::string& field, const v1::TensorMove& message) {
  TensorMoveSpec move = {.tensor_id = message.tensor_id(),
                         .offload_ratio = message.offload_ratio(),
                         .remote_tier = std::nullopt,
                         .tile_rows = message.tile_rows(),
                         .written = message.written(),
                         .stable_rows = message.stable_rows()};
  if (!(move.offload_ratio >= 0 && move.offload_ratio <= 1)) {
    return InvalidField(absl::StrCat(field, ".offload_ratio"), absl::StrCat(move.offload_ratio, " is out of range"),
                        "0 to 1");
  }
  if (move.tile_rows > kMaxTileRows) {
    return InvalidField(absl::StrCat(field, ".tile_rows"), absl::StrCat(move.tile_rows, " is out of range"),
                        absl::StrCat("1 to ", kMaxTileRows, ", or 0 for ", kDefaultTileRows));
  }
  if (message.remote_tier() != v1::TIER_UNSPECIFIED) {
    const std::string tier_field = absl::StrCat(field, ".remote_tier");
    DAK_ASSIGN_OR_RETURN(move.remote_tier, TierFrom(tier_field, message.remote_tier()));
    if (!IsRemote(*move.remote_tier)) return InvalidField(tier_field, "isn't remote", "TIER_HOST or TIER_CXL");
  }
  return move;
}

void FillCopied(const CopyStats& stats, google::protobuf::RepeatedPtrField<v1::CopiedBytes>* out) {
  for (const Tier from : kAllTiers) {
    for (const Tier to : kAllTiers) {
      const uint64_t bytes = stats.bytes[TierIndex(from)][TierIndex(to)];
      if (bytes == 0) continue;
      v1::CopiedBytes* copied = out->Add();
      copied->set_from(static_cast<v1::Tier>(from));
      copied->set_to(static_cast<v1::Tier>(to));
      copied->set_bytes(bytes);
    }
  }
}

template <typename Response>
void FillReleased(const FreeResult& result, Response* response) {
  for (const uint64_t id : result.segment_ids) response->add_released_segment_ids(id);
  FillTierBytes(result.bytes, false, response->mutable_released());
}

// What the client says of an exchange, as its daemon passes it on.
absl::Status OutcomeFrom(const v1::FinishExchangeRequest& request) {
  if (request.code() == 0) return absl::OkStatus();
  return WithDetail(absl::Status(static_cast<absl::StatusCode>(request.code()),
                                 absl::StrCat("the session's process kept its memory: ", request.message())),
                    {.reason = "DRIVER_ERROR"});
}

}  // namespace

absl::Status MigrationServiceImpl::Prepare(const grpc::ServerContext& context, const Peer& caller,
                                           const v1::PrepareMoveRequest& request, v1::PrepareMoveResponse* response) {
  DAK_ASSIGN_OR_RETURN(const SessionPtr session, service_->sessions->Authenticate(request.session_token(), caller));
  if (request.moves_size() < 1 || request.moves_size() > static_cast<int>(kMaxTensorsPerRequest)) {
    return InvalidField("moves", absl::StrCat("has ", request.moves_size(), " entries"),
                        absl::StrCat("1 to ", kMaxTensorsPerRequest));
  }
  std::vector<TensorMoveSpec> moves;
  for (int i = 0; i < request.moves_size(); ++i) {
    DAK_ASSIGN_OR_RETURN(TensorMoveSpec move, MoveFrom(absl::StrCat("moves[", i, "]"), request.moves(i)));
    moves.push_back(move);
  }
  DAK_ASSIGN_OR_RETURN(const MoveResult result, session->PrepareMove(moves, [&] { return context.IsCancelled(); }));
  response->set_move_id(result.move_id);
  for (const TensorView& view : result.tensors) FillTensor(view, response->add_tensors());
  for (const Grant& grant : result.grants) FillGrant(grant, response->add_segments());
  FillCopied(result.copied, response->mutable_copied());
  response->set_copy_ns(result.copied.duration_ns);
  return absl::OkStatus();
}

grpc::Status MigrationServiceImpl::PrepareMove(grpc::ServerContext* context, const v1::PrepareMoveRequest* request,
                                               v1::PrepareMoveResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.MigrationService/PrepareMove",
                    [&](const Peer& caller) { return Prepare(*context, caller, *request, response); });
}

grpc::Status MigrationServiceImpl::CommitMove(grpc::ServerContext* context, const v1::CommitMoveRequest* request,
                                              v1::CommitMoveResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.MigrationService/CommitMove", [&](const Peer& caller) -> absl::Status {
    DAK_ASSIGN_OR_RETURN(const SessionPtr session, service_->sessions->Authenticate(request->session_token(), caller));
    if (request->move_id() == 0) return InvalidField("move_id", "is 0", "what PrepareMove answered");
    DAK_ASSIGN_OR_RETURN(const FreeResult result, session->CommitMove(request->move_id()));
    FillReleased(result, response);
    return absl::OkStatus();
  });
}

grpc::Status MigrationServiceImpl::AbortMove(grpc::ServerContext* context, const v1::AbortMoveRequest* request,
                                             v1::AbortMoveResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.MigrationService/AbortMove", [&](const Peer& caller) -> absl::Status {
    DAK_ASSIGN_OR_RETURN(const SessionPtr session, service_->sessions->Authenticate(request->session_token(), caller));
    DAK_ASSIGN_OR_RETURN(const FreeResult result, session->AbortMove(request->move_id()));
    FillReleased(result, response);
    return absl::OkStatus();
  });
}

grpc::Status MigrationServiceImpl::SuspendSession(grpc::ServerContext* context,
                                                  const v1::SuspendSessionRequest* request,
                                                  v1::SuspendSessionResponse*) {
  return HandleCall(*service_, *context, "dak.v1.MigrationService/SuspendSession",
                    [&](const Peer& caller) -> absl::Status {
                      DAK_ASSIGN_OR_RETURN(const SessionPtr session,
                                           service_->sessions->Authenticate(request->session_token(), caller));
                      return session->Suspend();
                    });
}

grpc::Status MigrationServiceImpl::ResumeSession(grpc::ServerContext* context, const v1::ResumeSessionRequest* request,
                                                 v1::ResumeSessionResponse* response) {
  return HandleCall(
      *service_, *context, "dak.v1.MigrationService/ResumeSession", [&](const Peer& caller) -> absl::Status {
        DAK_ASSIGN_OR_RETURN(const SessionPtr session,
                             service_->sessions->Authenticate(request->session_token(), caller));
        DAK_ASSIGN_OR_RETURN(const MigrationResult result, session->Resume([&] { return context->IsCancelled(); }));
        FillCopied(result.copied, response->mutable_copied());
        response->set_copy_ns(result.copied.duration_ns);
        return absl::OkStatus();
      });
}

grpc::Status MigrationServiceImpl::TakeExchange(grpc::ServerContext* context, const v1::TakeExchangeRequest* request,
                                                v1::TakeExchangeResponse* response) {
  return HandleCall(*service_, *context, "dak.v1.MigrationService/TakeExchange",
                    [&](const Peer& caller) -> absl::Status {
                      DAK_ASSIGN_OR_RETURN(const SessionPtr session,
                                           service_->sessions->Authenticate(request->session_token(), caller));
                      DAK_ASSIGN_OR_RETURN(const Exchange exchange, session->TakeExchange());
                      response->set_exchange_id(exchange.id);
                      for (const Grant& grant : exchange.grants) FillGrant(grant, response->add_segments());
                      return absl::OkStatus();
                    });
}

grpc::Status MigrationServiceImpl::FinishExchange(grpc::ServerContext* context,
                                                  const v1::FinishExchangeRequest* request,
                                                  v1::FinishExchangeResponse*) {
  return HandleCall(*service_, *context, "dak.v1.MigrationService/FinishExchange",
                    [&](const Peer& caller) -> absl::Status {
                      DAK_ASSIGN_OR_RETURN(const SessionPtr session,
                                           service_->sessions->Authenticate(request->session_token(), caller));
                      return session->FinishExchange(request->exchange_id(), OutcomeFrom(*request));
                    });
}

absl::Status MigrationServiceImpl::Migrate(const grpc::ServerContext& context, const Peer& caller, uint64_t session_id,
                                           bool demote, grpc::ServerWriter<v1::MigrationProgress>* writer) {
  const SessionPtr session = service_->sessions->Find(session_id);
  if (session == nullptr) {
    return WithDetail(absl::NotFoundError(absl::StrCat("session_id: there is no session ", session_id)),
                      {.field = "session_id", .reason = "UNKNOWN_SESSION"});
  }
  if (caller.uid != 0 && caller.uid != session->identity().uid) {
    return WithDetail(absl::PermissionDeniedError("session_id: it is another user's session"),
                      {.field = "session_id", .reason = "NOT_OWNER"});
  }
  const uint64_t begin_ns = MonotonicNs();
  uint64_t told_ns = 0;
  v1::MigrationProgress message;
  message.set_session_id(session_id);
  const auto progress = [&](uint64_t done_bytes, uint64_t total_bytes) {
    const uint64_t now_ns = MonotonicNs();
    message.set_total_bytes(total_bytes);
    message.set_done_bytes(done_bytes);
    message.set_elapsed_ns(now_ns - begin_ns);
    const bool is_last = done_bytes == total_bytes;
    if (told_ns != 0 && !is_last && now_ns - told_ns < kProgressIntervalNs) return;
    told_ns = now_ns;
    writer->Write(message);  // a reader that has gone shows as a cancelled call
  };
  const auto cancelled = [&] { return context.IsCancelled(); };
  DAK_ASSIGN_OR_RETURN(const MigrationResult result,
                       demote ? session->Demote(cancelled, progress) : session->Promote(cancelled, progress));
  message.set_elapsed_ns(MonotonicNs() - begin_ns);
  message.set_finished(true);
  message.set_segment_count(result.segment_count);
  FillCopied(result.copied, message.mutable_copied());
  message.set_copy_ns(result.copied.duration_ns);
  message.set_hbm_free_before_bytes(result.hbm_free_before_bytes);
  message.set_hbm_free_after_bytes(result.hbm_free_after_bytes);
  writer->Write(message);
  return absl::OkStatus();
}

grpc::Status MigrationServiceImpl::DemoteSession(grpc::ServerContext* context, const v1::DemoteSessionRequest* request,
                                                 grpc::ServerWriter<v1::MigrationProgress>* writer) {
  return HandleCall(*service_, *context, "dak.v1.MigrationService/DemoteSession",
                    [&](const Peer& caller) { return Migrate(*context, caller, request->session_id(), true, writer); });
}

grpc::Status MigrationServiceImpl::PromoteSession(grpc::ServerContext* context,
                                                  const v1::PromoteSessionRequest* request,
                                                  grpc::ServerWriter<v1::MigrationProgress>* writer) {
  return HandleCall(*service_, *context, "dak.v1.MigrationService/PromoteSession", [&](const Peer& caller) {
    return Migrate(*context, caller, request->session_id(), false, writer);
  });
}

}  // namespace dak::daemon

// The fake daemon's moves and suspensions: it places and grants, and copies nothing.
#include "tests/unit/client/fake_daemon_moves.h"

namespace dak::testing {

grpc::Status FakeDaemon::Moves::PrepareMove(grpc::ServerContext*, const v1::PrepareMoveRequest* request,
                                            v1::PrepareMoveResponse* response) {
  return daemon_->Handle("PrepareMove", [&] {
    v1::AllocateTensorsResponse placed;
    for (const v1::TensorMove& move : request->moves()) {
      v1::Tensor next = daemon_->tensors_.at(move.tensor_id());
      next.clear_parts();
      v1::TensorSpec spec;
      spec.set_rows(next.rows());
      spec.set_offload_ratio(move.offload_ratio());
      spec.set_remote_tier(v1::TIER_HOST);
      daemon_->Place(spec, &next, &placed);
      daemon_->moving_[next.tensor_id()] = next;
      *response->add_tensors() = next;
    }
    *response->mutable_segments() = placed.segments();
    response->set_move_id(kMoveId);
    return grpc::Status::OK;
  });
}

grpc::Status FakeDaemon::Moves::CommitMove(grpc::ServerContext*, const v1::CommitMoveRequest*,
                                           v1::CommitMoveResponse*) {
  return daemon_->Handle("CommitMove", [&] {
    for (auto& [id, next] : daemon_->moving_) daemon_->tensors_[id] = next;
    daemon_->moving_.clear();
    daemon_->ReleaseEmptySegments();
    return grpc::Status::OK;
  });
}

grpc::Status FakeDaemon::Moves::AbortMove(grpc::ServerContext*, const v1::AbortMoveRequest*, v1::AbortMoveResponse*) {
  return daemon_->Handle("AbortMove", [&]() -> grpc::Status {
    if (daemon_->moving_.empty()) return {grpc::StatusCode::NOT_FOUND, "there is no move"};
    daemon_->moving_.clear();
    daemon_->ReleaseEmptySegments();
    return grpc::Status::OK;
  });
}

grpc::Status FakeDaemon::Moves::SuspendSession(grpc::ServerContext*, const v1::SuspendSessionRequest*,
                                               v1::SuspendSessionResponse*) {
  return daemon_->Handle("SuspendSession", [] { return grpc::Status::OK; });
}

grpc::Status FakeDaemon::Moves::ResumeSession(grpc::ServerContext*, const v1::ResumeSessionRequest*,
                                              v1::ResumeSessionResponse*) {
  return daemon_->Handle("ResumeSession", [] { return grpc::Status::OK; });
}

}  // namespace dak::testing

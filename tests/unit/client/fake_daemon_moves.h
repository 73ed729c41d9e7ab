// The fake daemon's MigrationService. For fake_daemon*.cc only.
#ifndef DAK_TESTS_UNIT_CLIENT_FAKE_DAEMON_MOVES_H_
#define DAK_TESTS_UNIT_CLIENT_FAKE_DAEMON_MOVES_H_

#include "dak/v1/migration.grpc.pb.h"
#include "tests/unit/client/fake_daemon.h"

namespace dak::testing {

class FakeDaemon::Moves final : public v1::MigrationService::Service {
 public:
  static constexpr uint64_t kMoveId = 3;
  explicit Moves(FakeDaemon* daemon) : daemon_(daemon) {}
  grpc::Status PrepareMove(grpc::ServerContext*, const v1::PrepareMoveRequest* request,
                           v1::PrepareMoveResponse* response) override;
  grpc::Status CommitMove(grpc::ServerContext*, const v1::CommitMoveRequest*, v1::CommitMoveResponse*) override;
  grpc::Status AbortMove(grpc::ServerContext*, const v1::AbortMoveRequest*, v1::AbortMoveResponse*) override;
  grpc::Status SuspendSession(grpc::ServerContext*, const v1::SuspendSessionRequest*,
                              v1::SuspendSessionResponse*) override;
  grpc::Status ResumeSession(grpc::ServerContext*, const v1::ResumeSessionRequest*,
                             v1::ResumeSessionResponse*) override;

 private:
  FakeDaemon* daemon_;
};

}  // namespace dak::testing

#endif  // DAK_TESTS_UNIT_CLIENT_FAKE_DAEMON_MOVES_H_

// dak.v1.MigrationService: validates and hands over to the session.
#ifndef DAK_DAEMON_RPC_MIGRATION_SERVICE_H_
#define DAK_DAEMON_RPC_MIGRATION_SERVICE_H_

#include "daemon/rpc/call.h"
#include "dak/v1/migration.grpc.pb.h"

namespace dak::daemon {

class MigrationServiceImpl final : public v1::MigrationService::Service {
 public:
  explicit MigrationServiceImpl(const ServiceContext* service) : service_(service) {}

  grpc::Status PrepareMove(grpc::ServerContext* context, const v1::PrepareMoveRequest* request,
                           v1::PrepareMoveResponse* response) override;
  grpc::Status CommitMove(grpc::ServerContext* context, const v1::CommitMoveRequest* request,
                          v1::CommitMoveResponse* response) override;
  grpc::Status AbortMove(grpc::ServerContext* context, const v1::AbortMoveRequest* request,
                         v1::AbortMoveResponse* response) override;
  grpc::Status SuspendSession(grpc::ServerContext* context, const v1::SuspendSessionRequest* request,
                              v1::SuspendSessionResponse* response) override;
  grpc::Status ResumeSession(grpc::ServerContext* context, const v1::ResumeSessionRequest* request,
                             v1::ResumeSessionResponse* response) override;
  grpc::Status TakeExchange(grpc::ServerContext* context, const v1::TakeExchangeRequest* request,
                            v1::TakeExchangeResponse* response) override;
  grpc::Status FinishExchange(grpc::ServerContext* context, const v1::FinishExchangeRequest* request,
                              v1::FinishExchangeResponse* response) override;
  grpc::Status DemoteSession(grpc::ServerContext* context, const v1::DemoteSessionRequest* request,
                             grpc::ServerWriter<v1::MigrationProgress>* writer) override;
  grpc::Status PromoteSession(grpc::ServerContext* context, const v1::PromoteSessionRequest* request,
                              grpc::ServerWriter<v1::MigrationProgress>* writer) override;

 private:
  absl::Status Prepare(const grpc::ServerContext& context, const Peer& caller, const v1::PrepareMoveRequest& request,
                       v1::PrepareMoveResponse* response);
  absl::Status Migrate(const grpc::ServerContext& context, const Peer& caller, uint64_t session_id, bool demote,
                       grpc::ServerWriter<v1::MigrationProgress>* writer);

  const ServiceContext* const service_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_MIGRATION_SERVICE_H_

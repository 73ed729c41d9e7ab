// dak.v1.SessionService: validates and hands over to the SessionManager.
#ifndef DAK_DAEMON_RPC_SESSION_SERVICE_H_
#define DAK_DAEMON_RPC_SESSION_SERVICE_H_

#include "daemon/rpc/call.h"
#include "dak/v1/session.grpc.pb.h"

namespace dak::daemon {

class SessionServiceImpl final : public v1::SessionService::Service {
 public:
  explicit SessionServiceImpl(const ServiceContext* service) : service_(service) {}

  grpc::Status OpenSession(grpc::ServerContext* context, const v1::OpenSessionRequest* request,
                           v1::OpenSessionResponse* response) override;
  grpc::Status KeepSession(grpc::ServerContext* context, const v1::KeepSessionRequest* request,
                           v1::KeepSessionResponse* response) override;
  grpc::Status CloseSession(grpc::ServerContext* context, const v1::CloseSessionRequest* request,
                            v1::CloseSessionResponse* response) override;
  grpc::Status ListSessions(grpc::ServerContext* context, const v1::ListSessionsRequest* request,
                            v1::ListSessionsResponse* response) override;

 private:
  absl::Status Open(const Peer& caller, const v1::OpenSessionRequest& request, v1::OpenSessionResponse* response);
  absl::StatusOr<TierArray> QuotasFrom(const v1::OpenSessionRequest& request) const;
  void FillSession(const Session& session, v1::SessionInfo* info) const;

  const ServiceContext* const service_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_SESSION_SERVICE_H_

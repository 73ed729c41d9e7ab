// dak.v1.NodeService: pools, quotas, congestion; WatchEvents is in watch_events.h.
#ifndef DAK_DAEMON_RPC_NODE_SERVICE_H_
#define DAK_DAEMON_RPC_NODE_SERVICE_H_

#include "daemon/rpc/call.h"
#include "dak/v1/node.grpc.pb.h"

namespace dak::daemon {

class NodeServiceImpl final : public v1::NodeService::Service {
 public:
  explicit NodeServiceImpl(const ServiceContext* service) : service_(service) {}

  grpc::Status GetNode(grpc::ServerContext* context, const v1::GetNodeRequest* request,
                       v1::GetNodeResponse* response) override;
  grpc::Status ListPools(grpc::ServerContext* context, const v1::ListPoolsRequest* request,
                         v1::ListPoolsResponse* response) override;
  grpc::Status GetCongestion(grpc::ServerContext* context, const v1::GetCongestionRequest* request,
                             v1::GetCongestionResponse* response) override;
  grpc::Status GetQuotas(grpc::ServerContext* context, const v1::GetQuotasRequest* request,
                         v1::GetQuotasResponse* response) override;
  grpc::Status SetQuota(grpc::ServerContext* context, const v1::SetQuotaRequest* request,
                        v1::SetQuotaResponse* response) override;
  grpc::Status WatchEvents(grpc::ServerContext* context, const v1::WatchEventsRequest* request,
                           grpc::ServerWriter<v1::Event>* writer) override;

 private:
  absl::Status Set(const Peer& caller, const v1::SetQuotaRequest& request, v1::SetQuotaResponse* response);

  const ServiceContext* const service_;
};

// Holes and segments of the whole node.
PlacementStats NodePlacement(const ServiceContext& service);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_NODE_SERVICE_H_

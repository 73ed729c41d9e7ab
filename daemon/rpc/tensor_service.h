// dak.v1.TensorService: validates and hands over to the session that the token proves.
#ifndef DAK_DAEMON_RPC_TENSOR_SERVICE_H_
#define DAK_DAEMON_RPC_TENSOR_SERVICE_H_

#include "daemon/rpc/call.h"
#include "dak/v1/tensor.grpc.pb.h"

namespace dak::daemon {

class TensorServiceImpl final : public v1::TensorService::Service {
 public:
  explicit TensorServiceImpl(const ServiceContext* service) : service_(service) {}

  grpc::Status AllocateTensors(grpc::ServerContext* context, const v1::AllocateTensorsRequest* request,
                               v1::AllocateTensorsResponse* response) override;
  grpc::Status FreeTensors(grpc::ServerContext* context, const v1::FreeTensorsRequest* request,
                           v1::FreeTensorsResponse* response) override;
  grpc::Status PublishGroup(grpc::ServerContext* context, const v1::PublishGroupRequest* request,
                            v1::PublishGroupResponse* response) override;
  grpc::Status AttachPublication(grpc::ServerContext* context, const v1::AttachPublicationRequest* request,
                                 v1::AttachPublicationResponse* response) override;
  grpc::Status DetachPublication(grpc::ServerContext* context, const v1::DetachPublicationRequest* request,
                                 v1::DetachPublicationResponse* response) override;
  grpc::Status WithdrawPublication(grpc::ServerContext* context, const v1::WithdrawPublicationRequest* request,
                                   v1::WithdrawPublicationResponse* response) override;
  grpc::Status ListTensors(grpc::ServerContext* context, const v1::ListTensorsRequest* request,
                           v1::ListTensorsResponse* response) override;
  grpc::Status ListPublications(grpc::ServerContext* context, const v1::ListPublicationsRequest* request,
                                v1::ListPublicationsResponse* response) override;

 private:
  absl::Status Allocate(const Peer& caller, const v1::AllocateTensorsRequest& request,
                        v1::AllocateTensorsResponse* response);
  absl::Status Free(const Peer& caller, const v1::FreeTensorsRequest& request, v1::FreeTensorsResponse* response);
  absl::Status Publish(const Peer& caller, const v1::PublishGroupRequest& request, v1::PublishGroupResponse* response);
  absl::Status Attach(const Peer& caller, const v1::AttachPublicationRequest& request,
                      v1::AttachPublicationResponse* response);
  absl::Status List(const v1::ListTensorsRequest& request, v1::ListTensorsResponse* response);

  const ServiceContext* const service_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_TENSOR_SERVICE_H_

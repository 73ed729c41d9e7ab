// dak.v1.PlanService: plans on the node's profile.
#ifndef DAK_DAEMON_RPC_PLAN_SERVICE_H_
#define DAK_DAEMON_RPC_PLAN_SERVICE_H_

#include "daemon/rpc/call.h"
#include "dak/v1/plan.grpc.pb.h"

namespace dak::daemon {

class PlanServiceImpl final : public v1::PlanService::Service {
 public:
  explicit PlanServiceImpl(const ServiceContext* service) : service_(service) {}

  grpc::Status PlanPass(grpc::ServerContext* context, const v1::PlanPassRequest* request, v1::Plan* response) override;
  grpc::Status GetPlan(grpc::ServerContext* context, const v1::GetPlanRequest* request, v1::Plan* response) override;
  grpc::Status GetProfile(grpc::ServerContext* context, const v1::GetProfileRequest* request,
                          v1::Profile* response) override;

 private:
  absl::Status Plan(const Peer& caller, const v1::PlanPassRequest& request, v1::Plan* response);

  const ServiceContext* const service_;
};

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_PLAN_SERVICE_H_

#include "daemon/rpc/health_service.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "daemon/rpc/call.h"

namespace dak::daemon {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

grpc::Status HealthServiceImpl::Check(grpc::ServerContext*, const HealthCheckRequest* request,
                                      HealthCheckResponse* response) {
  if (!request->service().empty()) {
    return ToGrpcStatus(WithDetail(absl::NotFoundError(absl::StrCat("service: there is no ", request->service())),
                                   {.field = "service", .reason = "UNKNOWN_SERVICE"}));
  }
  absl::MutexLock lock(&mutex_);
  response->set_status(stopped_ ? HealthCheckResponse::NOT_SERVING : HealthCheckResponse::SERVING);
  return grpc::Status::OK;
}

absl::Status HealthServiceImpl::AddWatcher() {
  absl::MutexLock lock(&mutex_);
  if (watchers_ == kMaxHealthWatchers) {
    return WithDetail(absl::ResourceExhaustedError("too many streams of Watch"),
                      {.reason = "TOO_MANY_WATCHERS", .limit = absl::StrCat("at most ", kMaxHealthWatchers)});
  }
  ++watchers_;
  return absl::OkStatus();
}

absl::Status HealthServiceImpl::Stream(const grpc::ServerContext& context, bool known,
                                       grpc::ServerWriter<HealthCheckResponse>* writer) {
  HealthCheckResponse response;
  response.set_status(known ? HealthCheckResponse::SERVING : HealthCheckResponse::SERVICE_UNKNOWN);
  bool stopped = false;
  bool there = writer->Write(response);
  while (there && !stopped) {
    {
      absl::MutexLock lock(&mutex_);
      stopped = mutex_.AwaitWithTimeout(absl::Condition(&stopped_), kDepartureCheckInterval);
    }
    there = !context.IsCancelled();
  }
  if (!there) return absl::CancelledError("the watcher has gone");
  response.set_status(HealthCheckResponse::NOT_SERVING);
  if (known) writer->Write(response);
  return absl::UnavailableError("the daemon is shutting down");
}

grpc::Status HealthServiceImpl::Watch(grpc::ServerContext* context, const HealthCheckRequest* request,
                                      grpc::ServerWriter<HealthCheckResponse>* writer) {
  if (!gate_->Enter()) return ToGrpcStatus(absl::UnavailableError("the daemon is shutting down"));
  absl::Status status = AddWatcher();
  if (status.ok()) {
    status = Stream(*context, request->service().empty(), writer);
    absl::MutexLock lock(&mutex_);
    --watchers_;
  }
  gate_->Leave();
  return ToGrpcStatus(status);
}

void HealthServiceImpl::StopServing() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
}

}  // namespace dak::daemon

#include "client/src/transport.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace dak::client {
namespace {

// A publication has as many tensors as its groups had, each with up to two descriptors.
constexpr int kMaxMessageBytes = 64 << 20;

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& socket_path) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  // Sessions of one process don't share a connection, so that one's death says nothing about another's.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(absl::StrCat("unix:", socket_path), grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

Transport::Transport(std::string socket_path) : socket_path_(std::move(socket_path)) {
  auto channel = MakeChannel(socket_path_);
  sessions_ = v1::SessionService::NewStub(channel);
  tensors_ = v1::TensorService::NewStub(channel);
  plans_ = v1::PlanService::NewStub(channel);
  migrations_ = v1::MigrationService::NewStub(channel);
}

absl::Status Transport::Describe(const absl::Status& status, absl::Duration timeout) const {
  if (absl::IsUnavailable(status)) return Prefixed(absl::StrCat("dakd at ", socket_path_, " is unavailable"), status);
  if (absl::IsDeadlineExceeded(status)) {
    return Prefixed(absl::StrCat("dakd at ", socket_path_, " didn't answer within ", absl::FormatDuration(timeout)),
                    status);
  }
  return status;
}

}  // namespace dak::client

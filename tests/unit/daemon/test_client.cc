#include "tests/unit/daemon/test_client.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <utility>

namespace dak::daemon {

HandleConnection::HandleConnection(const std::string& runtime_dir)
    : fd_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  (runtime_dir + "/handles.sock").copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    ADD_FAILURE() << "connect to handles.sock: " << std::strerror(errno);
  }
}

ReceivedReply HandleConnection::Receive() {
  ReceivedReply received;
  pollfd waiting = {.fd = fd_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&waiting, 1, 20'000) != 1) {
    ADD_FAILURE() << "no reply on handles.sock";
    received.ended = true;
    return received;
  }
  std::vector<char> buffer(64 * 1024);
  iovec data = {.iov_base = buffer.data(), .iov_len = buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 253)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t got = ::recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
  received.ended = got <= 0;
  if (received.ended) return received;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    std::vector<int> fds((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    std::memcpy(fds.data(), CMSG_DATA(header), fds.size() * sizeof(int));
    for (const int fd : fds) received.fds.emplace_back(fd);
  }
  EXPECT_TRUE(received.reply.ParseFromArray(buffer.data(), static_cast<int>(got)));
  return received;
}

void HandleConnection::SendBytes(const std::string& packet) {
  EXPECT_EQ(::send(fd_.get(), packet.data(), packet.size(), MSG_NOSIGNAL), static_cast<ssize_t>(packet.size()));
}

ReceivedReply HandleConnection::Fetch(const std::vector<std::string>& tickets) {
  v1::HandleRequest request;
  for (const std::string& ticket : tickets) request.add_tickets(ticket);
  SendBytes(request.SerializeAsString());
  return Receive();
}

Stubs::Stubs(const std::string& runtime_dir, bool narrow) {
  // Without a subchannel pool of its own, every channel to one path would share one connection.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(64 << 20);
  if (narrow) {
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 16 * 1024);
  }
  channel =
      grpc::CreateCustomChannel("unix:" + runtime_dir + "/control.sock", grpc::InsecureChannelCredentials(), arguments);
  session = v1::SessionService::NewStub(channel);
  tensor = v1::TensorService::NewStub(channel);
  node = v1::NodeService::NewStub(channel);
  plan = v1::PlanService::NewStub(channel);
}

v1::ErrorDetail DetailIn(const grpc::Status& status) {
  v1::RpcStatus details;
  v1::ErrorDetail detail;
  if (!details.ParseFromString(status.error_details()) || details.details_size() != 1) return detail;
  EXPECT_EQ(details.code(), static_cast<int>(status.error_code()));
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/dak.v1.ErrorDetail");
  EXPECT_TRUE(detail.ParseFromString(details.details(0).value()));
  return detail;
}

TestSession::TestSession(const std::string& runtime_dir, const std::string& name,
                         const std::vector<std::pair<v1::Tier, uint64_t>>& quotas)
    : connection(runtime_dir), stubs(runtime_dir), greeting(connection.Receive().reply) {
  v1::OpenSessionRequest request;
  request.set_api_version(1);
  request.set_connection_ticket(greeting.connection_ticket());
  request.set_name(name);
  for (const auto& [tier, bytes] : quotas) {
    v1::TierBytes* quota = request.add_quotas();
    quota->set_tier(tier);
    quota->set_bytes(bytes);
  }
  const grpc::Status status = Call(*stubs.session, &v1::SessionService::Stub::OpenSession, request, &opened);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

v1::TensorSpec TestSession::Spec(const std::string& name, uint64_t rows, uint64_t cols, double ratio) {
  v1::TensorSpec spec;
  spec.set_name(name);
  spec.set_data_type(v1::DATA_TYPE_BF16);
  spec.set_rows(rows);
  spec.set_cols(cols);
  spec.set_offload_ratio(ratio);
  spec.set_remote_tier(v1::TIER_HOST);
  return spec;
}

v1::AllocateTensorsRequest TestSession::AllocateRequest(const std::string& group,
                                                        const std::vector<v1::TensorSpec>& specs) const {
  v1::AllocateTensorsRequest request;
  request.set_session_token(token());
  request.set_group(group);
  for (const v1::TensorSpec& spec : specs) *request.add_tensors() = spec;
  return request;
}

grpc::Status TestSession::Allocate(const std::string& group, const std::vector<v1::TensorSpec>& specs,
                                   v1::AllocateTensorsResponse* response) {
  return Call(*stubs.tensor, &v1::TensorService::Stub::AllocateTensors, AllocateRequest(group, specs), response);
}

grpc::Status TestSession::Free(const std::vector<uint64_t>& ids, v1::FreeTensorsResponse* response) {
  v1::FreeTensorsRequest request;
  v1::FreeTensorsResponse unused;
  request.set_session_token(token());
  for (const uint64_t id : ids) request.add_tensor_ids(id);
  return Call(*stubs.tensor, &v1::TensorService::Stub::FreeTensors, request, response == nullptr ? &unused : response);
}

grpc::Status TestSession::Publish(const std::string& group, const std::string& publication,
                                  const std::string& fingerprint, v1::PublishGroupResponse* response) {
  v1::PublishGroupRequest request;
  v1::PublishGroupResponse unused;
  request.set_session_token(token());
  request.set_group(group);
  request.set_publication(publication);
  request.set_fingerprint(fingerprint);
  return Call(*stubs.tensor, &v1::TensorService::Stub::PublishGroup, request, response == nullptr ? &unused : response);
}

grpc::Status TestSession::Attach(const std::string& publication, const std::string& fingerprint,
                                 v1::AttachPublicationResponse* response) {
  v1::AttachPublicationRequest request;
  v1::AttachPublicationResponse unused;
  request.set_session_token(token());
  request.set_publication(publication);
  request.set_fingerprint(fingerprint);
  return Call(*stubs.tensor, &v1::TensorService::Stub::AttachPublication, request,
              response == nullptr ? &unused : response);
}

grpc::Status TestSession::Detach(const std::string& publication) {
  v1::DetachPublicationRequest request;
  v1::DetachPublicationResponse unused;
  request.set_session_token(token());
  request.set_publication(publication);
  return Call(*stubs.tensor, &v1::TensorService::Stub::DetachPublication, request, &unused);
}

grpc::Status TestSession::Withdraw(const std::string& publication, v1::WithdrawPublicationResponse* response) {
  v1::WithdrawPublicationRequest request;
  v1::WithdrawPublicationResponse unused;
  request.set_publication(publication);
  return Call(*stubs.tensor, &v1::TensorService::Stub::WithdrawPublication, request,
              response == nullptr ? &unused : response);
}

grpc::Status TestSession::Close(v1::CloseSessionResponse* response) {
  v1::CloseSessionRequest request;
  v1::CloseSessionResponse unused;
  request.set_session_token(token());
  return Call(*stubs.session, &v1::SessionService::Stub::CloseSession, request,
              response == nullptr ? &unused : response);
}

}  // namespace dak::daemon

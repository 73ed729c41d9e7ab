#include "client/demo/node_client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <chrono>

namespace dak::demo {
namespace {

constexpr auto kPatience = std::chrono::seconds(10);

template <typename Stub, typename Request, typename Response>
bool Ask(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
         Response* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  return (stub.*method)(&context, Request(), response).ok();
}

}  // namespace

NodeClient::NodeClient(const std::string& runtime_dir) {
  auto channel = grpc::CreateChannel("unix:" + runtime_dir + "/control.sock", grpc::InsecureChannelCredentials());
  node_ = v1::NodeService::NewStub(channel);
  sessions_ = v1::SessionService::NewStub(channel);
}

std::optional<v1::GetNodeResponse> NodeClient::GetNode() {
  v1::GetNodeResponse response;
  if (!Ask(*node_, &v1::NodeService::Stub::GetNode, &response)) return std::nullopt;
  return response;
}

std::optional<std::map<v1::Tier, v1::PoolInfo>> NodeClient::Pools() {
  v1::ListPoolsResponse response;
  if (!Ask(*node_, &v1::NodeService::Stub::ListPools, &response)) return std::nullopt;
  std::map<v1::Tier, v1::PoolInfo> pools;
  for (const v1::PoolInfo& pool : response.pools()) pools[pool.tier()] = pool;
  return pools;
}

std::optional<std::map<std::string, v1::SessionInfo>> NodeClient::SessionsByName() {
  v1::ListSessionsResponse response;
  if (!Ask(*sessions_, &v1::SessionService::Stub::ListSessions, &response)) return std::nullopt;
  std::map<std::string, v1::SessionInfo> sessions;
  for (const v1::SessionInfo& session : response.sessions()) sessions[session.name()] = session;
  return sessions;
}

std::optional<std::map<std::string, v1::SessionWindow>> NodeClient::WindowsByName() {
  v1::GetCongestionResponse response;
  if (!Ask(*node_, &v1::NodeService::Stub::GetCongestion, &response)) return std::nullopt;
  std::map<std::string, v1::SessionWindow> windows;
  for (const v1::LinkState& link : response.links()) {
    for (const v1::SessionWindow& window : link.sessions()) windows[window.name()] = window;
  }
  return windows;
}

}  // namespace dak::demo

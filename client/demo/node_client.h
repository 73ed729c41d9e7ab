// Questions to dakd over gRPC, as an operator's tool asks them: the full API, beside libdak.so in one process.
//
// Thread safety: all methods may be called from any thread. Errors: nothing where the daemon doesn't answer.
#ifndef DAK_CLIENT_DEMO_NODE_CLIENT_H_
#define DAK_CLIENT_DEMO_NODE_CLIENT_H_

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "dak/v1/node.grpc.pb.h"
#include "dak/v1/session.grpc.pb.h"

namespace dak::demo {

class NodeClient {
 public:
  explicit NodeClient(const std::string& runtime_dir);

  std::optional<v1::GetNodeResponse> GetNode();
  std::optional<std::map<v1::Tier, v1::PoolInfo>> Pools();
  std::optional<std::map<std::string, v1::SessionInfo>> SessionsByName();
  std::optional<std::map<std::string, v1::SessionWindow>> WindowsByName();

 private:
  std::unique_ptr<v1::NodeService::Stub> node_;
  std::unique_ptr<v1::SessionService::Stub> sessions_;
};

}  // namespace dak::demo

#endif  // DAK_CLIENT_DEMO_NODE_CLIENT_H_

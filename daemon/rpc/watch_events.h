// The stream of WatchEvents: one reactor a watcher, with a queue of at most 4096 events.
#ifndef DAK_DAEMON_RPC_WATCH_EVENTS_H_
#define DAK_DAEMON_RPC_WATCH_EVENTS_H_

#include <grpcpp/support/server_callback.h>

#include "daemon/rpc/call.h"
#include "dak/v1/node.pb.h"

namespace dak::daemon {

// The reactor, already started or already finished with an error; it deletes itself when gRPC is done with it.
grpc::ServerWriteReactor<v1::Event>* StartWatch(const ServiceContext& service,
                                                const grpc::CallbackServerContext& context,
                                                const v1::WatchEventsRequest& request);

}  // namespace dak::daemon

#endif  // DAK_DAEMON_RPC_WATCH_EVENTS_H_
